"""CIFAR-10 under known affine moves: are the extents found again, and what does knowing them gain?

    python models/cifar10_affine.py --transformation rotated_180 --num-train 10000 --inference vi --out run

The pictures are standardised by channel before they move, so that what comes in is the mean colour.
Prints the extents beside those that the images were moved by, and accuracy and log loss on test images moved alike.
The images are looked for in the folder that the environment variable BAYESINV_DATA names, or --root; nothing is
downloaded.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bayesinv
from bayesinv.data import Data
from models.affine_grid import AffineExperiment

EXPERIMENT = AffineExperiment(
    title="CIFAR-10",
    load=partial(bayesinv.datasets.cifar10, standardise=True),
    channels=3,
    size=32,
    network="resnet8",
    epochs=60,
    num_train=10_000,
)


def build(transformation: str = "rotated_180", **options: Any) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The model with all six affine extents latent, training and test images.

    Args:
        transformation: how the images are moved: plain, rotated_90, rotated_180, translated_8 or scaled.
        options: num_train, num_test, network, evidence, num_orbit_samples, seed and root, see
            `AffineExperiment.build`.

    Raises:
        DataError: CIFAR-10 is not there. ValueError: an argument out of its range.
    """
    return EXPERIMENT.build(transformation, **options)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    return EXPERIMENT.main(__doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
