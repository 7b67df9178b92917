"""What a fit returns: draws, summaries, predictions, and its file."""

from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.posterior.storage import load

__all__ = [
    "InvariancePosterior",
    "load",
]
