"""The calls that fit a posterior again and load it, as Python that runs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from bayesinv.inference import Training, fit
from bayesinv.inference.guides import GUIDES
from bayesinv.inference.point import POINT_METHODS, as_point_method
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.posterior.invariance_posterior import InvariancePosterior

__all__ = ["fit_call", "load_call", "needs_model"]

WIDTH = 100  # of a line; the page scrolls past it


def fit_call(posterior: InvariancePosterior) -> str:
    """``posterior = bayesinv.fit(model, (x, y), ...)`` with all that was given and is not the default.

    The device is the one that was used, since sums in another order give other numbers.

    Args:
        posterior: of any method.
    """
    result, given = posterior.result, posterior.result.settings
    arguments = ["model", "(x, y)" if posterior.data.groups is None else "bayesinv.Data(x, y, groups=groups)"]
    arguments += [_method(posterior), f"seed={result.seed}"]
    if "device" in given:
        arguments.append(f"device={given['device']!r}")
    guide = result.guide or given.get("guide")
    if guide:  # a guide of the user's own is a callable, by whatever name they have it
        arguments.append(f"guide={guide!r}" if guide in GUIDES else f"guide={guide}")
    arguments += _steps(posterior)
    stages = dict(given.get("training", {}))
    second = stages.pop("second_stage", None)
    training = _differing(Training(), stages)
    if second is not None:  # functions are code of the user's own, by whatever name they have them
        own = {name: value for name, value in second.items() if value is not None}
        parts = [f"{k}={v}" if k in ("optimiser", "schedule") else f"{k}={v!r}" for k, v in own.items()]
        stage = f"second_stage=bayesinv.SecondStage({', '.join(parts)})"
        training = f"{training}, {stage}" if training else stage
    if training:
        arguments.append(f"training=bayesinv.Training({training})")
    arguments += [f"{name}={given[name]!r}" for name in ("learning_rate", "hyperparameters") if _is_given(name, given)]
    if not result.is_point:
        arguments.append(f"num_draws={result.num_draws}")
    if result.inference == "nuts":
        arguments += [f"num_chains={result.num_chains}", f"num_warmup={given.get('num_warmup')}"]
    line = f"posterior = bayesinv.fit({', '.join(arguments)})"
    return line if len(line) <= WIDTH else "posterior = bayesinv.fit(\n    " + ",\n    ".join(arguments) + ",\n)"


def load_call(posterior: InvariancePosterior) -> str:
    """``posterior = bayesinv.load("posterior.npz")``, with the model where no file describes it."""
    if not needs_model(posterior.model):
        return 'posterior = bayesinv.load("posterior.npz")'
    model = "model"
    if "method" in posterior.result.settings:  # the fitted model has extents and averages of the method's own
        method = _method(posterior)
        if method.startswith('"'):
            kind = type(as_point_method(posterior.result.inference))
            method = f"bayesinv.inference.{kind.__name__}({_differing(kind(), posterior.result.settings['method'])})"
        model = f"{method}.prepare(model)"
    return f'posterior = bayesinv.load("posterior.npz", model={model})'


def needs_model(model: InvarianceModel) -> bool:
    """Whether a part of it is the user's own code, which no file holds: a network, a kernel, a prior, a transform."""
    try:
        InvarianceModel.from_config(model.config())
    except (TypeError, ValueError, NotImplementedError):
        return True
    return False


def _method(posterior: InvariancePosterior) -> str:
    """The argument ``inference``."""
    result = posterior.result
    options = result.settings.get("method")
    if options is None:  # every extent fixed by its prior is a variational fit without a guide
        return '"vi"' if result.inference == "fixed" else f'"{result.inference}"'
    if result.inference not in POINT_METHODS:
        return "method"  # the user's own
    named = as_point_method(result.inference)
    if not _differing(named, options):
        return f'"{result.inference}"'
    return f"bayesinv.inference.{type(named).__name__}({_differing(type(named)(), options)})"


def _steps(posterior: InvariancePosterior) -> list[str]:
    """``max_steps``, where it was given."""
    result, given = posterior.result, posterior.result.settings
    if "training" not in given:
        return [f"max_steps={given['max_steps']}"] if given.get("max_steps") is not None else []
    n, size = given.get("num_train", len(posterior.data)), given["training"]["batch_size"]
    by_epochs = max(1, round(given["training"]["epochs"] * max(1, n // min(size, n))))
    return [] if result.num_steps == by_epochs else [f"max_steps={result.num_steps}"]


def _differing(default: Any, values: Mapping[str, Any]) -> str:
    """Keyword arguments of a dataclass for the fields whose values are not those of ``default``."""
    fields = [field.name for field in dataclasses.fields(default)]
    changed = {name: values[name] for name in fields if name in values and values[name] != getattr(default, name)}
    return ", ".join(f"{name}={value!r}" for name, value in changed.items())


def _is_given(name: str, settings: Mapping[str, Any]) -> bool:
    return name in settings and settings[name] != inspect.signature(fit).parameters[name].default
