"""Pictures of a posterior. Every function returns a `matplotlib.figure.Figure` and shows nothing.

The figures are made without pyplot, so nothing piles up in its global list; save one with
`figure.savefig(path)`, or let a notebook with `%matplotlib inline` display it. Matplotlib is
imported when the first one is drawn.
"""

import textwrap
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float

from bayesinv.numerics.quantiles import weighted_quantile
from bayesinv.orbits.structure import Blocks
from bayesinv.plots.blocks import plot_blocks
from bayesinv.plots.style import GREY, POSTERIOR, PRIOR, STYLE, as_written, axis_label, shown

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

    from bayesinv.fitted.fitted_model import FittedModel

# Two colours of Okabe and Ito's palette, which stay apart in every common form of colour blindness,
# and in grey: the posterior is dark and the prior light.
MOST_PANELS = 9  # of outputs; from there on rows say more
TITLE_WIDTH = 34  # characters of 13 points above a panel of 3.9 inches, whose last letters are those of the next
FEW_STEPS = 40  # of a trace, which are shown whole


def plot_extents(posterior: "FittedModel", *, reweighted: bool | None = None) -> "matplotlib.figure.Figure":
    """Prior against posterior, one panel for each symmetry that is not fixed.

    Both densities are drawn relative to their own peak: a posterior is often fifty times as high as
    its prior, which would otherwise lie on the axis. The bar above marks the median and the 90 %
    interval, the dotted line the extent below which nothing can be seen to move. A point estimate is a line.

    Groups with extents of their own become rows instead, and so do outputs of more than nine panels: one panel for each
    symmetry, with the median and the 90 % interval of each output or group, and that of the prior behind them.

    The axis says what an extent is. A scale, of a normal or von Mises distribution, is the half-width of the uniform
    distribution that spreads as far; for a normal it is √3 standard deviations.

    Args:
        posterior: the posterior.
        reweighted: whether to use the importance weights; None uses them where they are good.

    Raises:
        ValueError: every symmetry is fixed, or there are no weights to use.
    """
    model = posterior.model
    active = [name for name in posterior.symmetries if name in model.active]
    if not active:
        raise ValueError("every symmetry of this model is fixed, so there is no posterior to draw")
    if drawn_in_rows(posterior):
        return plot_blocks(posterior, cast(Blocks, model.transform), reweighted)
    columns = min(3, len(active))
    rows = -(-len(active) // columns)
    log_weights = posterior.log_weights(reweighted)
    is_point = posterior.result.is_point
    negligible = model.transform.negligible(posterior.data.event_shape).numpy()
    with _style():
        figure = _figure(3.9 * columns, 2.9 * rows + 0.5)
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel in panels.flat[len(active) :]:
            panel.set_visible(False)
        for panel, name in zip(panels.flat, active, strict=False):
            k = posterior.index(name)
            coordinate = model.coordinates[k]
            draws = np.asarray(coordinate.to_people(posterior[name].numpy()), dtype=float)
            lower, median, upper, last = weighted_quantile(draws, np.array([0.05, 0.5, 0.95, 0.999]), log_weights)
            small = float(coordinate.to_people(float(negligible[k])))
            grid, density, reach = _prior_density(posterior, k)
            end = max(reach, float(draws.max()))
            # A posterior that fills a tenth of the axis cannot be read, so the axis may stop before
            # the prior does, and then says how far that goes on.
            axis_end = 3 * max(float(last), small)
            if axis_end > 0.6 * end or is_point:
                axis_end = end
            panel.fill_between(grid, density, color=PRIOR, alpha=0.2, lw=0)
            panel.plot(grid, density, color=PRIOR, ls="--", label="prior")
            if is_point:
                panel.axvline(median, color=POSTERIOR, lw=3, label=f"point estimate ({posterior.result.inference})")
            else:
                edges, heights = _histogram(draws, log_weights)
                panel.stairs(heights, edges, fill=True, color=POSTERIOR, lw=0, label="posterior")
                panel.errorbar(
                    [median],
                    [1.16],
                    xerr=[[median - lower], [upper - median]],
                    fmt="o",
                    color="black",
                    ms=4,
                    capsize=5,
                    lw=2,
                    capthick=2,
                    label="median and 90 % interval",
                )
            panel.axvline(small, color=GREY, ls=":", lw=1.5, label="too small to see")
            panel.set_xlim(0, axis_end)
            if axis_end < end:
                words = f"prior to {_number(reach)} →"
                panel.text(0.98, 0.68, words, transform=panel.transAxes, ha="right", fontsize=12)
            panel.set_ylim(0, 1.3)
            panel.set_yticks([0, 0.5, 1])
            panel.set_xlabel(axis_label(posterior, k))
            interval = "" if is_point else f" [{_number(lower)}, {_number(upper)}]"
            panel.set_title(_wrapped(f"{name}:", f"{_number(median)}{interval}"), loc="left")
        for row in panels:
            row[0].set_ylabel("density / its peak")
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, columns + 1), frameon=False)
    return figure


