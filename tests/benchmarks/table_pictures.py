"""The picture of tables in docs/transforms.md: two columns of five rows under each transform.

python tests/benchmarks/table_pictures.py docs/table_transforms.png
"""

import math
import sys

import matplotlib.figure
import torch
from common import write_picture

import bayesinv
from bayesinv.transforms import ColumnNoise, ColumnPermutation, ColumnScale, ColumnShift, Transform

TABLE = ["x", "y"]
# Each with an extent, internal units.
CASES: dict[str, tuple[Transform, float]] = {
    "shift of x, ±0.6 sd": (ColumnShift("x", TABLE), 0.6),
    "scale of x, ±50 %": (ColumnScale("x", TABLE), math.log(1.5)),
    "noise of x, up to 0.4 sd": (ColumnNoise("x", TABLE), 0.4),
    "swap of x and y, 50 % of copies": (ColumnPermutation(TABLE, TABLE, order="swap"), 0.5),
}
COPIES = 8
ORIGINAL, COPY = "#D55E00", "#0072B2"


def draw() -> matplotlib.figure.Figure:
    """A panel a transform: the rows in orange, copies of them in blue."""
    x = torch.tensor([[-1.3, 1.2], [-0.5, -0.9], [0.3, 0.5], [0.9, -0.2], [1.4, 1.5]], dtype=torch.float64)
    figure = matplotlib.figure.Figure(figsize=(11, 3.3), layout="constrained")
    for panel, (title, (transform, extent)) in zip(figure.subplots(1, 4), CASES.items(), strict=True):
        orbit = bayesinv.Orbit(transform, num_samples=COPIES, seed=3)
        for copy in orbit(x, torch.tensor([extent], dtype=x.dtype)):  # (rows, columns)
            panel.plot(copy[:, 0], copy[:, 1], "o", color=COPY, alpha=0.4, ms=4)
        panel.plot(x[:, 0], x[:, 1], "o", color=ORIGINAL, ms=7)
        panel.set(title=title, xlim=(-2.8, 2.8), ylim=(-2.8, 2.8), aspect="equal", xlabel="x (sd)", ylabel="y (sd)")
        panel.title.set_fontsize(11)
        panel.label_outer()
    return figure


if __name__ == "__main__":
    sys.exit(write_picture(draw, __doc__))
