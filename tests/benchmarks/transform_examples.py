"""One example of every registered transform, with inputs: what the throughput table and docs/transforms.md go through.

    python tests/benchmarks/transform_examples.py    # prints the tables of docs/transforms.md

A new transform is one more line here; `tests/transforms/test_examples.py` fails without it.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from bayesinv import transforms as T
from bayesinv.testing.transforms import smooth_images


def images(batch: int) -> Tensor:
    """RGB, 32×32."""
    return smooth_images(batch, 3, 32, 32).float()


def volumes(batch: int) -> Tensor:
    """One channel of 12 slices, 24×24."""
    return smooth_images(batch, 12, 24, 24).float()[:, None]


def signals(batch: int) -> Tensor:
    """Three channels of 256 samples."""
    return torch.randn(batch, 3, 256, generator=torch.Generator().manual_seed(0))


def points(batch: int) -> Tensor:
    """Twenty points in space."""
    return torch.randn(batch, 20, 3, generator=torch.Generator().manual_seed(0))


def rows(batch: int) -> Tensor:
    """Ten columns of a table."""
    return torch.randn(batch, 10, generator=torch.Generator().manual_seed(0))


def turn_of_two(columns: int) -> Tensor:
    """The generator that turns the first two of so many columns into each other, (1, columns, columns)."""
    A = torch.zeros(1, columns, columns)
    A[0, 0, 1], A[0, 1, 0] = -1.0, 1.0
    return A


# By kind of data: what makes a batch of it, its name in tables, and the transforms of it by their registered name.
EXAMPLES: dict[str, tuple[Callable[[int], Tensor], str, dict[str, Callable[[], T.Transform]]]] = {
    "Images": (
        images,
        "3×32×32",
        {
            "Affine2d": T.Affine2d,
            "Perspective": T.Perspective,
            "Elastic": T.Elastic,
            "Colour": T.Colour,
            "GaussianBlur": T.GaussianBlur,
            "CutOut": T.CutOut,
            "PatchDropout": T.PatchDropout,
            "ImageFlow": lambda: T.ImageFlow([[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]),
        },
    ),
    "Volumes": (volumes, "1×12×24×24", {"AffineVolume": partial(T.AffineVolume, spacing=(3.0, 1.0, 1.0))}),
    "Signals": (
        signals,
        "3×256",
        {
            "TimeShift": partial(T.TimeShift, 100.0),
            "TimeWarp": T.TimeWarp,
            "AmplitudeScale": T.AmplitudeScale,
            "FrequencyShift": partial(T.FrequencyShift, 100.0),
            "FourierSurrogate": T.FourierSurrogate,
            "TimeMask": partial(T.TimeMask, 100.0),
            "BandStop": T.BandStop,
            "ChannelDropout": T.ChannelDropout,
            "SignFlip": T.SignFlip,
        },
    ),
    "Points and molecules": (
        points,
        "20×3",
        {
            "SO3": T.SO3,
            "Rotation3d": T.Rotation3d,
            "Translation3d": T.Translation3d,
            "Scale3d": T.Scale3d,
            "Affine3d": T.Affine3d,
            "Jitter3d": T.Jitter3d,
            "Reflection3d": T.Reflection3d,
        },
    ),
    "Rows of a table": (
        rows,
        "10",
        {
            "ColumnShift": lambda: T.ColumnShift([0]),
            "ColumnScale": lambda: T.ColumnScale([0]),
            "ColumnNoise": lambda: T.ColumnNoise([0]),
            "ColumnPermutation": lambda: T.ColumnPermutation([0, 1, 2]),
            "LinearFlow": lambda: T.LinearFlow(turn_of_two(10)),
        },
    ),
    "Anything": (images, "3×32×32", {"GaussianNoise": T.GaussianNoise}),
    "Finite groups": (
        images,
        "3×32×32",
        {
            "Flip": T.Flip,
            "CyclicRotation": T.CyclicRotation,
            "Dihedral": T.Dihedral,
            "Permutation": lambda: T.Permutation([[0, 1, 2], [2, 1, 0]], dim=-3),
        },
    ),
}
NOT_LISTED = {"Asymmetric", "Compose", "PerInput"}  # made of others


def examples() -> Iterator[tuple[str, str, T.Transform, Callable[[int], Tensor]]]:
    """(kind, shape of an example, transform, what makes a batch)."""
    for kind, (make, shape, members) in EXAMPLES.items():
        for build in members.values():
            yield kind, shape, build(), make


def table(kind: str) -> list[str]:
    """The lines of one table of docs/transforms.md."""
    lines = [
        "| transform | symmetry | largest extent | distribution | inverse | a positive value |",
        "|---|---|---|---|---|---|",
    ]
    for of, _, transform, _ in examples():
        if of != kind:
            continue
        for coordinate in transform.coordinates:
            drawn = f"group of {coordinate.order}" if coordinate.is_discrete else coordinate.distribution
            cells = (
                f"`{type(transform).__name__}`",
                f"`{coordinate.name}`",
                coordinate.words(coordinate.largest),
                drawn.replace("_", "-"),
                "yes" if transform.invertible else "no",
                coordinate.meaning or "",
            )
            lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    for name in EXAMPLES:
        print(f"## {name}", "", *table(name), "", sep="\n")
