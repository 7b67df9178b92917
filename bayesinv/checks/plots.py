"""Pictures of simulations: ranks against their band, and actual against nominal coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesinv.checks.coverage import coverage
from bayesinv.checks.ranks import simultaneous_band
from bayesinv.plots.style import STYLE, shown

if TYPE_CHECKING:
    import matplotlib.figure

# Okabe and Ito's blue and orange, and marks that differ too.
_COLOURS = {"draws": "#0072B2", "reweighted": "#D55E00"}
_MARKS = {"draws": "o", "reweighted": "s"}


def plot_ranks(simulations: xr.Dataset, level: float = 0.95) -> matplotlib.figure.Figure:
    """The distribution function of ranks less that of uniform ones, a panel a symmetry, with the simultaneous band.

    A curve above zero on the left and below on the right has too many extreme ranks: intervals too narrow.

    Args:
        simulations: of ``simulation_based_calibration``.
        level: of the band.
    """
    L, N = int(simulations.attrs["num_ranks"]), simulations.sizes["simulation"]
    z, low, high = simultaneous_band(N, L, level)

    def draw(panel, symmetry):
        panel.fill_between(z, low - z, high - z, step="post", color="#BBBBBB", lw=0, label=f"{100 * level:g} % band")
        for weighting in simulations["weighting"].values:
            ranks = simulations["rank"].sel(weighting=weighting, symmetry=symmetry).values
            ecdf = (ranks[:, None] <= np.arange(L)).mean(0)
            style = "-" if weighting == "draws" else "--"
            panel.step(z, ecdf - z, where="post", ls=style, color=_COLOURS[str(weighting)], label=str(weighting))
        panel.axhline(0, color="#595959", lw=1)
        panel.set_xlabel("rank of the truth, as a share")

    return _panels(simulations, draw, "distribution − uniform")


def plot_coverage(simulations: xr.Dataset) -> matplotlib.figure.Figure:
    """Actual against nominal coverage, a panel a symmetry; bars are one standard error.

    Args:
        simulations: of ``simulation_based_calibration``, or ``recorded``.
    """
    table = coverage(simulations)

    def draw(panel, symmetry):
        panel.plot([0.4, 1], [0.4, 1], color="#595959", lw=1, label="nominal")
        for i, weighting in enumerate(simulations["weighting"].values):
            rows = table.loc[(weighting, symmetry)]
            panel.errorbar(
                rows.index + 0.006 * i,
                rows["actual"],
                rows["actual_se"],
                fmt=_MARKS.get(str(weighting), "o"),
                color=_COLOURS.get(str(weighting), "#0072B2"),
                ms=5,
                label=str(weighting),
            )
        panel.set_xlabel("mass of the interval")

    return _panels(simulations, draw, "share that holds the truth")


def _panels(simulations, draw, label):
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    symmetries = [str(s) for s in simulations["symmetry"].values]
    with rc_context(STYLE):
        figure = Figure(figsize=(3.9 * len(symmetries) + 0.4, 3.9), layout="constrained")
        panels = figure.subplots(1, len(symmetries), squeeze=False, sharey=True)[0]
        for panel, symmetry in zip(panels, symmetries, strict=True):
            draw(panel, symmetry)
            panel.set_title(shown(symmetry))
        panels[0].set_ylabel(label)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure
