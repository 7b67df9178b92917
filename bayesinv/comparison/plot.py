"""The figure of a comparison: extents with their intervals, accuracy or error, and log loss."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pandas as pd

from bayesinv.plots.style import COLOURS, GREY, MARKERS, STYLE, as_written, shown

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

# Two rows of panels hold six symmetries and the two scores; with more, those that no fit sees move are left out.
MOST_SYMMETRIES = 6
LABEL_WIDTH = 28  # characters under a panel of 3.1 inches


@runtime_checkable
class Compared(Protocol):
    """What the figure shows; see `Comparison`."""

    @property
    def table(self) -> pd.DataFrame: ...

    @property
    def extents(self) -> pd.DataFrame: ...

    @property
    def likelihood(self) -> str: ...

    @property
    def level(self) -> float: ...

    def by_symmetry(self) -> Iterator[tuple[str, str, pd.DataFrame]]: ...


def plot_comparison(comparison: Compared) -> matplotlib.figure.Figure:
    """A panel for each symmetry that some method reaches beyond zero, one for accuracy or RMSE, one for log loss.

    A filled marker with a bar is a posterior's median and interval, an open one a point estimate or a fixed extent. Of
    more than six symmetries only those are drawn that some method finds active (P(inactive) below a half); the others
    are named beneath.
    """
    import matplotlib
    import matplotlib.figure

    table = comparison.table
    symmetries = list(comparison.by_symmetry())
    left_out: list[str] = []
    if len(symmetries) > MOST_SYMMETRIES:
        left_out = [name for name, _, rows in symmetries if not (rows["p_inactive"] < 0.5).any()]
        symmetries = [entry for entry in symmetries if entry[0] not in left_out]
    methods = list(table.index)
    num_panels = len(symmetries) + 2
    rows = math.ceil(num_panels / 4)
    columns = math.ceil(num_panels / rows)  # five panels are three and two, not four and one
    height = 0.42 * len(methods) + 1.3
    with matplotlib.rc_context(STYLE):
        legend_columns = 3 if columns > 2 else 1
        size = (3.1 * columns + 1.2, height * rows + 0.3 * (4 - legend_columns + bool(left_out)) + 0.2)
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
        panels = [next(axes) for _ in range(num_panels)]
        for left in axes:
            left.set_visible(False)
        for panel, (symmetry, unit, of_methods) in zip(panels, symmetries, strict=False):
            _extents(panel, methods, dict(of_methods.iterrows()))
            panel.set_xlabel(as_written(textwrap.fill(f"{symmetry.replace('_', ' ')} ({unit})", LABEL_WIDTH)))
        quality, loss = panels[-2:]
        for i, (_, row) in enumerate(table.iterrows()):
            if comparison.likelihood != "gaussian":
                _mark(quality, i, 100 * row["accuracy"], [[100 * row["accuracy_se"]]] * 2, False)
            else:
                _mark(quality, i, row["rmse"], [[row["rmse_se"]]] * 2, False)
            _mark(loss, i, row["log_loss"], [[row["log_loss_se"]]] * 2, False)
        quality.set_xlabel("accuracy (%)" if comparison.likelihood != "gaussian" else "RMSE (units of y)")
        loss.set_xlabel("log loss (nat)")
        for panel in panels:
            panel.set_yticks(range(len(methods)), [as_written(str(name)) for name in methods])
            panel.set_ylim(len(methods) - 0.5, -0.5)
            panel.locator_params(axis="x", nbins=5)
            panel.grid(axis="x", color="#DDDDDD")
            panel.set_axisbelow(True)
        _legend(figure, comparison, legend_columns)
        if left_out:
            names = ", ".join(shown(name) for name in left_out)
            figure.supxlabel(f"inactive in every fit, not drawn: {names}", fontsize=12, color=GREY, wrap=True)
        return figure


def _extents(panel: matplotlib.axes.Axes, methods: list[Any], found: dict[Any, Any]) -> None:
    """The extents of one symmetry, and where a fit does not consider it."""
    for i, name in enumerate(methods):
        if name not in found:
            place = panel.get_yaxis_transform()  # x as a share of the panel, y as the fit's row
            panel.text(0.03, i, "not considered", transform=place, va="center", fontsize=12, color=GREY)
            continue
        row = found[name]
        is_point = bool(row["point"] or row["fixed"])
        reach = None if is_point else [[row["median"] - row["lower"]], [row["upper"] - row["median"]]]
        _mark(panel, i, row["median"], reach, is_point)
    panel.set_xlim(left=min(0.0, panel.get_xlim()[0]))


def _mark(panel: matplotlib.axes.Axes, i: int, value: float, reach: Any, is_open: bool) -> None:
    """One method's marker and bar."""
    colour = COLOURS[i % len(COLOURS)]
    panel.errorbar(
        [value],
        [i],
        xerr=reach,
        fmt=MARKERS[i % len(MARKERS)],
        color=colour,
        markerfacecolor="white" if is_open else colour,
        markersize=9,
        markeredgewidth=2,
        capsize=4,
    )


def _legend(figure: matplotlib.figure.Figure, comparison: Compared, columns: int) -> None:
    """What filled and open markers and the bars mean, as far as they occur."""
    from matplotlib.lines import Line2D

    points = comparison.extents["point"] | comparison.extents["fixed"]
    handles = []
    if not points.all():
        label = f"extent: median, {100 * comparison.level:g} % interval"
        handles.append(Line2D([], [], color=GREY, marker="o", markersize=9, label=label))
    if points.any():
        open_marker = Line2D([], [], color=GREY, marker="o", markersize=9, ls="", label="point estimate or fixed")
        open_marker.set_markerfacecolor("white")
        open_marker.set_markeredgewidth(2)
        handles.append(open_marker)
    handles.append(Line2D([], [], color=GREY, marker="|", markersize=9, label="scores: ± standard error"))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.5)
