"""From a model and data to a posterior: variational inference, NUTS, point estimates, and the loops beneath them."""

from bayesinv.fitted.result import InferenceResult
from bayesinv.inference.fit import fit
from bayesinv.inference.loop import Step
from bayesinv.inference.options import NUTS, VI
from bayesinv.inference.point import Augerino, AugNet, Fixed, Lila, NoInvariance, Optima, PointMethod, Policy
from bayesinv.inference.second_stage import SecondStage
from bayesinv.inference.trained_network import TrainedNetwork, train
from bayesinv.inference.training import Training

__all__ = [
    "NUTS",
    "VI",
    "AugNet",
    "Augerino",
    "Fixed",
    "InferenceResult",
    "Lila",
    "NoInvariance",
    "Optima",
    "PointMethod",
    "Policy",
    "SecondStage",
    "Step",
    "TrainedNetwork",
    "Training",
    "fit",
    "train",
]
