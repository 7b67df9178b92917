"""Learn which symmetries hold in data, how far each reaches, and how sure the data make us.

import bayesinv

model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(), "affine2d", likelihood="categorical")
posterior = bayesinv.fit(model, (x, y), seed=0)
posterior.summary()
"""

import warnings

with warnings.catch_warnings():
    # linear_operator and Pyro decorate functions with torch.jit.script while they are imported; not the user's concern.
    warnings.filterwarnings("ignore", message="`torch.jit")
    import gpytorch as _gpytorch  # noqa: F401
    import pyro as _pyro  # noqa: F401

from bayesinv import checks, datasets, errors, evidence, metrics, transforms
from bayesinv.backbones import DeepKernel, GaussianProcess, NeuralNetwork
from bayesinv.comparison import Comparison, compare
from bayesinv.data import Data
from bayesinv.extents import Extents, Outward, Truncated, UniformExtent, sample_extents
from bayesinv.inference import InferenceResult, Step, Training, fit
from bayesinv.model import InvarianceModel
from bayesinv.orbits import Orbit, average_function, average_probabilities, base_draws
from bayesinv.posterior import InvariancePosterior
from bayesinv.prediction import Prediction
from bayesinv.selection import Selection, paired_bayes_factors, select
from bayesinv.spike_and_slab import SpikeAndSlab
from bayesinv.storage import load
from bayesinv.transforms import Affine2d, Compose, Transform

__version__ = "0.1.0"

__all__ = [
    "Affine2d",
    "Comparison",
    "Compose",
    "Data",
    "DeepKernel",
    "Extents",
    "GaussianProcess",
    "InferenceResult",
    "InvarianceModel",
    "InvariancePosterior",
    "NeuralNetwork",
    "Orbit",
    "Outward",
    "Prediction",
    "Selection",
    "SpikeAndSlab",
    "Step",
    "Training",
    "Transform",
    "Truncated",
    "UniformExtent",
    "average_function",
    "average_probabilities",
    "base_draws",
    "checks",
    "compare",
    "datasets",
    "errors",
    "evidence",
    "fit",
    "load",
    "metrics",
    "paired_bayes_factors",
    "sample_extents",
    "select",
    "transforms",
]
