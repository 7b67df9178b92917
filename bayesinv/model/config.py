"""A model as JSON holds it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayesinv.backbones import GaussianProcess
from bayesinv.evidence import evidence_from_config
from bayesinv.extents.families import priors_from_config
from bayesinv.model.parts import ModelParts
from bayesinv.transforms import from_config


def describe(model: ModelParts) -> dict[str, Any]:
    """What the model was made with, as JSON holds it."""
    return {
        "backbone": model.backbone.config(),
        "orbit": model.orbit.config(),
        "likelihood": model.likelihood,
        "evidence": model.evidence.config(),
        "priors": model.extents.config(),
        "precision": model.precision,
        "memory_budget": model.memory_budget,
        "average": model.average,
        **({"output_action": model.output_action.name} if model.output_action is not None else {}),
        **({} if model.structure is None else {"outputs": list(model.structure.outputs)}),
        **({} if model.pooling is None else {"groups": list(model.pooling.groups)}),
    }


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What :class:`InvarianceModel` is to be called with to be the model described.

    Raises:
        ValueError: a part is the user's own and cannot be rebuilt.
    """
    if config["backbone"]["type"] != "GaussianProcess":
        raise ValueError("the network is the user's own object; pass the model: load(path, model=model)")
    if config["backbone"]["kernel"] is not None:
        raise ValueError("the kernel is the user's own object; pass the model: load(path, model=model)")
    orbit = config["orbit"]
    return {
        "backbone": _process(config["backbone"]),
        "transforms": from_config(orbit["transform"]),
        "likelihood": config["likelihood"],
        "evidence": evidence_from_config(config["evidence"]),
        "priors": priors_from_config(config["priors"]),
        "num_orbit_samples": orbit["num_samples"],
        "draws": orbit["draws"],
        "orbit_seed": orbit["seed"],
        "augmentation": orbit.get("augmentation"),
        "precision": config["precision"],
        "memory_budget": config["memory_budget"],
        "average": config.get("average", "function"),
        "outputs": config.get("outputs"),
        "groups": config.get("groups"),
    }


def _process(config: Mapping[str, Any]) -> GaussianProcess:
    """The process of a description; those of version 0.1 knew no features, and their null was the exact covariance."""
    if config.get("space") == "features":
        return GaussianProcess(num_features=config["num_features"])
    return GaussianProcess(num_inducing=config["num_inducing"], learn_inducing=config["learn_inducing"])
