"""A discovery as a picture: matrices with their cones, and the probabilities of their number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from bayesinv.plots.style import GREY, POSTERIOR, PRIOR, STYLE, shown

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

MOST_COLUMNS = 4
_LARGEST_CONE = 20.0  # degrees at the edge of the dial


@runtime_checkable
class Discovered(Protocol):
    """What the figure shows; see `Discovery`."""

    @property
    def probabilities(self) -> dict[int, float]: ...

    @property
    def generators(self) -> Float[Tensor, "k rows columns"]: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def cones(self) -> tuple[float, ...]: ...

    @property
    def axes(self) -> tuple[str, ...]: ...

    @property
    def group(self) -> str | None: ...


def plot_discovery(found: Discovered) -> matplotlib.figure.Figure:
    """Probabilities of the dimensions first, then a picture of every generator's matrix with its cone in the title.

    A wedge below each matrix has the half-angle of the 90 % cone.

    Args:
        found: what to draw.
    """
    import matplotlib
    import matplotlib.figure

    k = len(found.generators)
    columns = min(MOST_COLUMNS, k + 1)
    rows = math.ceil((k + 1) / columns)
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(3.5 * columns + 0.6, 3.9 * rows), layout="constrained")
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        _dimensions(panels[0], found)
        for panel, name, cone, G in zip(panels[1:], found.names, found.cones, found.generators, strict=False):
            _matrix(panel, name, cone, G.numpy(), found.axes)
        for panel in panels[k + 1 :]:
            panel.set_axis_off()
        if found.group is not None:
            figure.suptitle(shown(found.group))
    return figure


def _dimensions(panel: matplotlib.axes.Axes, found: Discovered) -> None:
    numbers = sorted(found.probabilities)
    values = [found.probabilities[number] for number in numbers]
    bars = panel.bar([str(number) for number in numbers], values, color=POSTERIOR, width=0.6)
    panel.bar_label(bars, [f"{value:.2f}" for value in values], padding=2)
    panel.set_ylim(0.0, 1.15)
    panel.set_yticks([0.0, 0.5, 1.0])
    panel.set_xlabel("number of generators")
    panel.set_ylabel("probability")


def _matrix(panel: matplotlib.axes.Axes, name: str, cone: float, G: np.ndarray, axes: tuple[str, ...]) -> None:
    rows, columns = G.shape
    panel.imshow(G, cmap="RdBu_r", vmin=-1.0, vmax=1.0)
    for i in range(rows):
        for j in range(columns):
            colour = "white" if abs(G[i, j]) > 0.6 else "black"
            panel.text(j, i, f"{G[i, j] + 0.0:.2f}".replace("-0.00", "0.00"), ha="center", va="center", color=colour)
    panel.set_xticks(range(columns), [*axes, "1"][:columns])
    panel.set_yticks(range(rows), axes[:rows])
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    panel.set_title(f"{shown(name)}\nwithin {cone:.1f}° (90 %)")
    half = math.radians(min(cone, 90.0))
    dial = panel.inset_axes((0.2, -0.5, 0.6, 0.32))
    for sign in (-1.0, 1.0):
        dial.plot([0.0, math.cos(half)], [0.0, sign * math.sin(half)], color=PRIOR, lw=1.5)
    turn = np.linspace(-half, half, 50)
    dial.fill([0.0, *np.cos(turn)], [0.0, *np.sin(turn)], color=PRIOR, alpha=0.4)
    dial.plot([0.0, 1.0], [0.0, 0.0], color=GREY, lw=1.0)
    limit = max(math.sin(math.radians(_LARGEST_CONE)), math.sin(half))
    dial.set(xlim=(-0.02, 1.02), ylim=(-limit, limit))
    dial.set_aspect("equal")
    dial.set_axis_off()
