"""The one Pyro model that variational inference, NUTS, simulation and prediction all run."""

from bayesinv.model.invariance_model import InvarianceModel, Simulation
from bayesinv.model.linearised import Linearised
from bayesinv.model.shards import condition_on_shards, initialise_on_shards, log_evidence_of_shards

__all__ = [
    "InvarianceModel",
    "Linearised",
    "Simulation",
    "condition_on_shards",
    "initialise_on_shards",
    "log_evidence_of_shards",
]
