"""Learn which symmetries hold in data, how far each reaches, and how sure the data make us.

    import bayesinv

    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(), "affine2d", likelihood="categorical")
    posterior = bayesinv.fit(model, (x, y), seed=0)
    posterior.summary()

docs/guide.md goes on from here.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

from bayesinv._moved import MOVED, MovedFinder

if TYPE_CHECKING:
    from bayesinv import checks, datasets, errors, evidence, export, metrics, transforms
    from bayesinv.auditing import Audit
    from bayesinv.auditing.audit import audit
    from bayesinv.backbones import DeepKernel, GaussianProcess, NeuralNetwork
    from bayesinv.comparison.comparison import Comparison, compare
    from bayesinv.data.container import Data
    from bayesinv.discovery import Discovery
    from bayesinv.discovery.discover import discover
    from bayesinv.evidence.prediction import Prediction
    from bayesinv.export import InvariantPredictor
    from bayesinv.extents.families import Extents, sample_extents
    from bayesinv.extents.priors import Outward, Truncated, UniformExtent
    from bayesinv.extents.spike_and_slab import SpikeAndSlab
    from bayesinv.inference import NUTS, VI, InferenceResult, SecondStage, Step, TrainedNetwork, Training, train
    from bayesinv.inference.fit import fit
    from bayesinv.model.invariance_model import InvarianceModel
    from bayesinv.model.linearised import Linearised
    from bayesinv.orbits.averages import average_function, average_probabilities
    from bayesinv.orbits.orbit import Orbit, base_draws
    from bayesinv.posterior.invariance_posterior import InvariancePosterior, load
    from bayesinv.selection import Selection, paired_bayes_factors
    from bayesinv.selection.select import select
    from bayesinv.transforms import Affine2d, Compose, Transform

__version__ = "0.1.0"

__all__ = [
    "NUTS",
    "VI",
    "Affine2d",
    "Audit",
    "Comparison",
    "Compose",
    "Data",
    "DeepKernel",
    "Discovery",
    "Extents",
    "GaussianProcess",
    "InferenceResult",
    "InvarianceModel",
    "InvariancePosterior",
    "InvariantPredictor",
    "Linearised",
    "NeuralNetwork",
    "Orbit",
    "Outward",
    "Prediction",
    "SecondStage",
    "Selection",
    "SpikeAndSlab",
    "Step",
    "TrainedNetwork",
    "Training",
    "Transform",
    "Truncated",
    "UniformExtent",
    "audit",
    "average_function",
    "average_probabilities",
    "base_draws",
    "checks",
    "compare",
    "datasets",
    "discover",
    "errors",
    "evidence",
    "export",
    "fit",
    "load",
    "metrics",
    "paired_bayes_factors",
    "sample_extents",
    "select",
    "train",
    "transforms",
]

# Names and modules are imported when they are first asked for: the command line shows its help without torch.
_HOMES = {
    "Audit": "bayesinv.auditing",
    "audit": "bayesinv.auditing.audit",
    "DeepKernel": "bayesinv.backbones",
    "GaussianProcess": "bayesinv.backbones",
    "NeuralNetwork": "bayesinv.backbones",
    "Comparison": "bayesinv.comparison",
    "compare": "bayesinv.comparison",
    "Data": "bayesinv.data",
    "Discovery": "bayesinv.discovery",
    "discover": "bayesinv.discovery.discover",
    "InvariantPredictor": "bayesinv.export",
    "Extents": "bayesinv.extents",
    "Outward": "bayesinv.extents.priors",
    "Truncated": "bayesinv.extents.priors",
    "UniformExtent": "bayesinv.extents.priors",
    "sample_extents": "bayesinv.extents",
    "InferenceResult": "bayesinv.inference",
    "NUTS": "bayesinv.inference",
    "VI": "bayesinv.inference",
    "SecondStage": "bayesinv.inference",
    "Step": "bayesinv.inference",
    "TrainedNetwork": "bayesinv.inference",
    "Training": "bayesinv.inference",
    "train": "bayesinv.inference",
    "fit": "bayesinv.inference.fit",
    "Linearised": "bayesinv.model.linearised",
    "InvarianceModel": "bayesinv.model",
    "Orbit": "bayesinv.orbits",
    "average_function": "bayesinv.orbits",
    "average_probabilities": "bayesinv.orbits",
    "base_draws": "bayesinv.orbits",
    "InvariancePosterior": "bayesinv.posterior",
    "Prediction": "bayesinv.evidence.prediction",
    "Selection": "bayesinv.selection",
    "paired_bayes_factors": "bayesinv.selection",
    "select": "bayesinv.selection.select",
    "SpikeAndSlab": "bayesinv.extents.spike_and_slab",
    "load": "bayesinv.posterior.invariance_posterior",
    "Affine2d": "bayesinv.transforms",
    "Compose": "bayesinv.transforms",
    "Transform": "bayesinv.transforms",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        module = f"{__name__}.{name}"
        if name.startswith("_") or not (name in MOVED or PathFinder.find_spec(module, __path__)):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in MOVED:
            module = f"{__name__}.{MOVED[name]}"
            message = f"{__name__}.{name} is now {module}; the old name goes in version 0.3"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
        value = importlib.import_module(module)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    own = {name for name in globals() if name.startswith("__")}
    return sorted({*own, *__all__})


class _Quietly:
    """Imports what uses torch.jit.script while it is imported without torch's warning of it: not the user's concern."""

    names = ("pyro", "gpytorch", "linear_operator")

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in cls.names else None
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def quietly(module: Any) -> None:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="`torch.jit")
                    run(module)

            spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Quietly)
sys.meta_path.insert(0, MovedFinder())
