"""What inference leaves: a model with draws, the facts about them, and corrected intervals."""

from bayesinv.fitted.fitted_model import FittedModel
from bayesinv.fitted.result import InferenceResult

__all__ = ["FittedModel", "InferenceResult"]
