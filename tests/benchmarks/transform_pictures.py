"""The picture of docs/transforms.md: what the extents of image transforms mean.

BAYESINV_DATA=... python tests/benchmarks/transform_pictures.py docs/image_transforms.png

A row a symmetry; from left to right t = −η, −η/2, 0, η/2, η, for amounts without a sign 0, η/4, … η, and from −down to
up where a range has two ends. The picture is one
of CIFAR-10's test images where they are on disk, and otherwise one of the characters that the package holds.
"""

import math
import sys
from pathlib import Path

import torch
from common import provenance

from bayesinv import datasets
from bayesinv.errors import DataError
from bayesinv.orbits.orbit import base_draws
from bayesinv.transforms import (
    Affine2d,
    Asymmetric,
    Colour,
    CutOut,
    CyclicRotation,
    Dihedral,
    Elastic,
    Flip,
    GaussianBlur,
    GaussianNoise,
    ImageFlow,
    PatchDropout,
    Permutation,
    Perspective,
    Transform,
)

# Extents in internal units: large enough to see, and within the largest sensible ones.
SHOWN: list[tuple[Transform, dict[str, float]]] = [
    (
        Affine2d(),
        dict(translate_x=0.4, translate_y=0.4, rotation=math.pi / 3, scale_x=0.4, scale_y=0.4, shear=0.4),
    ),
    (Perspective(), dict(perspective_x=0.3, perspective_y=0.3)),
    (Elastic(), dict(elastic=0.08)),
    (Colour(), dict(brightness=0.3, contrast=0.8, saturation=1.2, hue=2 * math.pi / 3)),
    (Asymmetric(Colour("brightness")), dict(brightness_down=0.1, brightness_up=0.3)),
    (ImageFlow([[[0.3, 1.0, 0.0], [-1.0, 0.3, 0.0]]], ["spiral"]), dict(spiral=0.9)),
    (GaussianBlur(), dict(blur=0.16)),
    (CutOut(), dict(cut_out=0.8)),
    (PatchDropout(8), dict(patch_dropout=0.6)),
    (GaussianNoise(largest=0.5, unit="of the range"), dict(noise=0.2)),
    (Flip(), {}),
    (CyclicRotation(4), {}),
    (Dihedral(4), {}),
    (Permutation([[0, 1, 2], [2, 1, 0]], dim=-3, name="red_and_blue"), {}),
]
COLUMNS = 5


def picture() -> torch.Tensor:
    """(1, 3, 32, 32) in [0, 1]."""
    try:
        return datasets.cifar10(num_train=1, num_test=200, seed=0).test.x[11:12]
    except DataError:
        return datasets.default_pictures()[:1].float()


def rows() -> list[tuple[str, list[str], torch.Tensor]]:
    """(name and unit, words below each copy, the copies) of every symmetry."""
    x = picture()
    found = []
    for transform, extents in SHOWN:
        if isinstance(transform, Asymmetric):
            found.append(two_ends(transform, extents, x))
            continue
        for k, coordinate in enumerate(transform.coordinates):
            label = coordinate.name.replace("_", " ")
            if coordinate.is_discrete:
                shown = min(coordinate.order, COLUMNS)  # of larger groups a few, the last one among them
                values = torch.linspace(0, coordinate.order - 1, shown).round().long().tolist()
                words = ["identity", *[f"element {g}" for g in values[1:]]]
            else:
                eta = extents[coordinate.name]
                start = 0.0 if coordinate.distribution == "one_sided" else -eta
                values = torch.linspace(start, eta, COLUMNS).tolist()
                # In people's units: a log factor of −η is not −1 times that of η.
                digits = 2 if eta < 1 and coordinate.to_people(1.0) == 1.0 else 0
                people = [round(float(coordinate.to_people(v)), digits) + 0.0 for v in values]
                words = [f"{v:+g}".replace("-", "−") if v else "0" for v in people]
                label = f"{label}\n({coordinate.unit})"
            t = base_draws(1, transform.num_columns, "monte_carlo", 1).float().repeat(len(values), 1)
            t[:, : transform.num_coordinates] = 0.0
            t[:, k] = torch.tensor(values)
            found.append((label, words, transform.orbit(x, t)[:, 0]))
    return found


def two_ends(transform: Asymmetric, extents: dict[str, float], x: torch.Tensor) -> tuple[str, list[str], torch.Tensor]:
    """The row of a range with an extent for each side, U[−down, up]."""
    (inner,) = transform.inner.coordinates
    down, up = extents.values()
    t = torch.tensor([[down, up, share] for share in torch.linspace(-1.0, 1.0, COLUMNS).tolist()])
    people = [round(float(inner.to_people(v))) for v in transform.amounts(t)[:, 0].tolist()]
    words = [f"{v:+g}".replace("-", "−") if v else "0" for v in people]
    return f"asymmetric {inner.name}\n({inner.unit})", words, transform.orbit(x, t)[:, 0]


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = rows()
    half = (len(shown) + 1) // 2
    figure, axes = plt.subplots(half, 2 * COLUMNS + 1, figsize=(15, 1.72 * half), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for i, (name, words, copies) in enumerate(shown):
        row, left = i % half, (COLUMNS + 1) * (i // half)
        for j, (word, copy) in enumerate(zip(words, copies, strict=True)):
            axis = axes[row, left + j]
            axis.imshow(copy.permute(1, 2, 0).clamp(0, 1), interpolation="nearest")
            axis.set_title(word, fontsize=11, pad=3)
        axes[row, left].text(-0.08, 0.5, name, transform=axes[row, left].transAxes, fontsize=13,
                             ha="right", va="center")  # fmt: skip
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/image_transforms.png")
    figure.savefig(path, dpi=80)
    print(f"{provenance()}\nwritten to {path}")


if __name__ == "__main__":
    main()
