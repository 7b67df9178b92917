"""The figure of extents that every output or group has for itself: a row for each, a panel for each symmetry."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from bayesinv.orbits.groups import spread_name
from bayesinv.orbits.structure import Blocks
from bayesinv.plots.style import POSTERIOR, PRIOR, STYLE, as_written, axis_label, shown

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

    from bayesinv.fitted.fitted_model import FittedModel

LONGEST_NAME = 26  # characters of an output or group at the side of a panel


def plot_blocks(posterior: FittedModel, blocks: Blocks, reweighted: bool | None = None) -> matplotlib.figure.Figure:
    """Median and 90 % interval of each output, or of the population (a diamond) and each group, before their prior.

    Open markers are point estimates and extents that are fixed. The spread of the groups is in the title.

    Args:
        posterior: of a model with outputs or groups.
        blocks: its transform.
        reweighted: whether to use the importance weights; None uses them where they are good.
    """
    import matplotlib
    import matplotlib.figure

    model = posterior.model
    active = set(model.active)
    inner = [c for c in blocks.inner.coordinates if any(f"{c.name}[{block}]" in active for block in blocks.blocks)]
    names = [*["population"] * (model.pooling is not None), *blocks.blocks]
    columns = min(3, len(inner))
    rows = -(-len(inner) // columns)
    labels = [as_written(textwrap.shorten(name, LONGEST_NAME, placeholder=" …")) for name in names]
    size = (4.2 * columns + 0.1 * max(map(len, labels)), (0.34 * len(names) + 1.4) * rows + 0.6)
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
        for panel, coordinate in zip(panels, inner, strict=False):
            _rows(panel, posterior, coordinate, blocks, reweighted)
            panel.set_yticks(range(len(names)), labels)
            panel.set_ylim(len(names) - 0.4, -0.6)
        for panel in panels:
            panel.set_visible(False)
        _legend(figure, posterior, columns)
    return figure


def _rows(
    panel: matplotlib.axes.Axes,
    posterior: FittedModel,
    coordinate: Any,
    blocks: Blocks,
    reweighted: bool | None,
) -> None:
    """All rows of one symmetry, its axis and its title."""
    model, name = posterior.model, coordinate.name
    is_point = posterior.result.is_point
    quantiles = posterior.quantile([0.05, 0.5, 0.95], reweighted).numpy()  # (3, K)
    prior = [model.extents.prior_quantile(level).detach().numpy() for level in (0.05, 0.95)]
    pooled = model.pooling is not None
    rows = [posterior.index(each) for each in [name] * pooled + [f"{name}[{block}]" for block in blocks.blocks]]
    for i, k in enumerate(rows):
        lower, median, upper = (float(coordinate.to_people(float(level[k]))) for level in quantiles)
        fixed = model.symmetries[k] not in model.active
        if not fixed:
            low, high = (float(coordinate.to_people(float(level[k]))) for level in prior)
            panel.barh(i, high - low, left=low, height=0.72, color=PRIOR, alpha=0.2, lw=0)
        panel.errorbar(
            [median],
            [i],
            xerr=None if fixed or is_point else [[median - lower], [upper - median]],
            fmt="D" if pooled and i == 0 else "o",
            color=POSTERIOR,
            markerfacecolor="white" if fixed or is_point else POSTERIOR,
            markersize=7,
            capsize=4,
        )
    lines = [shown(name)]
    if pooled and spread_name(name) in model.active:
        first, middle, last = (f"{level[posterior.index(spread_name(name))]:.3g}" for level in quantiles)
        lines.append(f"spread {middle}{'' if is_point else f' [{first}, {last}]'} sd")
    # Extents that fill a fifth of what their priors reach could not be told apart.
    reach = float(coordinate.to_people(max(float(level[k]) for level in [prior[1]] for k in rows)))
    largest = float(coordinate.to_people(max(float(quantiles[2, k]) for k in rows)))
    if 0 < 5 * largest < reach:
        panel.set_xlim(0, 3 * largest)
        lines.append(f"prior to {reach:.3g} →")
    panel.set_xlim(left=0)
    panel.set_title("\n".join(lines), loc="left")
    panel.set_xlabel(axis_label(posterior, rows[0]))


def _legend(figure: matplotlib.figure.Figure, posterior: FittedModel, columns: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    is_point = posterior.result.is_point
    label = "point estimate" if is_point else "median and 90 % interval"
    mark = Line2D([], [], color=POSTERIOR, marker="o", markersize=7, ls="" if is_point else "-", label=label)
    if is_point:
        mark.set_markerfacecolor("white")
    handles = [Patch(color=PRIOR, alpha=0.2, label="prior, 90 %"), mark]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(2, columns), frameon=False)
