"""Pictures of a posterior. Every function returns a `matplotlib.figure.Figure` and shows nothing.

The figures are made without pyplot, so nothing piles up in its global list; save one with
`figure.savefig(path)`, or let a notebook with `%matplotlib inline` display it. Matplotlib is
imported when the first one is drawn.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.quantiles import weighted_quantile

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

    import bayesinv.posterior

# Two colours of Okabe and Ito's palette, which stay apart in every common form of colour blindness,
# and in grey: the posterior is dark and the prior light.
_POSTERIOR = "#0072B2"
_PRIOR = "#E69F00"
_GREY = "#595959"

# Print at half size brings 13 points to 6.5, the smallest that reads without effort.
STYLE: Any = {
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.labelsize": 13,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 2.0,
}


def plot_extents(
    posterior: "bayesinv.posterior.InvariancePosterior", *, reweighted: bool = False
) -> "matplotlib.figure.Figure":
    """Prior against posterior, one panel for each symmetry that is not fixed.

    Both densities are drawn relative to their own peak: a posterior is often fifty times as high as
    its prior, which would otherwise lie on the axis. The bar above marks the median and the 90 %
    interval, the dotted line the extent below which nothing can be seen to move. A point estimate is a line.

    Args:
        posterior: the posterior.
        reweighted: whether to use the importance weights.

    Raises:
        ValueError: every symmetry is fixed, or there are no weights to use.
    """
    model = posterior.model
    active = [name for name in posterior.symmetries if name in model.active]
    if not active:
        raise ValueError("every symmetry of this model is fixed, so there is no posterior to draw")
    columns = min(3, len(active))
    rows = -(-len(active) // columns)
    log_weights = posterior.log_weights(reweighted)
    is_point = _is_point(posterior)
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
            shown = 3 * max(float(last), small)
            if shown > 0.6 * end or is_point:
                shown = end
            panel.fill_between(grid, density, color=_PRIOR, alpha=0.2, lw=0)
            panel.plot(grid, density, color=_PRIOR, ls="--", label="prior")
            if is_point:
                panel.axvline(median, color=_POSTERIOR, lw=3, label=f"point estimate ({posterior.result.inference})")
            else:
                edges, heights = _histogram(draws, log_weights)
                panel.stairs(heights, edges, fill=True, color=_POSTERIOR, lw=0, label="posterior")
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
            panel.axvline(small, color=_GREY, ls=":", lw=1.5, label="too small to see")
            panel.set_xlim(0, shown)
            if shown < end:
                words = f"prior to {_number(reach)} →"
                panel.text(0.98, 0.68, words, transform=panel.transAxes, ha="right", fontsize=12)
            panel.set_ylim(0, 1.3)
            panel.set_yticks([0, 0.5, 1])
            panel.set_xlabel(f"half-width ({coordinate.unit})")
            interval = "" if is_point else f" [{_number(lower)}, {_number(upper)}]"
            panel.set_title(f"{_title(name)}: {_number(median)}{interval}", loc="left")
        for row in panels:
            row[0].set_ylabel("density / its peak")
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, columns + 1), frameon=False)
    return figure


def plot_orbit(
    posterior: "bayesinv.posterior.InvariancePosterior",
    x: Any,
    symmetry: str | None = None,
    num_copies: int = 7,
    reweighted: bool = False,
) -> "matplotlib.figure.Figure":
    """Copies of one image under the 5, 50 and 95 % posterior quantiles of the extents, a row each.

    Args:
        posterior: the posterior.
        x: one image, (channels, height, width) or with a batch dimension of 1; 1 or 3 channels.
        symmetry: vary this one alone, evenly from one end of its extent to the other. None shows
            all of them together, at the model's own base draws, which are the same in each row.
        num_copies: how many copies in a row.
        reweighted: whether to use the importance weights.

    Raises:
        DataError: x does not look like the training inputs.
        TypeError: a name in the place of the image.
        ValueError: x is not one image of 1 or 3 channels, or fewer than one copy.
        KeyError: no such symmetry.
    """
    image = _one_image(posterior, x)  # (1, channels, height, width)
    if num_copies < 1:
        raise ValueError(f"num_copies must be at least 1; got {num_copies}")
    if symmetry is None and posterior.model.transform is not posterior.model.orbit.transform:
        raise ValueError(
            "every output or group of this model has an orbit of its own; choose one symmetry of one of them, such as "
            f"plot_orbit(x, {posterior.symmetries[-1]!r})"
        )
    extents = posterior.quantile([0.05, 0.5, 0.95], reweighted=reweighted)  # (3, K)
    names = ("5 %", "median", "95 %")
    pictures = []  # per row: title and picture of each copy
    for eta in extents:
        t, titles = _coordinates(posterior, eta, symmetry, num_copies)
        with torch.no_grad():
            copies = posterior.model.transform.orbit(image, t.to(image))[:, 0]  # (copies, C, H, W)
        row = list(zip(titles, copies, strict=True))
        pictures.append(row if symmetry is not None else [("original", image[0]), *row])
    low, high = float(image.min()), float(image.max())
    with _style():
        columns = len(pictures[0])
        height, width = image.shape[-2:]
        figure = _figure(1.25 * columns + 1.1, 3 * 1.25 * height / width + 1.3)
        panels = figure.subplots(3, columns, squeeze=False)
        for i, row in enumerate(pictures):
            for panel, (title, picture) in zip(panels[i], row, strict=True):
                _show(panel, picture, low, high)
                if title and (i == 0 or symmetry is not None):
                    panel.set_title(title, fontsize=12)
            label = names[i]
            if symmetry is not None:
                k = posterior.index(symmetry)
                label += f"\n{posterior.model.coordinates[k].words(float(extents[i, k]))}"
            panels[i, 0].set_ylabel(label)
        which = "all symmetries" if symmetry is None else _title(symmetry)
        figure.suptitle(f"{which}: copies at the 5, 50 and 95 % quantiles of the extents", fontsize=13)
    return figure


def plot_evidence(
    posterior: "bayesinv.posterior.InvariancePosterior", symmetry: str, num_points: int = 25
) -> "matplotlib.figure.Figure":
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
            panel.axvspan(lower, upper, color=_PRIOR, alpha=0.35, lw=0, label="posterior, 90 %")
            panel.axvline(median, color="#8A5F00", ls="--", lw=1.5, label="posterior median")
            panel.plot(extents, values, "o-", color=_POSTERIOR, ms=4, label="evidence")
            panel.set_xlabel(f"half-width of {_title(symmetry)} ({coordinate.unit})")
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


def plot_trace(posterior: "bayesinv.posterior.InvariancePosterior") -> "matplotlib.figure.Figure":
    """The ELBO at each step, with its running median over a twentieth of the steps.

    The climb out of the starting point is often a hundred times as high as everything after it, so
    the axis reaches below the lowest value of the second half by the range of that half; the title
    says where the climb began.

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
        panel.plot(steps, trace, color="#8CC3E6", lw=1, label="each step")
        panel.plot(steps, _running_median(trace), color=_POSTERIOR, label="running median")
        settled = trace[len(trace) // 2 :]
        spread = float(trace.max() - settled.min()) or 1.0
        low = max(float(trace.min()), float(settled.min()) - spread) - 0.05 * spread
        panel.set_ylim(low, float(trace.max()) + 0.05 * spread)
        if trace[0] < low:
            start = f"{trace[0]:,.0f}".replace("-", "−")
            panel.set_title(f"first step at {start} nats, below the axis", loc="left")
        panel.set_xlim(0, len(trace))
        panel.set_xlabel("step of the extents" if posterior.model.is_network else "step")
        panel.set_ylabel("objective (nats)" if _is_point(posterior) else "ELBO (nats)")
        panel.ticklabel_format(axis="y", style="plain", useOffset=False)
        panel.legend(loc="lower right", frameon=False)
    return figure


def _is_point(posterior: "bayesinv.posterior.InvariancePosterior") -> bool:
    return posterior.result.num_chains * posterior.result.num_draws == 1


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _figure(width: float, height: float) -> "matplotlib.figure.Figure":
    import matplotlib.figure

    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def _prior_density(
    posterior: "bayesinv.posterior.InvariancePosterior", k: int, num_points: int = 201
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


def _one_image(posterior: "bayesinv.posterior.InvariancePosterior", x: Any) -> Tensor:
    event = posterior.data.event_shape
    if len(event) != 3 or event[0] not in (1, 3):
        raise ValueError(f"plot_orbit draws images of 1 or 3 channels; this model's inputs have shape {event}")
    if isinstance(x, str):
        raise TypeError(f"plot_orbit takes an image first: plot_orbit(x, {x!r})")
    image = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    image = posterior.check_inputs(image[None] if image.ndim == 3 else image)
    if len(image) != 1:
        raise ValueError(f"plot_orbit draws one image; got {len(image)}: pass x[0]")
    return image


def _coordinates(
    posterior: "bayesinv.posterior.InvariancePosterior",
    eta: Float[Tensor, " K"],
    symmetry: str | None,
    num_copies: int,
) -> tuple[Float[Tensor, "copies K"], list[str]]:
    """Coordinates t of the copies and a title for each."""
    if symmetry is None:
        t = posterior.model.orbit.coordinates(eta)[:num_copies]  # (copies, K)
        return t, [f"copy {i + 1}" for i in range(len(t))]
    k = posterior.index(symmetry)
    t = torch.zeros(num_copies, len(eta), dtype=torch.float64)
    t[:, k] = torch.linspace(-1.0, 1.0, num_copies, dtype=torch.float64) * eta[k]
    coordinate = posterior.model.coordinates[k]
    sign = "°" if coordinate.unit == "°" else ""
    values = [float(coordinate.to_people(float(v))) for v in t[:, k]]
    return t, [f"{v:+.1f}{sign}".replace("-", "−") if abs(v) >= 0.05 else f"0{sign}" for v in values]


def _show(panel: "matplotlib.axes.Axes", picture: Tensor, low: float, high: float) -> None:
    values = picture.detach().cpu().movedim(0, -1).numpy()  # (height, width, channels)
    if values.shape[-1] == 1:
        panel.imshow(values[..., 0], cmap="gray", vmin=low, vmax=high)
    else:
        panel.imshow(np.clip((values - low) / max(high - low, 1e-12), 0, 1))
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_visible(False)


def _running_median(values: np.ndarray) -> np.ndarray:
    half = max(1, len(values) // 40)
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def _title(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