def drawn_in_rows(posterior: "FittedModel") -> bool:
    """Whether `plot_extents` draws a row for each output or group, and no densities."""
    model = posterior.model
    return model.pooling is not None or (isinstance(model.transform, Blocks) and len(model.active) > MOST_PANELS)


def plot_evidence(posterior: "FittedModel", symmetry: str, num_points: int = 25) -> "matplotlib.figure.Figure":
    """log p(D | η) along one symmetry, the others at their posterior medians.

    The line is the evidence relative to the highest point drawn, over the whole range and around the
    posterior; the band is the posterior's 90 % interval.

    Args:
        posterior: the posterior.
        symmetry: which one.
        num_points: evaluations of the evidence.

    Raises:
        KeyError: no such symmetry.
        ValueError: fewer than four points.
        NumericalError: the evidence cannot be evaluated at one of the points.
    """
    profile = posterior.evidence_profile(symmetry, num_points)
    coordinate = posterior.model.coordinates[posterior.index(symmetry)]
    lower, median, upper = (
        float(coordinate.to_people(float(v)))
        for v in posterior.quantile([0.05, 0.5, 0.95])[:, posterior.index(symmetry)]
    )
    values = (profile["log_evidence"] - profile["log_evidence"].max()).to_numpy()
    extents = profile["extent_people"].to_numpy()
    with _style():
        figure = _figure(10.0, 4.2)
        whole, near = figure.subplots(1, 2)
        for panel in (whole, near):
            panel.axvspan(lower, upper, color=PRIOR, alpha=0.35, lw=0, label="posterior, 90 %")
            panel.axvline(median, color="#8A5F00", ls="--", lw=1.5, label="posterior median")
            panel.plot(extents, values, "o-", color=POSTERIOR, ms=4, label="evidence")
            panel.set_xlabel(axis_label(posterior, posterior.index(symmetry), shown(symmetry)))
        whole.set_ylabel("log evidence − maximum (nats)")
        whole.set_xlim(0, float(extents.max()))
        # Over the whole range the evidence falls by hundreds of nats; what makes the posterior are the last few.
        margin = max(0.5 * (upper - lower), 1e-3 * float(extents.max()))
        near.set_xlim(max(lower - margin, 0.0), upper + margin)
        near.set_ylim(-6.0, 0.5)
        near.set_title("around the posterior")
        handles, labels = whole.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, columnspacing=1.2)
    return figure


