"""The one Pyro model that variational inference, NUTS, simulation and prediction all run."""

from bayesinv.model.invariance_model import InvarianceModel, Simulation
from bayesinv.model.linearised import Linearised

__all__ = [
    "InvarianceModel",
    "Linearised",
    "Simulation",
]
