"""What a fit returns: draws, summaries, predictions, and its file."""

from bayesinv.posterior.invariance_posterior import InvariancePosterior, load

__all__ = [
    "InvariancePosterior",
    "load",
]
