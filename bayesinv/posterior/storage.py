"""A posterior in one file: arrays and JSON in a zip, and nothing that runs when it is read.

The file is a NumPy .npz archive. `header` holds the UTF-8 bytes of a JSON object (format name and
version, the model's configuration, the scalars of the inference result, the versions it was written
with); `extents`, `log_weights`, `trace`, `x` and `y` are arrays, and `state/<name>` are the entries
of the model's `state_dict`. For a network `outputs_at_first` is what it returned for the first inputs
in `x`: its code is not in the file, and this tells whether the one that is passed to `load` computes
the same. `hyperparameters` are those of every draw, and `density/shares`, `density/means`, `density/scales`
and `density/bend` with the header's `degrees` are q, of fits that have them; version 1 had neither.
`guide_extents`, `surrogate/points` and `surrogate/values` are those of networks with weights of their own at every
extent. `recalibration/errors` goes with the header's `recalibration`, of posteriors that have one. Arrays of Python
objects, which NumPy would unpickle, are refused. One file past 400 lines: reading mirrors writing, entry by entry.
"""

import contextlib
import copy
import json
import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.errors import SavedFileError
from bayesinv.fitted.fitted_model import FittedModel
from bayesinv.fitted.recalibrated import Recalibration
from bayesinv.fitted.result import InferenceResult
from bayesinv.io.archives import pack, unpack
from bayesinv.io.checkpoints import is_checkpoint
from bayesinv.io.differences import differences
from bayesinv.io.files import as_path, check_writable, write_atomically
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.bend import Bend
from bayesinv.numerics.mixture import Mixture
from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.surrogate import Surrogate
from bayesinv.numerics.torch_modes import ordinary
from bayesinv.transforms import from_config

FORMAT = "bayesinv.InvariancePosterior"
POSTERIOR_FILE = "posterior.npz"  # in a folder of the command line
# Raised when a file of this version can no longer be read by the code before it.
FORMAT_VERSION = 2
READABLE = (1, 2)

_NUMBER, _MISSING = (int, float), type(None)
# Facts of a result that the header holds, and what JSON may make of each.
_SCALARS: dict[str, tuple[type, ...]] = {
    "inference": (str,),
    "guide": (str, _MISSING),
    "pareto_k": (*_NUMBER, _MISSING),
    "log_evidence": (*_NUMBER, _MISSING),
    "log_evidence_se": (*_NUMBER, _MISSING),
    "seconds": _NUMBER,
    "num_steps": (int,),
    "converged": (bool,),
    "seed": (int,),
    "rhat": (list, _MISSING),
    "ess": (list, _MISSING),
    "settings": (dict,),
    "warnings": (list,),
}
_DENSITY = ("shares", "means", "scales")
_SURROGATE = ("points", "values")  # its hyperparameters follow from them
# Inputs at which a network is run, two since one may be squeezed away, and how far outputs may differ, as a share of
# the largest: float32 on another machine stays below a thousandth, and reduced precision on a GPU near it.
_FIRST_INPUTS = 2
_OUTPUT_TOLERANCE = 1e-2
# What else in a model's description follows from, and how many differences are worth reading.
_STRUCTURE = ("groups", "outputs", "output_action")
_DIFFERENCES_SHOWN = 4
_PACKAGES = ("bayesinv", "torch", "pyro-ppl", "gpytorch", "numpy")


