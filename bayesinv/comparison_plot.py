"""The figure of a comparison: extents with their intervals, accuracy or error, and log loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bayesinv.plots import STYLE

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

    from bayesinv.comparison import Comparison

# Okabe and Ito's palette without its yellow, which is too light; markers differ as well, for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_comparison(comparison: Comparison) -> matplotlib.figure.Figure:
    """A panel for each symmetry that some method reaches beyond zero, one for accuracy or RMSE, one for log loss.

    A filled marker with a bar is a posterior's median and 90 % interval, an open one a point estimate.
    """
    import matplotlib
    import matplotlib.figure

    extents, table = comparison.extents, comparison.table
    symmetries = [
        name
        for name in dict.fromkeys(extents.index.get_level_values("symmetry"))
        if (extents.xs(name, level="symmetry")["median"] > 0).any()
    ]
    methods = list(table.index)
    num_panels = len(symmetries) + 2
    columns = min(4, num_panels)
    rows = math.ceil(num_panels / columns)
    height = 0.42 * len(methods) + 1.3
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(3.1 * columns + 1.2, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
        panels = [next(axes) for _ in range(num_panels)]
        for left in axes:
            left.set_visible(False)
        for panel, symmetry in zip(panels, symmetries, strict=False):
            of_methods = extents.xs(symmetry, level="symmetry").loc[methods]
            for i, (_, row) in enumerate(of_methods.iterrows()):
                is_point = bool(row["point"] or row["fixed"])
                reach = None if is_point else [[row["median"] - row["lower"]], [row["upper"] - row["median"]]]
                _mark(panel, i, row["median"], reach, is_point)
            unit = of_methods["unit"].iloc[0]
            panel.set_xlabel(f"{symmetry.replace('_', ' ')} ({unit})")
            panel.set_xlim(left=min(0.0, panel.get_xlim()[0]))
        quality, loss = panels[-2:]
        for i, (_, row) in enumerate(table.iterrows()):
            if comparison.likelihood == "categorical":
                _mark(quality, i, 100 * row["accuracy"], [[100 * row["accuracy_se"]]] * 2, False)
            else:
                _mark(quality, i, row["rmse"], None, False)
            _mark(loss, i, row["log_loss"], [[row["log_loss_se"]]] * 2, False)
        quality.set_xlabel("accuracy (%)" if comparison.likelihood == "categorical" else "RMSE (units of y)")
        loss.set_xlabel("log loss (nat)")
        for panel in panels:
            panel.set_yticks(range(len(methods)), methods)
            panel.set_ylim(len(methods) - 0.5, -0.5)
            panel.grid(axis="x", color="#DDDDDD")
            panel.set_axisbelow(True)
        return figure


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
