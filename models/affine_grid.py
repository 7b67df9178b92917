"""The grid of known moves that learned affine invariances are tested on, for any set of small images.

    plain, turned within ±90° or over the full circle, shifted by up to ±8 pixels, scaled by exp U(±log 2)

A. Immer, T. van der Ouderaa, G. Rätsch, V. Fortuin, M. van der Wilk (2022). Invariance learning in deep neural networks
with differentiable Laplace approximations. arXiv:2202.10638.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import bayesinv
from bayesinv.data import Data
from bayesinv.datasets import Split
from models import common
from models.networks import NETWORKS, make_network
from models.report import extents_figure, report

__all__ = ["EVIDENCES", "TRANSFORMATIONS", "AffineExperiment", "moves", "true_extents"]

TRANSFORMATIONS = ("plain", "rotated_90", "rotated_180", "translated_8", "scaled")
EVIDENCES = ("laplace", "plugin")
SHIFT = 8  # pixels


def moves(transformation: str, size: int) -> dict[str, float]:
    """Half-widths of the moves as the arguments of the data sets: rotation, translation or log_scale.

    Args:
        transformation: one of the five.
        size: pixels a side, which the ±8 are of.

    Raises:
        ValueError: an unknown transformation.

    Example:
        >>> moves("translated_8", size=28)
        {'translation': 0.5714285714285714}
    """
    table = {
        "plain": {},
        "rotated_90": {"rotation": math.pi / 2},
        "rotated_180": {"rotation": math.pi},
        "translated_8": {"translation": SHIFT / (size / 2)},
        "scaled": {"log_scale": math.log(2)},
    }
    if transformation not in table:
        raise ValueError(f"transformation: expected one of {', '.join(table)}, got {transformation!r}")
    return table[transformation]


def true_extents(transformation: str, size: int) -> dict[str, float]:
    """The same by symmetry, internal units; what is not named does not move.

    Example:
        >>> sorted(true_extents("scaled", size=28))
        ['scale_x', 'scale_y']
    """
    symmetries = {
        "rotation": ("rotation",),
        "translation": ("translate_x", "translate_y"),
        "log_scale": ("scale_x", "scale_y"),
    }
    return {
        symmetry: half_width
        for move, half_width in moves(transformation, size).items()
        for symmetry in symmetries[move]
    }


@dataclass(frozen=True)
class AffineExperiment:
    """One set of images under the grid.

    Attributes:
        title: of the figure.
        load: reads a split: (num_train, num_test, seed, and the moves).
        channels, size: of the images; all sets have ten classes.
        network: by default.
        epochs: by default.
        num_train: by default.
    """

    title: str
    load: Callable[..., Split]
    channels: int
    size: int
    network: str = "lenet"
    epochs: float = 60
    num_train: int = 1000

    def build(
        self,
        transformation: str = "rotated_180",
        num_train: int | None = None,
        num_test: int = 2000,
        network: str | None = None,
        evidence: str = "laplace",
        num_orbit_samples: int = 8,
        seed: int = 0,
        root: str | Path | None = None,
    ) -> tuple[bayesinv.InvarianceModel, Data, Data]:
        """The model with all six affine extents latent, training and test images.

        Args:
            transformation: how training and test images are moved, a key of `TRANSFORMATIONS`.
            num_train, num_test: images, drawn at random.
            network: a key of `models.networks.NETWORKS`; None takes the experiment's own.
            evidence: "laplace", or "plugin" (no reward for any extent: only upper limits mean something).
            num_orbit_samples: S, copies of each image.
            seed: of the images, their moves, and the network's initial weights.
            root: folder of the data sets; None takes ``BAYESINV_DATA``.

        Raises:
            DataError: the images are not there. ValueError: an argument out of its range.
        """
        net = make_network(network or self.network, self.channels, self.size, num_classes=10, seed=seed)
        train, test = self.load(
            num_train=self.num_train if num_train is None else num_train,
            num_test=num_test,
            seed=seed,
            root=root,
            **moves(transformation, self.size),
        )
        model = bayesinv.InvarianceModel(
            net,
            bayesinv.Affine2d(),
            likelihood="categorical",
            evidence=evidence,
            num_orbit_samples=num_orbit_samples,
        )
        return model, train, test

    def parser(self, description: str) -> argparse.ArgumentParser:
        """The command line."""
        parser = common.make_parser(description)
        parser.add_argument(
            "--transformation", choices=TRANSFORMATIONS, default="rotated_180", help="default: %(default)s"
        )
        parser.add_argument(
            "--num-train", type=common.positive(int), default=self.num_train, help="default: %(default)s"
        )
        parser.add_argument("--num-test", type=common.positive(int), default=2000, help="default: %(default)s")
        parser.add_argument("--network", choices=list(NETWORKS), default=self.network, help="default: %(default)s")
        parser.add_argument("--evidence", choices=EVIDENCES, default="laplace", help="default: %(default)s")
        parser.add_argument("--root", type=Path, help="folder of the data sets (default: $BAYESINV_DATA)")
        common.add_fit_options(parser, self.epochs)
        return parser

    def main(self, description: str, argv: Sequence[str] | None = None) -> int:
        """Fit, print, and write what was asked for."""
        parser = self.parser(description)
        options = common.checked(parser, parser.parse_args(argv))
        options.truth = true_extents(options.transformation, self.size)
        try:
            model, train, test = self.build(
                options.transformation,
                options.num_train,
                options.num_test,
                options.network,
                options.evidence,
                options.num_orbit_samples,
                options.seed,
                options.root,
            )
        except ValueError as error:
            common.stop(parser, error)
        posterior = common.fit_options(options, model, train)
        title = f"{self.title}, {options.transformation.replace('_', ' ')}, {len(train)} training images"
        figure = extents_figure(posterior, title, options.truth)
        report(posterior, test, options, {"extents.png": figure})
        return 0
