"""From a model and data to a posterior: variational inference, NUTS, and the loop beneath them."""

from bayesinv.inference.fit import fit
from bayesinv.inference.loop import Step
from bayesinv.inference.result import InferenceResult

__all__ = ["InferenceResult", "Step", "fit"]
