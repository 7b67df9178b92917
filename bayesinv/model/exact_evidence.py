"""The exact covariance under a fitted model: what inducing values cost, and by which evidence a fit is weighed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones import GaussianProcess
from bayesinv.backbones.exact import BYTES_PER_VALUE
from bayesinv.data.container import Data
from bayesinv.data.groups import numbered
from bayesinv.errors import NumericalError
from bayesinv.evidence.basis import basis_of
from bayesinv.evidence.collapsed import CollapsedEvidence
from bayesinv.model.invariance_model import InvarianceModel

# n S up to which every draw is weighed by the exact evidence: about 0.1 s for each.
LARGEST_WEIGHED = 2000


@torch.no_grad()
def inducing_gap(model: InvarianceModel, data: Data, eta: Float[Tensor, " K"]) -> dict[str, float] | None:
    """How far the evidence with inducing values lies below that of the exact covariance.

    Args:
        model: fitted; its hyperparameters and inducing inputs are held.
        data: what it was fitted to.
        eta: extents, (K,), internal units.

    Returns:
        {"gap": log p_exact(D | η) - log p(D | η)} in nats, where the n²S² kernel values fit into the model's memory
        budget and extents are in common; else {"share": of the prior variance of f(x_i) that inducing values leave, on
        average}. None for a model without inducing values, or over minibatches.

    Example:
        >>> inducing_gap(posterior.model, posterior.data, posterior.quantile(0.5))  # doctest: +SKIP
        {'gap': 12.3}
    """
    backbone, evidence = model.backbone, model.evidence
    if not isinstance(backbone, GaussianProcess) or backbone.space != "inducing":
        return None
    if not isinstance(evidence, CollapsedEvidence):
        return None
    before = evidence.warm_start
    try:
        if _exact_fits(model, data):
            return {"gap": float(_exact(model).log_evidence(eta, data)) - float(model.log_evidence(eta, data))}
    except NumericalError:
        pass  # of one of the two evidences; the share needs neither
    finally:
        evidence.warm_start = before
    data = numbered(data, model.groups)
    white = basis_of(model.at(eta), data.x).at(data.x, data.groups)
    left = white.residuals.mean()
    return {"share": float(left / (left + white.V.square().sum(-2).mean()))}


def exact_for_weights(model: InvarianceModel, data: Data) -> InvarianceModel | None:
    """The model with the exact covariance, by which draws of a fit are weighed; None if too slow, or if it is exact.

    Random features cost up to 8 nats at the truth in simulations with little noise, and another seed draws others. The
    model shares every parameter.
    """
    backbone = model.backbone
    if not isinstance(backbone, GaussianProcess) or backbone.space == "exact" or not _exact_fits(model, data):
        return None
    return _exact(model) if len(data) * model.orbit.num_copies <= LARGEST_WEIGHED else None


def weighing_model(model: InvarianceModel, data: Data, settings: Mapping[str, Any]) -> InvarianceModel:
    """The model whose evidence weighed the draws of a fit, by its settings: what else is set against that fit needs it.

    Args:
        model: as fitted.
        data: what it was fitted to.
        settings: of the fit's result.

    Returns:
        The model with the exact covariance, which shares every parameter, or `model` itself.

    Example:
        >>> weighing_model(posterior.model, posterior.data, posterior.result.settings)  # doctest: +SKIP
    """
    if settings.get("weighed_by") != "exact evidence":
        return model
    return exact_for_weights(model, data) or model


def _exact_fits(model: InvarianceModel, data: Data) -> bool:
    if model.structure is not None or model.pooling is not None:
        return False
    return BYTES_PER_VALUE * (len(data) * model.orbit.num_copies) ** 2 <= model.memory_budget


def _exact(model: InvarianceModel) -> InvarianceModel:
    """The same model with the exact covariance; it shares every parameter."""
    other = copy.copy(model)
    other._modules = dict(model._modules)
    other.backbone = copy.copy(model.backbone)
    other.backbone.space = "exact"
    return other
