"""A selection as a picture: each symmetry's probability, and the sets that share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from bayesinv.plots.style import POSTERIOR, PRIOR, STYLE, shown
from bayesinv.selection.sets import set_name

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_IN, _PRIOR, _OUT = POSTERIOR, PRIOR, "#D9D9D9"


@runtime_checkable
class Selected(Protocol):
    """What the figure shows; see `Selection`."""

    @property
    def symmetries(self) -> tuple[str, ...]: ...

    @property
    def inclusion(self) -> pd.DataFrame: ...

    @property
    def subsets(self) -> pd.DataFrame: ...


def plot_selection(selection: Selected, num_sets: int = 8) -> matplotlib.figure.Figure:
    """Inclusion probabilities on the left; on the right the likeliest sets, a column each, dots for what is in.

    Args:
        selection: what to draw.
        num_sets: how many sets at the most.

    Raises:
        ValueError: fewer than one set.
    """
    import matplotlib
    import matplotlib.figure

    if num_sets < 1:
        raise ValueError(f"num_sets: expected at least 1, got {num_sets!r}")
    table = selection.subsets.head(num_sets)
    K = len(selection.symmetries)
    with matplotlib.rc_context(STYLE):
        size = (5.6 + 0.55 * len(table) + 0.9, 1.9 + 0.52 * K + 1.4)
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        grid = figure.add_gridspec(
            2, 2, width_ratios=(4.2, 0.55 * len(table) + 0.9), height_ratios=(1.9, 0.52 * K + 0.6)
        )
        _inclusion_panel(figure.add_subplot(grid[1, 0]), selection)
        above = figure.add_subplot(grid[0, 1])
        dots = figure.add_subplot(grid[1, 1], sharex=above)
        columns = np.arange(len(table))
        above.bar(columns, table["probability"], color=_IN, width=0.62)
        above.errorbar(
            columns,
            table["probability"],
            table["standard_error"],
            fmt="none",
            ecolor="black",
            elinewidth=1.5,
            capsize=3,
        )
        above.set_ylabel("P(set | data)")
        above.set_ylim(0, max(0.1, 1.12 * float((table["probability"] + table["standard_error"]).max())))
        above.tick_params(axis="x", length=0, labelbottom=False)
        _dots_panel(dots, selection, list(table.index))
    return figure


def _inclusion_panel(panel: matplotlib.axes.Axes, selection: Selected) -> None:
    table = selection.inclusion
    rows = list(range(len(table)))
    panel.barh(rows, table["probability"], color=_IN, height=0.56, label="posterior")
    panel.errorbar(
        table["probability"],
        rows,
        xerr=table["standard_error"],
        fmt="none",
        ecolor="black",
        elinewidth=1.5,
        capsize=3,
        label="± standard error",
    )
    panel.plot(table["prior"], rows, ls="none", marker="|", ms=20, mew=3, color=_PRIOR, label="prior")
    for row, value, error in zip(rows, table["probability"], table["standard_error"], strict=True):
        inside = value > 0.75
        panel.text(
            value - 0.03 if inside else value + error + 0.03,
            row,
            _percent(float(value)),
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else "black",
            fontsize=12,
        )
    panel.set_yticks(rows, [shown(name) for name in selection.symmetries])
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.set_xlim(0, 1)
    panel.set_xlabel("P(symmetry is in | data)")
    handles, labels = panel.get_legend_handles_labels()
    panel.figure.legend(handles, labels, loc="upper left", frameon=False)


def _dots_panel(panel: matplotlib.axes.Axes, selection: Selected, names: list[str]) -> None:
    K = len(selection.symmetries)
    for column, name in enumerate(names):
        inside = [k for k in range(K) if _is_in(selection.symmetries, k, name)]
        outside = [k for k in range(K) if k not in inside]
        panel.plot([column] * len(outside), outside, "o", color=_OUT, ms=11)
        panel.plot([column] * len(inside), inside, "o-", color=_IN, ms=11)
    panel.set_ylim(K - 0.5, -0.5)
    panel.set_yticks([])
    panel.set_xticks([])
    panel.set_xlim(-0.6, max(len(names), 1) - 0.4)
    panel.set_xlabel("sets, likeliest first (● in)")
    for spine in panel.spines.values():
        spine.set_visible(False)


def _is_in(symmetries: tuple[str, ...], k: int, name: str) -> bool:
    return name != set_name([]) and symmetries[k] in name.split(" + ")


def _percent(value: float) -> str:
    if value < 0.001:
        return "< 0.1 %"
    if value > 0.999:
        return "> 99.9 %"
    return f"{100 * value:.1f} %" if value < 0.1 or value > 0.9 else f"{100 * value:.0f} %"
