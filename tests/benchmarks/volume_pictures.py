"""The picture in docs/transforms.md: a volume with thick slices under each coordinate of `AffineVolume`.

python tests/benchmarks/volume_pictures.py docs/volume_transforms.png

A row a coordinate, in the plane in which it moves things, through the middle; from left to right t = −η, −η/2, 0, η/2,
η. The volume is a drawn one: an ellipsoid with a bright core beside its middle, 3 mm between slices and 1 mm in them.
"""

import math
from typing import Any

import torch
from common import write_picture

from bayesinv.transforms import AffineVolume

SPACING, SHAPE = (3.0, 1.0, 1.0), (16, 48, 48)  # z, y, x
LARGEST = 10.0
# Extent and plane, by its rows and columns, of each coordinate.
SHOWN = {
    "translate_x": (8.0, "yx"),
    "translate_y": (8.0, "yx"),
    "rotation_z": (math.radians(40), "yx"),
    "scale_x": (0.4, "yx"),
    "shear_xy": (0.5, "yx"),
    "translate_z": (8.0, "zx"),
    "rotation_y": (math.radians(40), "zx"),
    "scale_z": (0.4, "zx"),
    "rotation_x": (math.radians(40), "zy"),
}
COLUMNS = 5


def volume() -> torch.Tensor:
    """(1, 1, depth, height, width) in [0, 1]."""
    sides = [d * (torch.arange(n) - 0.5 * (n - 1)) for n, d in zip(SHAPE, SPACING, strict=True)]
    z, y, x = torch.meshgrid(*sides, indexing="ij")

    def ball(cx: float, cy: float, cz: float, *radii: float) -> torch.Tensor:
        where = zip((x, y, z), (cx, cy, cz), radii, strict=True)
        distance = sum(((v - c) / r).square() for v, c, r in where).sqrt()
        return torch.sigmoid(12.0 * (1.0 - distance))

    return (0.45 * ball(0, 0, 0, 16, 12, 17) + 0.35 * ball(-4, 2, 3, 6, 5, 7))[None, None]


def draw() -> Any:
    """Nine rows of five."""
    import matplotlib.figure

    x = volume()
    figure = matplotlib.figure.Figure(figsize=(8.6, 12.6), layout="constrained")
    for panel in (panels := figure.subplots(len(SHOWN), COLUMNS)).flat:
        panel.set_xticks([])
        panel.set_yticks([])
    for row, (name, (eta, plane)) in zip(panels, SHOWN.items(), strict=True):
        transform = AffineVolume([name], SPACING, largest_shift=LARGEST)
        coordinate = transform.coordinates[0]
        values = torch.linspace(-eta, eta, COLUMNS)
        copies = transform.orbit(x, values[:, None])[:, 0, 0]  # (columns, z, y, x)
        across = "zyx".index(({*"zyx"} - {*plane}).pop())
        high, wide = (SPACING["zyx".index(axis)] * SHAPE["zyx".index(axis)] for axis in plane)
        for panel, copy, t in zip(row, copies, values.tolist(), strict=True):
            middle = copy.select(across, copy.shape[across] // 2)
            panel.imshow(middle, cmap="gray", vmin=0, vmax=1, extent=(0, wide, high, 0), interpolation="nearest")
            people = round(float(coordinate.to_people(t)), 1) + 0.0
            panel.set_title(f"{people:+g}".replace("-", "−") if people else "0", fontsize=12)
        label = f"{name.replace('_', ' ')}\n({coordinate.unit})\n{plane[1]} →, {plane[0]} ↓"
        row[0].set_ylabel(label, fontsize=12, rotation=0, ha="right", va="center")
    return figure


if __name__ == "__main__":
    raise SystemExit(write_picture(draw, __doc__))
