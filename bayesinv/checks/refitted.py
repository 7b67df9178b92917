"""The posterior of one extent of a network, with weights and prior scales fitted anew at every value of it.

A fit shares one set of weights among all extents: they are best near the median, so that the evidence falls too fast
on both sides and intervals come out too narrow. Here, at M values η_m spread evenly over the prior,

    θ_m, σ_m  =  argmax log p(D, θ | σ, η_m)  and  argmax log p(D | θ, σ, η_m)  by turns,
    p(η | D)  ∝  p(η) exp(log p(D | θ_m, σ_m, η_m) interpolated between the η_m),

with the exact determinant of the Laplace evidence over all rows of the data in place of a minibatch's bound.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones.invariant_network import InvariantNetwork, average_copies
from bayesinv.backbones.per_example import example_gradients
from bayesinv.data.container import Data
from bayesinv.errors import EvidenceError
from bayesinv.evidence import LaplaceEvidence
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.inference.refits import Still
from bayesinv.io.tables import ConsoleTable
from bayesinv.numerics.quantiles import systematic_resample
from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.torch_modes import ordinary

if TYPE_CHECKING:
    from bayesinv.model.invariance_model import InvarianceModel
    from bayesinv.posterior.invariance_posterior import InvariancePosterior

LARGEST_ROWS = 4000  # nC; the determinant costs its cube
PRIOR_DRAWS = 4000  # of which the posterior's are a weighted selection
ROUNDS = 3  # of weights and scales by turns
SCALE_STEPS = 15  # of Adam, on matrices that are computed once in a round
SCALE_RATE = 0.15


@dataclass(frozen=True)
class RefittedExtents:
    """What `refitted_extents` found.

    Attributes:
        symmetry: the latent one.
        extents: η_m, internal units, (M,).
        log_evidence: log p(D | θ_m, σ_m, η_m), nats, (M,).
        draws: of the posterior, all symmetries, internal units, (J, K).
        unit: of the table.
        table: ``extent`` in people's units and ``log_evidence``, a row for every η_m.
    """

    symmetry: str
    extents: Float[Tensor, " M"]
    log_evidence: Float[Tensor, " M"]
    draws: Float[Tensor, "J K"]
    unit: str
    table: pd.DataFrame


@ordinary(grad=True)
def refitted_extents(
    posterior: InvariancePosterior,
    num_points: int = 16,
    steps: int = 200,
    rate: float = 0.01,
    num_draws: int = 300,
    learn_scales: bool = True,
    seed: int = 0,
) -> RefittedExtents:
    """The posterior over the single latent extent of a network under the Laplace evidence, refitted at each value.

    Args:
        posterior: a fit by "vi"; refitting starts from its weights and prior scales, and leaves it as it is.
        num_points: M, at least 4.
        steps: of Adam on the weights for each value, on all data at once; 0 shares those of the fit among all values,
            which shows what sharing does.
        rate: Adam's.
        num_draws: J.
        learn_scales: False keeps the prior scales at those of the fit.
        seed: of the prior's draws.

    Raises:
        ValueError: not exactly one latent extent, a bad count, not all of the training data kept, or more rows n·C than
            the determinant can take (4,000).
        EvidenceError: not a classification with the Laplace evidence.

    Example:
        >>> refitted = refitted_extents(posterior)  # doctest: +SKIP
        >>> refitted.table  # doctest: +SKIP
    """
    model = copy.deepcopy(posterior.model)
    if not isinstance(model.evidence, LaplaceEvidence) or model.likelihood != "categorical":
        raise EvidenceError(
            f"expected a classification with the Laplace evidence, got {model.likelihood!r}, {model.evidence_name!r}"
        )
    if model.groups is not None:
        raise ValueError(
            "groups: expected a model with the same extents for everyone, since those of groups come several at a "
            "time; fit one without groups"
        )
    if len(model.active) != 1:
        raise ValueError(
            f"expected one latent extent, got {len(model.active)} ({', '.join(model.active)}); fix the others at their "
            "medians and fit again"
        )
    for name, value, least in (("num_points", num_points, 4), ("steps", steps, 0), ("num_draws", num_draws, 5)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    data = posterior.data
    if posterior.result.settings.get("num_train", len(data)) != len(data):
        raise ValueError(f"the posterior kept {len(data)} of its training examples; this needs all of them")
    with torch.no_grad(), seeded(seed):
        outputs = model.network(data.x[:1]).numel()
    if len(data) * outputs > LARGEST_ROWS:
        raise ValueError(
            f"expected at most {LARGEST_ROWS} rows n·C (the cost is their cube), got {len(data)}·{outputs}; fit "
            f"{LARGEST_ROWS // outputs} examples or fewer"
        )
    name = model.active[0]
    column = model.symmetries.index(name)
    prior = model.extents.sample_prior(PRIOR_DRAWS, seed)
    prior = prior[prior[:, column].argsort()]
    place = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    chosen = prior[(place * PRIOR_DRAWS).long()]
    values = torch.stack([_refit(model, eta, data, steps, rate, learn_scales) for eta in chosen])
    at = (torch.arange(PRIOR_DRAWS, dtype=torch.float64) + 0.5) / PRIOR_DRAWS
    log_weights = _interpolate(at, place, values)
    kept = systematic_resample(num_draws, PRIOR_DRAWS, (log_weights - log_weights.logsumexp(0)).numpy(), seed)
    coordinate = model.transform.coordinates[column]
    rows = [
        {"extent": float(coordinate.to_people(float(e))), "log_evidence": float(v)}
        for e, v in zip(chosen[:, column], values, strict=True)
    ]
    draws = prior[torch.as_tensor(kept)]
    return RefittedExtents(name, chosen[:, column], values, draws, coordinate.unit, ConsoleTable(rows))


def _refit(
    start: InvarianceModel, eta: Float[Tensor, " K"], data: Data, steps: int, rate: float, learn_scales: bool
) -> Float[Tensor, ""]:
    """log p(D | η) at weights and scales fitted to this η."""
    model = copy.deepcopy(start)
    evidence, network = cast(LaplaceEvidence, model.evidence), model.network
    view = model.at(eta).evaluated()
    with torch.no_grad():
        seen = Still(view, data.x, view.points(data.x))
    weights = list(network.weights().values())
    rounds = ROUNDS if learn_scales else 1
    value = torch.zeros((), dtype=torch.float64)
    for _ in range(rounds):
        optimiser = torch.optim.Adam(weights, lr=rate)
        for step in range(-(-steps // rounds)):
            optimiser.param_groups[0]["lr"] = rate * (1.0 - 0.9 * step * rounds / steps)
            optimiser.zero_grad()
            evidence.weight_loss(seen, data, len(data)).backward()
            optimiser.step()
        value = _evidence_of_scales(evidence, seen, data, learn_scales)
    return value


def _evidence_of_scales(
    evidence: LaplaceEvidence, prior: InvariantNetwork, data: Data, learn_scales: bool
) -> Float[Tensor, ""]:
    """The evidence with its exact determinant; moves the prior scales to its maximum at these weights first.

    The kernel is Σ_g σ_g² K_g over the groups of weights that share a scale, so that the K_g are computed once.
    """
    network = prior.backbone
    theta = {name: w.detach() for name, w in network.weights().items()}
    everything = copy.copy(evidence)
    everything.num_outputs = None

    def average(outputs: Tensor) -> Tensor:
        values, copy_weights = prior.moved_back(outputs)
        return average_copies(values, prior.average, evidence.likelihood, copy_weights)

    f, jacobians = example_gradients(network.net, theta, prior.points(data.x), everything._rows, average)
    grams = {n: _gram(J.detach().double()) for n, J in jacobians.items()}
    identity = torch.eye(len(next(iter(grams.values()))), dtype=torch.float64)
    log_likelihood = evidence.log_likelihood(f.detach(), data.y).sum().double()

    def log_evidence() -> Tensor:
        scales = network.prior_scales()
        K = torch.stack([scales[n].double().square() * G for n, G in grams.items()]).sum(0)
        factor = cholesky(identity + K, "I + K of the Laplace evidence")
        return log_likelihood - factor.diagonal().log().sum() + network.log_prior(theta).double()

    if learn_scales:
        optimiser = torch.optim.Adam([network.log_scales], lr=SCALE_RATE)
        for _ in range(SCALE_STEPS):
            optimiser.zero_grad()
            (-log_evidence()).backward()
            optimiser.step()
    with torch.no_grad():
        return log_evidence()


def _gram(J: Float[Tensor, "R m *shape"]) -> Float[Tensor, "Rm Rm"]:
    flat = J.reshape(J.shape[0] * J.shape[1], -1)
    return flat @ flat.T


def _interpolate(
    at: Float[Tensor, " N"], place: Float[Tensor, " M"], values: Float[Tensor, " M"]
) -> Float[Tensor, " N"]:
    """Linear between the points and constant beyond the first and the last."""
    right = torch.searchsorted(place, at).clamp(1, len(place) - 1)
    share = ((at - place[right - 1]) / (place[right] - place[right - 1])).clamp(0.0, 1.0)
    return values[right - 1] * (1.0 - share) + values[right] * share
