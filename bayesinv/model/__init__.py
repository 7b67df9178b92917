"""The one Pyro model that variational inference, NUTS, simulation and prediction all run."""

from bayesinv.model.invariance_model import InvarianceModel, Simulation
from bayesinv.model.linearised import Linearised
from bayesinv.model.result import InferenceResult

__all__ = [
    "InferenceResult",
    "InvarianceModel",
    "Linearised",
    "Simulation",
]