def save(posterior: FittedModel, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a posterior, its model and its training data to one file, completely or not at all.

    Args:
        posterior: what to save.
        path: the file; its folder must exist. The name is used as given.
        overwrite: whether an existing file that bayesinv saved may be replaced.

    Returns:
        The path written.

    Raises:
        FileExistsError: the file exists and `overwrite` is False; or it is a device or a pipe.
        FileNotFoundError: the folder does not exist.
        TypeError: the model's state holds something that is not a tensor.
    """
    check_writable(path, overwrite)
    return write_atomically(path, pack(_arrays(posterior)), overwrite)


Parts = tuple[InvarianceModel, Data, InferenceResult, Recalibration | None]


@ordinary()
def read(path: str | os.PathLike[str], model: InvarianceModel | None = None) -> Parts:
    """What an `InvariancePosterior` that `save` wrote was made of; arguments and errors as for `bayesinv.load`."""
    if model is not None and not isinstance(model, InvarianceModel):
        raise TypeError(
            f"model: expected a bayesinv.InvarianceModel, built as the one saved was, got {type(model).__name__}: "
            "load(path, model=InvarianceModel(net, transforms))"
        )
    path = as_path(path)
    if path.is_dir():
        if not (path / POSTERIOR_FILE).is_file():
            raise FileNotFoundError(
                f"{path} is a folder without {POSTERIOR_FILE}; give the file that posterior.save wrote, or a folder of "
                "`bayesinv fit`"
            )
        path = path / POSTERIOR_FILE
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if is_checkpoint(path):
        raise SavedFileError(
            f"{path} is the checkpoint of a training that may not have ended, and no posterior; run the same fit again "
            f"with Training(checkpoint={str(path)!r}), which goes on from there, and save what it returns"
        )
    arrays = unpack(path, "posterior")
    header = _header(path, arrays)
    try:
        result = InferenceResult(
            extents=torch.from_numpy(arrays["extents"]),
            hyperparameters=_optional(arrays, "hyperparameters"),
            density=_density(header, arrays),
            guide_extents=_optional(arrays, "guide_extents"),
            surrogate=_surrogate(arrays),
            log_weights=_optional(arrays, "log_weights"),
            trace=tuple(arrays["trace"].tolist()),
            **_result_fields(header["result"]),
        )
        data = Data(
            x=torch.from_numpy(arrays["x"]),
            y=torch.from_numpy(arrays["y"]),
            num_classes=_checked_count(header["num_classes"]),
            groups=_optional(arrays, "groups"),
            columns=_checked_names("columns", header.get("columns")),
            classes=_checked_names("classes", header.get("classes")),
            flat=header.get("flat") is True,
        )
        config, symmetries = header["model"], tuple(header["symmetries"])
        if not all(isinstance(name, str) for name in symmetries):
            raise TypeError(f"its symmetries are {header['symmetries']!r}, not names")
        recalibration = _recalibration(header, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise SavedFileError(f"{path} is incomplete or damaged: {error}") from error
    prefix = "state/"
    state = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}
    if model is None:
        model = _rebuild(path, config, header.get("model_error"), state)
    else:
        model = copy.deepcopy(model)  # the caller's is left as it is, also where the file does not fit it
        # Priors that depend on how many examples there are learn it in a fit.
        model.extents.resolve(int(result.settings.get("num_train", len(data))))
        _check_same(path, config, model, "method" in result.settings)
    if tuple(model.symmetries) != symmetries:
        raise SavedFileError(
            f"{path} holds the symmetries {', '.join(symmetries)}; the model has {', '.join(model.symmetries)}"
        )
    model = _with_state(path, model, state)
    device = next(model.parameters()).device
    data = data.to(device)
    _check_outputs(path, arrays.get("outputs_at_first"), model, data)
    return model, data, result, recalibration


def _density(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Mixture | None:
    if "degrees" not in header:
        return None
    degrees = math.inf if header["degrees"] is None else float(header["degrees"])
    shares, means, scales = (torch.from_numpy(arrays[f"density/{name}"]) for name in _DENSITY)
    rows = _optional(arrays, "density/bend")
    num, dims = means.shape if means.ndim == 2 else (0, 0)
    shapes = [tuple(part.shape) for part in (shares, means, scales)]
    if not num or shapes != [(num,), (num, dims), (num, dims, dims)] or (rows is not None and len(rows) != 4):
        raise ValueError(f"its density has parts of the shapes {shapes}")
    if not all(bool(torch.isfinite(part).all()) for part in (shares, means, scales, shares if rows is None else rows)):
        raise ValueError("its density has numbers that are not finite")
    if not degrees > 0 or not bool((shares >= 0).all()) or abs(float(shares.sum()) - 1.0) > 1e-6:
        raise ValueError("its density has shares that do not sum to one, or no positive degrees of freedom")
    bend = None if rows is None else Bend(*rows)
    return Mixture(shares, means, scales, degrees, bend)


def _surrogate(arrays: dict[str, np.ndarray]) -> Surrogate | None:
    if "surrogate/points" not in arrays:
        return None
    return Surrogate.of(*(torch.from_numpy(arrays[f"surrogate/{name}"]) for name in _SURROGATE))


def _recalibration(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Recalibration | None:
    stored = header.get("recalibration")  # files written before there was any have no such entry
    return None if stored is None else Recalibration.from_header(stored, arrays["recalibration/errors"])


def _arrays(posterior: FittedModel) -> dict[str, np.ndarray]:
    result, data = posterior.result, posterior.data
    config, config_error = None, None
    try:
        config = posterior.model.config()
        json.dumps(config)
    except (TypeError, ValueError, NotImplementedError) as error:
        # A part of the user's own: its state is saved, the code that builds it cannot be.
        config, config_error = None, str(error)
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {"python": platform.python_version(), **_versions()},
        "symmetries": list(posterior.symmetries),
        "model": config,
        "model_error": config_error,
        "num_classes": data.num_classes,
        "columns": data.columns,
        "classes": data.classes,
        "flat": data.flat,
        "result": {name: getattr(result, name) for name in _SCALARS},
    }
    if posterior.recalibration is not None:
        header["recalibration"] = posterior.recalibration.header()
    if result.density is not None:
        degrees = result.density.degrees
        header["degrees"] = None if math.isinf(degrees) else degrees  # JSON has no infinity
    arrays = {
        "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
        "extents": result.extents.numpy(),
        "trace": np.asarray(result.trace, dtype=np.float64),
        "x": _numpy("x", data.x),
        "y": _numpy("y", data.y),
    }
    if data.groups is not None:
        arrays["groups"] = _numpy("groups", data.groups)
    if result.hyperparameters is not None:
        arrays["hyperparameters"] = _numpy("hyperparameters", result.hyperparameters)
    if result.density is not None:
        arrays |= {f"density/{name}": _numpy(name, getattr(result.density, name)) for name in _DENSITY}
        bend = result.density.bend
        if bend is not None:
            rows = torch.stack([bend.centre, bend.width, bend.below, bend.above])
            arrays["density/bend"] = _numpy("bend", rows)
    if result.guide_extents is not None:
        arrays["guide_extents"] = _numpy("guide_extents", result.guide_extents)
    if result.surrogate is not None:
        arrays |= {f"surrogate/{name}": _numpy(name, getattr(result.surrogate, name)) for name in _SURROGATE}
    if result.log_weights is not None:
        arrays["log_weights"] = result.log_weights.numpy()
    if posterior.recalibration is not None:
        arrays["recalibration/errors"] = posterior.recalibration.errors
    outputs = _outputs_at_first(posterior.model, data)
    if outputs is not None:
        arrays["outputs_at_first"] = outputs.cpu().numpy()
    for name, value in posterior.model.state_dict().items():
        arrays[f"state/{name}"] = _numpy(name, value)
    return arrays


def _numpy(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, Tensor):
        raise TypeError(f"only tensors can be saved; the model's state has a {type(value).__name__} at {name!r}")
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()  # which NumPy does not have


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _header(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    try:
        header = json.loads(arrays["header"].tobytes().decode())
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}")
        version = int(header["format_version"])
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise SavedFileError(f"{path} is not a posterior saved by bayesinv: {error}") from error
    if version not in READABLE:
        versions = header.get("versions")
        writer = versions.get("bayesinv") if isinstance(versions, dict) else None
        raise SavedFileError(
            f"{path} has format version {version}, this bayesinv reads up to {FORMAT_VERSION}; it was "
            f"written by bayesinv {writer or 'of an unknown version'}: load it with that"
        )
    return header


def _result_fields(stored: dict[str, Any]) -> dict[str, Any]:
    fields = {name: stored[name] for name in _SCALARS}
    for name, value in fields.items():
        kinds = _SCALARS[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError(f"{name} is {value!r}, of type {type(value).__name__}")
    for name in ("rhat", "ess", "warnings"):
        if fields[name] is not None:
            fields[name] = tuple(fields[name])
    return fields


def _checked_names(what: str, value: object) -> tuple[str, ...] | None:
    """Of the columns of a data frame, or of classes; files from before these were kept hold none."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{what} is {value!r}, not names")
    return tuple(value)


