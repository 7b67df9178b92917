"""Atomisation energies of molecules in random orientations: are the three rotations found, and what do they gain?

    python models/molecule_energy.py --num-train 1000 --inference vi --select --out run
    python models/molecule_energy.py --rotations vector
    python models/molecule_energy.py --inference none

An energy does not depend on how a molecule is turned. The Gaussian process here does not know that: it sees the density
of each element, smeared out and read at the points of a cubic grid that stands still while the molecule turns. Prints
the extents beside the truth (180° for rotations under the uniform measure, 0 for scale), and the error on molecules
that were not trained on.

The molecules are molecules/qm9_mp2_10k.npz in the folder that the environment variable BAYESINV_DATA names, or --root;
nothing is downloaded. What composition explains is not removed: energies span 1,500 kcal/mol.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from jaxtyping import Float
from torch import Tensor, nn

import bayesinv
from bayesinv.data import Data
from bayesinv.extents import PriorSpec
from bayesinv.transforms import SO3, Compose, Rotation3d, Scale3d, Transform
from models import common, regression
from models.report import extents_figure

ELEMENTS = (1, 6, 7, 8)
KCAL_PER_HARTREE = 627.5095
ROTATIONS = ("so3", "vector", "axes")


class SmearedDensity(nn.Module):
    """The density of each element on a cubic grid, from coordinates and atomic numbers.

        φ_{e,g}(x) = Σ_{a: z_a = e} exp(−|r_a − g|² / 2σ²),    g on a k × k × k grid about the origin

    A list of numbers per molecule that turns, stretches and moves with it: only the order of the atoms is forgotten.
    Gaussians are products over the axes, so an atom costs 3k exponentials and not k³.

    Args:
        ticks: k, points along an axis.
        spacing: between them, ångström.
        width: σ, ångström.

    Example:
        >>> SmearedDensity(ticks=4)(torch.zeros(2, 29, 4)).shape
        torch.Size([2, 256])
    """

    def __init__(self, ticks: int = 4, spacing: float = 2.2, width: float = 1.5) -> None:
        super().__init__()
        self.width = width
        self.ticks: Tensor
        self.register_buffer("ticks", spacing * (torch.arange(ticks) - 0.5 * (ticks - 1)))

    def forward(self, x: Float[Tensor, "n atoms columns"]) -> Float[Tensor, "n features"]:
        """φ, the grid of each element after the other, (n, 4 k³)."""
        x = x[:, : max(1, int((x[..., 3] > 0).sum(1).max()))]  # rows that are padding everywhere
        distance = (x[..., :3, None] - self.ticks.to(x)) / self.width
        along = torch.exp(-0.5 * distance.square())  # (n, atoms, 3, k)
        plane = (along[:, :, 0, :, None] * along[:, :, 1, None, :]).flatten(2)  # (n, atoms, k²)
        which = torch.stack([(x[..., 3] == number).to(x) for number in ELEMENTS], 1)  # (n, 4, atoms)
        height = (which[..., None] * along[:, None, :, 2]).transpose(2, 3).flatten(1, 2)  # (n, 4 k, atoms)
        return (height @ plane).flatten(1)


def candidates(rotations: str = "so3") -> Transform:
    """Rotations and a scale.

    Args:
        rotations: "so3" (one extent, the uniform measure at 180°), "vector" (`Rotation3d`, three extents in one
            exponential, closest to the uniform measure at 132°), or "axes" (about x, then y, then z, each with an
            extent; of the middle one ±90° are enough to reach every rotation).

    Raises:
        ValueError: something else.
    """
    if rotations not in ROTATIONS:
        raise ValueError(f"rotations: expected one of {', '.join(ROTATIONS)}, got {rotations!r}")
    parts: list[Transform] = [SO3(mask=3)]
    if rotations == "axes":
        parts = [Rotation3d(f"rotation_{axis}", mask=3) for axis in "xyz"]
    elif rotations == "vector":
        parts = [Rotation3d(mask=3)]
    return Compose([*parts, Scale3d(mask=3)])


def true_extents(rotations: str = "so3") -> dict[str, float]:
    """Half a turn for every rotation; what is not named does not move.

    Of three extents in one exponential, the truth is the point where E[R] = 0, 132°; of three in a row, the middle one
    has none of its own, and half a turn is as good as any above 90°.
    """
    turn = math.radians(132) if rotations == "vector" else math.pi
    return {name: turn for name in candidates(rotations).names if name.startswith("rotation")}


def build(
    num_train: int = 1000,
    num_test: int = 1000,
    rotations: str = "so3",
    num_orbit_samples: int = 16,
    num_inducing: int = 150,
    priors: Mapping[str, PriorSpec] | None = None,
    evidence: str = "gaussian",
    seed: int = 0,
    root: str | Path | None = None,
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The model with rotations and scale latent, training and test molecules in random orientations.

    Args:
        num_train, num_test: molecules.
        rotations: see `candidates`.
        num_orbit_samples: S, copies of each molecule.
        num_inducing: M.
        priors: by symmetry; those left out are latent under flat priors.
        evidence: "gaussian", the collapsed bound.
        seed: of the molecules and their orientations.
        root: folder of the data sets; None takes ``BAYESINV_DATA``.

    Raises:
        DataError: the molecules are not there. ValueError: an argument out of its range.
    """
    train, test = bayesinv.datasets.qm9(root, num_train=num_train, num_test=num_test, seed=seed)
    # Inducing inputs stay at training molecules: in 256 dimensions they would be the most of what there is to learn.
    backbone = bayesinv.GaussianProcess(num_inducing=num_inducing, features=SmearedDensity(), learn_inducing=False)
    model = bayesinv.InvarianceModel(
        backbone,
        candidates(rotations),
        likelihood="gaussian",
        evidence=evidence,
        priors=priors,
        num_orbit_samples=num_orbit_samples,
    )
    return model, train, test


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = common.make_parser(__doc__ or "")
    count = common.positive(int)
    made.add_argument("--num-train", type=count, default=1000, help="default: %(default)s")
    made.add_argument("--num-test", type=count, default=1000, help="default: %(default)s")
    made.add_argument("--rotations", choices=ROTATIONS, default="so3", help="default: %(default)s")
    made.add_argument("--root", type=Path, help="folder of the data sets (default: $BAYESINV_DATA)")
    regression.add_options(made, max_steps=200, num_orbit_samples=16, num_inducing=150)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, print, and write what was asked for."""
    made = parser()
    options = common.checked(made, made.parse_args(argv))
    options.truth = true_extents(options.rotations)
    names = candidates(options.rotations).names
    fixed = {"none": dict.fromkeys(names), "fixed": {name: options.truth.get(name) for name in names}}
    try:
        model, train, test = build(
            options.num_train,
            options.num_test,
            options.rotations,
            options.num_orbit_samples,
            options.num_inducing,
            fixed.get(options.inference),
            options.evidence,
            options.seed,
            options.root,
        )
    except ValueError as error:
        common.stop(made, error)
    posterior = regression.fit(options, model, train)
    title = f"atomisation energy, {len(train)} molecules in random orientations"
    figure = extents_figure(posterior, title, options.truth)
    regression.report(posterior, test, options, {"extents.png": figure}, "kcal/mol", KCAL_PER_HARTREE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
