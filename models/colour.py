"""CIFAR-10 and its colours: how far may brightness, contrast, saturation and hue change, and may pictures be mirrored?

    python models/colour.py --num-train 500 --inference vi --out run

Nobody knows the true extents, so that the table has no column for them. ``--inference fixed`` takes the colours that
people jitter by hand. Augerino and AugNet draw within half-widths, which a mirror image has none of: with them the
model has no flip. The images are looked for in the folder that the environment variable BAYESINV_DATA names, or
--root; nothing is downloaded.
"""

import argparse
import math
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch import Tensor, nn

import bayesinv
from bayesinv.data import Data
from bayesinv.transforms import Colour, Compose, Flip
from models import common
from models.affine_grid import EVIDENCES
from models.networks import NETWORKS, make_network
from models.report import extents_figure, report

__all__ = ["BY_HAND", "WITHOUT_FLIP", "Centred", "build", "main"]

BY_HAND = {
    "brightness": 0.2,
    "contrast": math.log(1.4),
    "saturation": math.log(1.4),
    "hue": 0.2 * math.pi,
    "flip_x": 0.5,
}
"""A usual jitter, internal units: 20 % of the range, factors of 1.4, 36°, and every other picture mirrored."""

WITHOUT_FLIP = ("augerino", "augnet", "lila", "optima")
"""Methods that refuse finite groups."""


class Centred(nn.Module):
    """(x - 1/2) · 4: pixels in [0, 1] to about zero mean and unit variance, after they have changed colour.

    The transform sees the pixels themselves, so that its grey is grey and its extents are shares of their range.
    """

    def forward(self, x: Tensor) -> Tensor:
        return 4.0 * (x - 0.5)


def build(
    num_train: int = 500,
    num_test: int = 1000,
    flip: bool = True,
    network: str = "small_lenet",
    evidence: str = "laplace",
    num_orbit_samples: int = 8,
    seed: int = 0,
    root: str | Path | None = None,
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The model with four colours, and mirror images, latent; training and test images in [0, 1].

    Args:
        num_train, num_test: images, drawn at random.
        flip: whether left and right may change places; it doubles the copies.
        network: a key of `models.networks.NETWORKS`.
        evidence: "laplace", or "plugin" (no reward for any extent: only upper limits mean something).
        num_orbit_samples: S, changes of colour of each image.
        seed: of the choice of images and of the network's initial weights.
        root: folder of the data sets; None takes ``BAYESINV_DATA``.

    Raises:
        DataError: CIFAR-10 is not there. ValueError: an argument out of its range.
    """
    net = make_network(network, channels=3, size=32, num_classes=10, seed=seed)
    train, test = bayesinv.datasets.cifar10(num_train, num_test, seed=seed, root=root)
    model = bayesinv.InvarianceModel(
        nn.Sequential(OrderedDict(centred=Centred(), network=net)),
        Compose([Colour(), Flip()]) if flip else Colour(),
        likelihood="categorical",
        evidence=evidence,
        num_orbit_samples=num_orbit_samples,
    )
    return model, train, test


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--num-train", type=common.positive(int), default=500, help="images (default: %(default)s)")
    parser.add_argument("--num-test", type=common.positive(int), default=1000, help="images (default: %(default)s)")
    parser.add_argument(
        "--no-flip", action="store_true", help="no mirror images; augerino, augnet, lila and optima never have them"
    )
    parser.add_argument("--network", choices=list(NETWORKS), default="small_lenet", help="default: %(default)s")
    parser.add_argument("--evidence", choices=EVIDENCES, default="laplace", help="default: %(default)s")
    parser.add_argument("--root", type=Path, help="folder of the data sets (default: $BAYESINV_DATA)")
    common.add_fit_options(parser, epochs=60)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: fit, print, and write what was asked for."""
    parser = _parser()
    options = common.checked(parser, parser.parse_args(argv))
    options.flip = not options.no_flip and options.inference not in WITHOUT_FLIP
    try:
        model, train, test = build(
            options.num_train,
            options.num_test,
            options.flip,
            options.network,
            options.evidence,
            options.num_orbit_samples,
            options.seed,
            options.root,
        )
    except ValueError as error:
        common.stop(parser, error)
    options.truth = {name: BY_HAND[name] for name in model.symmetries}
    posterior = common.fit_options(options, model, train)
    options.truth = None  # nobody knows it: the table has no such column
    title = f"Colours of CIFAR-10, {options.inference}, {len(train)} training images"
    facts = [] if options.flip or options.no_flip else [f"no flip: {options.inference} has no finite groups"]
    report(posterior, test, options, {"extents.png": extents_figure(posterior, title)}, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