def plot_trace(posterior: "FittedModel") -> "matplotlib.figure.Figure":
    """The objective at each step, with its running median over a twentieth of the steps.

    The log joint density where modes were climbed, the ELBO of networks.

    The climb out of the starting point is often a hundred times as high as everything after it, so
    the axis reaches below the lowest value of the second half by the range of that half; the title
    says where the climb began. Fewer than 40 steps are shown from the first on, each with a mark, and the
    best so far as a line.

    Raises:
        ValueError: there is no trace.
    """
    trace = np.asarray(posterior.trace, dtype=float)
    if len(trace) == 0:
        raise ValueError(f"this posterior ({posterior.result.inference}) has no trace to draw")
    steps = np.arange(1, len(trace) + 1)
    with _style():
        figure = _figure(6.0, 4.2)
        panel = figure.subplots()
        few = len(trace) < FEW_STEPS
        if few:
            panel.plot(steps, trace, "o", color="#8CC3E6", ms=5, label="each step")
            panel.plot(steps, np.maximum.accumulate(trace), color=POSTERIOR, label="best so far")
            panel.locator_params(axis="x", integer=True)
        else:
            panel.plot(steps, trace, color="#8CC3E6", lw=1, label="each step")
            panel.plot(steps, _running_median(trace), color=POSTERIOR, label="running median")
        settled = trace[:1] if few else trace[len(trace) // 2 :]
        spread = float(trace.max() - settled.min()) or 1.0
        lowest = float(settled.min()) if few else max(float(trace.min()), float(settled.min()) - spread)
        low = lowest - 0.05 * spread
        panel.set_ylim(low, float(trace.max()) + 0.05 * spread)
        if few and (below := int((trace < low).sum())):
            panel.set_title(f"{below} trial{'s' * (below > 1)} below the axis", loc="left")
        elif trace[0] < low:
            start = f"{trace[0]:,.0f}".replace("-", "−")
            panel.set_title(f"first step at {start} nats, below the axis", loc="left")
        panel.set_xlim(0, len(trace) + (1 if few else 0))
        climbed = "modes" in posterior.result.settings
        panel.set_xlabel("step of the extents" if posterior.model.is_network else "evaluation" if climbed else "step")
        objective = "log joint density (nats)" if climbed else "ELBO (nats)"
        panel.set_ylabel("objective (nats)" if posterior.result.is_point else objective)
        panel.ticklabel_format(axis="y", style="plain", useOffset=False)
        panel.legend(loc="lower right", frameon=False)
    return figure


def _wrapped(name: str, numbers: str) -> str:
    """A title for a panel of 3.9 inches, in lines that fit above it."""
    name = name.replace("_", " ")
    if len(name) + len(numbers) < TITLE_WIDTH:
        return as_written(f"{name} {numbers}")
    return as_written("\n".join([*textwrap.wrap(name, TITLE_WIDTH), numbers]))


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _figure(width: float, height: float) -> "matplotlib.figure.Figure":
    import matplotlib.figure

    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def _prior_density(
    posterior: "FittedModel", k: int, num_points: int = 201
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"], float]:
    """The prior of symmetry k on a grid, relative to its peak, and its end; people's units."""
    extents = posterior.model.extents
    coordinate = posterior.model.coordinates[k]
    support = extents.priors[coordinate.name].support
    low, high = float(support.lower_bound), float(support.upper_bound)
    # Mid-points of cells, so that an open end of the support (a log-normal at 0) is never asked
    # for.
    cell = (high - low) / num_points
    eta = low + cell * (torch.arange(num_points, dtype=torch.float64) + 0.5)
    with torch.no_grad():
        log_density = extents.log_marginal_prior(coordinate.name, eta).numpy()
    grid = eta.numpy()
    people = np.asarray(coordinate.to_people(grid), dtype=float)
    # A change of units divides the density by the slope of the change.
    log_density = log_density - np.log(np.gradient(people, grid))
    last = int(np.flatnonzero(np.isfinite(log_density))[-1])
    reach = float(coordinate.to_people(float(grid[last]) + cell / 2))
    return people, np.exp(log_density - log_density.max()), reach


def _histogram(
    draws: np.ndarray, log_weights: np.ndarray | None
) -> tuple[Float[np.ndarray, " edges"], Float[np.ndarray, " bins"]]:
    """Edges and heights, relative to the highest, over the middle 99.8 % of the draws."""
    low, high = weighted_quantile(draws, np.array([0.001, 0.999]), log_weights)
    if high - low <= 1e-9 * max(abs(high), 1.0):  # all draws alike: a sliver instead of nothing
        low, high = low - 1e-3 * max(abs(low), 1.0), high + 1e-3 * max(abs(high), 1.0)
    weights = None if log_weights is None else np.exp(log_weights)
    # Bars of 3.5 standard deviations / n^(1/3) balance noise and blur (Scott); the middle 99.8 % of
    # a normal are 6.2 standard deviations. n is the effective number of draws.
    effective = len(draws) if weights is None else weights.sum() ** 2 / np.square(weights).sum()
    bins = int(np.clip(np.ceil(6.2 / 3.5 * effective ** (1 / 3)), 5, 40))
    heights, edges = np.histogram(draws, bins=bins, range=(low, high), weights=weights)
    return edges, heights / heights.max()


def _running_median(values: np.ndarray) -> np.ndarray:
    half = max(1, len(values) // 40)
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
