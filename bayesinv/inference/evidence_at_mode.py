"""The log evidence that a fit of a network reports: at the mode of the weights, with an error to compare by, or not."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from pyro import poutine
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.evidence import LaplaceEvidence
from bayesinv.extents.families import sample_extents
from bayesinv.inference.importance import extents_of_trace

if TYPE_CHECKING:
    from bayesinv.inference.minibatch import VariationalObjective

# Nats. Two such evidences differ by ±2.8, and 3 count as strong (Kass and Raftery, 1995).
LARGEST_ERROR = 2.0
SHARE = 0.15  # of the steps of a fit, for the weights to come to rest at a rate that falls to zero
LATE = 0.5  # of these steps: from then on the log joint density may rise by no more than the largest error
NUM_DRAWS = 24  # of the extents
FEW_DRAWS = 6  # where it will not be quoted, or to see that its error will be twice too large
EXAMPLES = 256  # whose rows the determinant of one draw sees


@dataclass(frozen=True)
class ReportedEvidence:
    """An estimate of E_q[log p(D | η)] - KL(q ‖ p), and whether it may be quoted.

    Attributes:
        value: nats.
        se: its standard error over draws of the extents, orbits and rows of the determinant.
        why_not: what forbids to compare by it, as a clause; empty where nothing does.
    """

    value: float
    se: float
    why_not: str


def evidence_at_mode(
    objective: VariationalObjective, data: Data, num_total: int, num_steps: int, batch_size: int, rate: float
) -> ReportedEvidence:
    """The Laplace evidence at the mode of the weights under their prior; draws from torch's global generator.

        1/L Σ_l [ log p(D | θ*, η_l) + log p(θ*) - ½ log det_l + log p(η_l) - log q(η_l) ],    η_l ~ q

    The log likelihood is that of all data, and the determinant the estimate "equivalent" from some of them, whatever
    the fit was trained on. The weights go on from where the stretch under their prior ended, for 15 % of the steps.

    Args:
        objective: after training; nothing in it is changed.
        data: all of them, or those that were kept.
        num_total: n.
        num_steps: of the fit.
        batch_size: of the weights.
        rate: of the weights.
    """
    seen = copy.copy(objective)
    evidence = LaplaceEvidence(objective.model.likelihood, determinant="equivalent")
    seen.model = objective.mode.with_evidence(evidence)
    seen.model.network.eval()  # as the evidence sees it
    rise = _settle(seen, data, num_total, max(8, round(SHARE * num_steps)), batch_size, rate)
    why_not = ""
    if len(data) < num_total:
        why_not = f"it needs all {num_total:,} examples, of which the fit keeps {len(data):,}"
    elif rise > LARGEST_ERROR:
        why_not = f"the weights had not come to rest: their log density still rose by {rise:.1f} nats; raise epochs"
    draws = [_one_draw(seen, evidence, data, num_total) for _ in range(min(FEW_DRAWS, NUM_DRAWS))]
    if not why_not and float(torch.stack(draws).std()) <= 2.0 * LARGEST_ERROR * math.sqrt(NUM_DRAWS):
        draws += [_one_draw(seen, evidence, data, num_total) for _ in range(NUM_DRAWS - FEW_DRAWS)]
    values = torch.stack(draws)
    se = float(values.std()) / math.sqrt(len(values))
    if not why_not and not se <= LARGEST_ERROR:
        why_not = f"its standard error is {se:.1f} nats, and comparisons ask for {LARGEST_ERROR:g}"
    return ReportedEvidence(float(values.mean()), se, why_not)


def _settle(
    objective: VariationalObjective, data: Data, num_total: int, num_steps: int, batch_size: int, rate: float
) -> float:
    """Bring the weights to their mode; returns what their log joint density still rose by late on."""
    optimiser = torch.optim.Adam(list(objective.model.network.weights().values()), lr=rate)
    late, before = round(LATE * num_steps), 0.0
    for step in range(num_steps):
        if step == late:
            before = _log_joint(objective, data, num_total)
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * step / num_steps))
        batch = data.subset(torch.randperm(len(data))[:batch_size])
        optimiser.zero_grad()
        with torch.enable_grad():
            objective.weight_loss(batch, num_total).backward()
        optimiser.step()
    return _log_joint(objective, data, num_total) - before


@torch.no_grad()
def _log_joint(objective: VariationalObjective, data: Data, num_total: int) -> float:
    """Of data and weights, at the medians of the extents and the orbit's own copies."""
    model = objective.model
    eta = torch.tensor([objective.current_extents()[name] for name in model.symmetries], dtype=torch.float64)
    return -num_total * float(model.evidence.weight_loss(model.at(eta), data, num_total))


@torch.no_grad()
def _one_draw(objective: VariationalObjective, evidence: LaplaceEvidence, data: Data, num_total: int) -> Tensor:
    model, log_ratio = objective.model, torch.zeros((), dtype=torch.float64)
    if objective.guide is None:
        eta = objective.fixed()
    else:
        q = poutine.trace(objective.guide).get_trace(data, 1)
        p = poutine.trace(poutine.replay(sample_extents, trace=q)).get_trace(model.extents)
        eta, log_ratio = extents_of_trace(model, q), p.log_prob_sum() - q.log_prob_sum()
    prior = model.at(eta, fresh=True)
    some = data.subset(torch.randperm(len(data))[:EXAMPLES])
    # The log likelihood of some examples, scaled up, gives way to that of all.
    value = evidence.log_evidence(prior, some, num_total)
    more = evidence.mean_log_likelihood(prior, data) - evidence.mean_log_likelihood(prior, some)
    return (value + num_total * more.double()).cpu() + log_ratio.cpu()
