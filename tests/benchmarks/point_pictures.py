"""The picture in docs/points_and_tables.md: one molecule under each transform of points.

python tests/benchmarks/point_pictures.py --out docs/point_transforms.png
"""

import argparse
import math
from pathlib import Path

import matplotlib.figure
import torch

import bayesinv
from bayesinv.datasets import toy_molecules
from bayesinv.transforms import (
    SO3,
    Affine3d,
    Jitter3d,
    LinearFlow,
    Reflection3d,
    Rotation3d,
    Scale3d,
    Transform,
    Translation3d,
)

HYPERBOLIC = torch.zeros(1, 4, 4)  # x and y along hyperbolas, in the columns x, y, z and atomic number
HYPERBOLIC[0, 0, 1] = HYPERBOLIC[0, 1, 0] = 1.0
# Each with an extent, internal units.
CASES: dict[str, tuple[Transform, float]] = {
    "rotation about z, ±40°": (Rotation3d("rotation_z", mask=3), math.radians(40)),
    "SO3, ±40° about any axis": (SO3(mask=3), math.radians(40)),
    "SO3, ±180°": (SO3(mask=3), math.pi),
    "translation along x, ±1 Å": (Translation3d("translate_x", mask=3), 1.0),
    "scale, ±40 %": (Scale3d(mask=3), math.log(1.4)),
    "reflection, 50 % of copies": (Reflection3d("x", mask=3), 0.5),
    "jitter, up to 0.3 Å": (Jitter3d(mask=3), 0.3),
    "shear of x along y, ±60 %": (Affine3d(["shear_xy"], mask=3), 0.6),
    "LinearFlow, hyperbolas, ±0.4": (LinearFlow(HYPERBOLIC), 0.4),
}
COPIES = 8
ORIGINAL, COPY = "#D55E00", "#0072B2"


def draw() -> matplotlib.figure.Figure:
    """Nine panels: the molecule in orange, copies of it in blue, seen along z."""
    x = toy_molecules(num_train=6, num_test=1, random_orientation=False).train.x
    x = x[(x[..., 3] > 0).sum(1).argmax()][None]  # the longest chain
    there = x[0, :, 3] > 0
    figure = matplotlib.figure.Figure(figsize=(9, 9), layout="constrained")
    for panel, (title, (transform, extent)) in zip(figure.subplots(3, 3).flat, CASES.items(), strict=True):
        orbit = bayesinv.Orbit(transform, num_samples=COPIES, seed=3)
        points = orbit(x, torch.tensor([extent], dtype=torch.float64))[:, 0, there]  # (S, atoms, columns)
        for copy in points:
            panel.plot(copy[:, 0], copy[:, 1], "o-", color=COPY, alpha=0.35, ms=4, lw=1.2)
        panel.plot(x[0, there, 0], x[0, there, 1], "o-", color=ORIGINAL, ms=6, lw=2.2)
        panel.set(title=title, xlim=(-4.2, 4.2), ylim=(-4.2, 4.2), aspect="equal", xlabel="x / Å", ylabel="y / Å")
        panel.label_outer()
    return figure


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/point_transforms.png"))
    draw().savefig(parser.parse_args().out, dpi=110)


if __name__ == "__main__":
    main()
