"""Figures of a posterior. Every function returns a `matplotlib.figure.Figure` and shows nothing."""

from bayesinv.plots.extents import plot_evidence, plot_extents, plot_trace
from bayesinv.plots.orbit import plot_orbit

__all__ = [
    "plot_evidence",
    "plot_extents",
    "plot_orbit",
    "plot_trace",
]
