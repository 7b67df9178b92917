"""Importance weights of a guide's draws: how far q is from the posterior, and the evidence it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from pyro import poutine
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.psis import NEARLY_EQUAL as NEARLY_EQUAL  # where these two were once found
from bayesinv.numerics.psis import pareto_smooth as pareto_smooth
from bayesinv.numerics.psis import variance_is_finite


@dataclass(frozen=True)
class WeightedDraws:
    """Draws η_j ~ q with log w_j = log p(D, η_j) - log q(η_j).

    Attributes:
        extents: (J, K), internal units.
        log_weights: Pareto-smoothed and normalised, logsumexp = 0; (J,).
        pareto_k: shape of the weights' tail; past ``numerics.psis.pareto_limit(J)`` they cannot be trusted.
        log_evidence: log mean_j w_j.
        log_evidence_se: its standard error by the delta method, sd(w) / (mean(w) √J); None where the variance of the
            weights is infinite or k̂ is past its limit.
        num_failed: draws at which the evidence could not be computed; their weight is zero.
    """

    extents: Float[Tensor, "J K"]
    log_weights: Float[Tensor, " J"]
    pareto_k: float
    log_evidence: float
    log_evidence_se: float | None
    num_failed: int = 0


def weigh(extents: Float[Tensor, "J K"], log_weights: Float[Tensor, " J"]) -> WeightedDraws:
    """Smooth raw log weights and sum them up."""
    J = len(log_weights)
    smoothed, k = pareto_smooth(log_weights)
    log_mean = float(log_weights.logsumexp(0)) - math.log(J)
    relative = (log_weights - log_mean).exp()
    error = float(relative.std() / math.sqrt(J)) if variance_is_finite(k, J) else None
    return WeightedDraws(extents, smoothed, k, log_mean, error, int(torch.isneginf(log_weights).sum()))


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
