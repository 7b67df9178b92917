"""Importance weights of a guide's draws: how far q is from the posterior, and the evidence it gives."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pyro import poutine
from torch import Tensor

from bayesinv.data import Data
from bayesinv.errors import NumericalError
from bayesinv.model import InvarianceModel

NEARLY_EQUAL = 0.95  # share of the draws: the weights then add a twentieth to the variance of any average


@dataclass(frozen=True)
class WeightedDraws:
    """Draws η_j ~ q with log w_j = log p(D, η_j) - log q(η_j).

    Attributes:
        extents: (J, K), internal units.
        log_weights: Pareto-smoothed and normalised, logsumexp = 0; (J,).
        pareto_k: shape of the weights' tail; past 0.7 they cannot be trusted.
        log_evidence: log mean_j w_j.
        log_evidence_se: its standard error by the delta method, sd(w) / (mean(w) √J).
        num_failed: draws at which the evidence could not be computed; their weight is zero.
    """

    extents: Float[Tensor, "J K"]
    log_weights: Float[Tensor, " J"]
    pareto_k: float
    log_evidence: float
    log_evidence_se: float
    num_failed: int = 0


def pareto_smooth(log_weights: Float[Tensor, " J"]) -> tuple[Float[Tensor, " J"], float]:
    """Pareto-smoothed normalised log weights and k̂ (Vehtari et al., 2024, arXiv:1507.02646), by ArviZ.

    The fit of the tail does not see the scale of the weights: where all are nearly equal it describes ripples and k̂
    can be anything (2.2 was seen on weights that differ by a fifth). With an effective sample size above
    ``NEARLY_EQUAL`` of the draws there is no tail to speak of, and k̂ is reported as at most 0.
    """
    values = log_weights.detach().cpu().numpy().astype(np.float64, copy=True)  # psislw works in place
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ announces its next major version at import
        smoothed, k = _psislw()(values)
    out = torch.as_tensor(np.array(smoothed), dtype=torch.float64)
    effective = float((2.0 * log_weights.logsumexp(0) - (2.0 * log_weights).logsumexp(0)).exp())
    if effective > NEARLY_EQUAL * len(log_weights):
        k = min(float(k), 0.0)
    return out - out.logsumexp(0), float(k)


def _psislw() -> Callable[[Any], Any]:
    """``psislw`` of the installed ArviZ: at the top level in 0.x, in arviz-stats from 1.0 on."""
    try:
        from arviz import psislw
    except ImportError:
        from arviz_stats.base import array_stats

        return array_stats.psislw
    return psislw


def weigh(extents: Float[Tensor, "J K"], log_weights: Float[Tensor, " J"]) -> WeightedDraws:
    """Smooth raw log weights and sum them up."""
    J = len(log_weights)
    smoothed, k = pareto_smooth(log_weights)
    log_mean = float(log_weights.logsumexp(0)) - math.log(J)
    relative = (log_weights - log_mean).exp()
    return WeightedDraws(extents, smoothed, k, log_mean, float(relative.std() / math.sqrt(J)))


@torch.no_grad()
def importance_sample(model: InvarianceModel, guide: Any, data: Data, num_draws: int) -> WeightedDraws:
    """Draw from the guide and weigh every draw by the model.

    Hyperpriors are left out of the weights: at fixed hyperparameters they are a constant that does not
    belong to log p(D).
    """
    rows, log_weights = [], []
    for _ in range(num_draws):
        guide_trace = poutine.trace(guide).get_trace(data)
        rows.append(extents_of_trace(model, guide_trace))
        try:
            model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(data)
            log_joint = model_trace.log_prob_sum(lambda name, site: name != "hyperpriors")
        except NumericalError:  # no evidence there: the draw has no weight, and is counted
            log_joint = torch.tensor(-torch.inf, dtype=torch.float64)
        log_weights.append(log_joint - guide_trace.log_prob_sum())
    extents, raw = torch.stack(rows), torch.stack(log_weights)
    failed = int(torch.isinf(raw).sum())
    if failed == num_draws:
        raise NumericalError(f"the evidence could not be computed at any of {num_draws} draws of the guide")
    if num_draws > 1 and bool((extents == extents[0]).all()):
        raise NumericalError(
            "the guide puts all its mass on one point, so that there is no posterior to weigh; use a guide with a "
            'spread, such as "full_rank", or a lower learning_rate if it had one and ran to a bound'
        )
    return replace(weigh(extents, raw), num_failed=failed)


def draw_extents(model: InvarianceModel, guide: Any, data: Data, num_draws: int) -> Float[Tensor, "J K"]:
    """Draws of the guide without weights."""
    with torch.no_grad():
        traces = [poutine.trace(guide).get_trace(data) for _ in range(num_draws)]
    return torch.stack([extents_of_trace(model, trace) for trace in traces])


def extents_of_trace(model: InvarianceModel, trace: Any) -> Float[Tensor, " K"]:
    """η of one run of the guide or the model, in the order of the symmetries, fixed ones included."""
    return model.extents.assemble({site: trace.nodes[site]["value"].detach() for site in model.extents.sites})
