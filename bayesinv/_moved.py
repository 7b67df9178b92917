"""Names of modules before the package had its present folders; they still import, with a warning.

Only this table knows them. They go in version 0.3.
"""

from __future__ import annotations

import importlib
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "bayesinv"
MOVED = {
    "archives": "io.archives",
    "arguments": "numerics.arguments",
    "arrays": "data.arrays",
    "arviz_export": "posterior.arviz",
    "augmentation": "orbits.augmentation",
    "bend": "numerics.bend",
    "blocks_plot": "plots.blocks",
    "comparison_plot": "comparison.plot",
    "console": "io.console",
    "demo": "cli.demo",
    "exact_evidence": "model.exact_evidence",
    "files": "io.files",
    "function_cache": "numerics.function_cache",
    "groups": "orbits.groups",
    "hyperparameters": "model.hyperparameters",
    "inference.checkpoints": "io.checkpoints",
    "inference.differences": "io.differences",
    "inference.result": "fitted.result",
    "items": "data.items",
    "linearised": "model.linearised",
    "mixture": "numerics.mixture",
    "model_checks": "model.checks",
    "model_conditioning": "model.conditioning",
    "model_config": "model.config",
    "model_simulation": "model.simulation",
    "orbit_plot": "plots.orbit",
    "pooling": "extents.pooling",
    "posterior_summary": "posterior.summary",
    "prediction": "evidence.prediction",
    "priors": "extents.priors",
    "probit": "numerics.probit",
    "psis": "numerics.psis",
    "quantiles": "numerics.quantiles",
    "randomness": "numerics.randomness",
    "recalibrated": "fitted.recalibrated",
    "samplers": "data.samplers",
    "spike_and_slab": "extents.spike_and_slab",
    "storage": "posterior.storage",
    "streams": "data.streams",
    "streams.base": "data.streams.base",
    "streams.indexed": "data.streams.indexed",
    "streams.iterated": "data.streams.iterated",
    "streams.sources": "data.streams.sources",
    "structure": "orbits.structure",
    "surrogate": "numerics.surrogate",
    "symmetry_errors": "metrics.symmetry_errors",
    "temperature": "metrics.temperature",
    "threads": "numerics.threads",
    "torch_modes": "numerics.torch_modes",
    "unconstrained": "extents.unconstrained",
}


class MovedFinder(MetaPathFinder):
    """Finds a module under its old name, and warns of the new one."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        new = MOVED.get(name) if package == PACKAGE else None  # others may have modules of these names
        return None if new is None else ModuleSpec(fullname, _Moved(f"{PACKAGE}.{new}"))


class _Moved(Loader):
    def __init__(self, new: str):
        self.new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.new)
        self._spec = module.__spec__  # the import system is about to write the old name over it
        message = f"{spec.name} is now {self.new}; the old name goes in version 0.3"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