def _checked_count(value: object) -> int | None:
    if value is not None and not isinstance(value, int):
        raise TypeError(f"num_classes is {value!r}, not a number")
    return value


def _optional(arrays: dict[str, np.ndarray], name: str) -> Tensor | None:
    return torch.from_numpy(arrays[name]) if name in arrays else None


def _rebuild(path: Path, config: Any, reason: Any, state: dict[str, Tensor]) -> InvarianceModel:
    if config is None:
        raise SavedFileError(
            f"{path} was saved from a model that no file can describe ({reason}); build the same "
            "model again and pass it: load(path, model=model)"
        )
    try:
        _check_room(config, state)
        return InvarianceModel.from_config(config)
    except Exception as error:
        raise SavedFileError(f"{path}: the saved model cannot be rebuilt: {error}") from error


def _check_room(config: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Raise if a model would be built with more orbit draws or random features than the file has numbers for."""
    orbit, features = config["orbit"], config["backbone"].get("num_features")
    transform = from_config(orbit["transform"])
    is_drawn = [k is None or not transform.coordinates[k].is_discrete for k in transform.columns]
    shape = (orbit["num_samples"] if any(is_drawn) else 1, len(is_drawn))
    if tuple(state["orbit.base"].shape) != shape:
        raise ValueError(f"it describes base draws of shape {shape} and holds {tuple(state['orbit.base'].shape)}")
    if features is not None:
        needed = features // 2 * state["backbone.inducing"].shape[1]
        stored = sum(value.numel() for name, value in state.items() if name.startswith("backbone.frequencies."))
        if needed > stored:
            raise ValueError(f"it describes {features} random features, of {needed} numbers, and holds {stored}")


def _with_state(path: Path, model: InvarianceModel, state: dict[str, Tensor]) -> InvarianceModel:
    try:
        model.load_state(state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise SavedFileError(
            f"{path} does not fit the model: {error}; build the model exactly as the one saved"
        ) from error
    return model


def _outputs_at_first(model: InvarianceModel, data: Data) -> Tensor | None:
    """h(x) of a network at the first inputs, in evaluation mode; None for one that gives no definite answer."""
    if not model.is_network:
        return None
    network = copy.deepcopy(model.network).eval()
    first = []
    for seed in (0, 1):  # one that draws at random gives two answers
        try:
            with torch.no_grad(), seeded(seed):
                first.append(network(data.x[:_FIRST_INPUTS]))
        except Exception:  # code of the user's own, which need not take a batch of this size: nothing to compare
            return None
    spread = (first[0] - first[1]).abs().max()  # sums in another order differ, by less
    definite = bool(spread <= 0.1 * _OUTPUT_TOLERANCE * first[0].abs().max())  # false where one is not finite
    return first[0] if definite else None


def _check_outputs(path: Path, stored: np.ndarray | None, model: InvarianceModel, data: Data) -> None:
    if stored is None:
        return
    saved, given = torch.from_numpy(stored).double(), _outputs_at_first(model, data)
    if given is None or given.shape != saved.shape:
        came = "no definite outputs" if given is None else f"outputs of shape {tuple(given.shape)}"
        found = f"outputs of shape {tuple(saved.shape)} at its first training inputs, and the one given has {came}"
    else:
        difference = float((given.cpu().double() - saved).abs().max())
        largest = float(saved.abs().max())
        if difference <= _OUTPUT_TOLERANCE * largest:
            return
        found = (
            f"outputs of up to {largest:.3g} at its first training inputs, and with the same weights those of the one "
            f"given differ by up to {difference:.3g}"
        )
    raise SavedFileError(
        f"{path} was saved from a network with {found}: its forward computes something else; pass a model built with "
        "the code that was fitted, with the same activations and settings of its layers"
    )


def _check_same(path: Path, config: Any, model: InvarianceModel, is_point: bool) -> None:
    if config is None:
        return
    if not isinstance(config, dict):
        raise SavedFileError(f"{path} is damaged: its model is described by {config!r}")
    given = json.loads(json.dumps(model.config()))
    # Where memory goes is the business of the machine that reads the file.
    compared = dict.fromkeys([*_STRUCTURE, *config])
    different = [k for k in compared if k != "memory_budget" and config.get(k) != given.get(k)]
    if different:
        # Groups and outputs come with priors of their own: what follows from another difference is no news.
        first = [k for k in different if k in _STRUCTURE] or different
        texts = differences({k: config.get(k) for k in first}, {k: given.get(k) for k in first})
        more = f", and {len(texts) - _DIFFERENCES_SHOWN} more" if len(texts) > _DIFFERENCES_SHOWN else ""
        raise SavedFileError(
            f"{path} was saved from another model, which differs in {', '.join(first)}: "
            f"{', '.join(texts[:_DIFFERENCES_SHOWN])}{more}"
            + ("; a point method fits a copy of its own: load(path, model=method.prepare(model))" if is_point else "")
        )
