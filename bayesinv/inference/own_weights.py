"""The posterior of a network whose weights and prior scales belong to each value of the extents.

A fit shares one set of weights among all extents: they are best near the median, so that the evidence falls too fast
on both sides and intervals come out too narrow. Here weights are refitted at a few points z_m of the unconstrained
extents, a regression f of their log evidences stands for all others, and

    p(z | D)  ∝  p(z) exp f(z),    f(z_m) ≈ log p(D | θ_m, σ_m, z_m),

is drawn from by importance sampling. The points are a central composite design at twice the guide's spread (for a
single extent five points that also reach the bulk of its prior), and a few more where f is uncertain and the mass is.
Where f misses points that it was not given by several nats, refits have not converged or differ by chance: no posterior
follows from that, and the guide's draws stay.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.data.streams import Stream, derive_seed
from bayesinv.errors import EvidenceError, NumericalError
from bayesinv.evidence import LaplaceEvidence
from bayesinv.extents.unconstrained import Unconstrained
from bayesinv.inference.refits import Examples, Refit
from bayesinv.inference.training import Training
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.mixture import Adapted, Mixture, adapt
from bayesinv.numerics.psis import pareto_smooth
from bayesinv.numerics.quantiles import systematic_resample
from bayesinv.numerics.surrogate import Surrogate

MOST_EXTENTS = 6
STEPS = 50  # of the weights at each point, and at the centre before, at the most
# Of the fit's steps, those that eight refits (seven points and the centre) take: over all data as many as the fit, over
# minibatches of data whose determinant is estimated fewer. With 50 steps each, which is two thirds of them, LeNet on
# 1,000 digits took 1.66 times as long as without.
SHARE_EXACT, SHARE, OF_REFITS, FEWEST_STEPS = 1.0, 0.45, 8, 10
LARGEST_ERROR = 3.0  # nats, by which points that are left out may be missed
ROUNDS = 2  # of weights and scales by turns
MORE_POINTS = {1: 2}  # where the regression is uncertain, by number of extents
MANY_MORE_POINTS = 4  # for several extents
WIDER = 2.0  # than the guide, which is too narrow
NARROWEST = 0.2  # standard deviation of the guide, in z, below which the design does not follow it
AXIAL = 1.6  # distance of the points on an axis from the centre, in the wider spread
CUT, BULK = 0.005, 0.05  # prior quantiles that limit the design, and that it reaches for a single extent
SAME = 0.1  # distance in z below which two points are one
PROPOSALS = 4000  # of the importance sampling, which evaluates the regression alone
# Columns of a two-level design that are products of others: with five and six extents half and a quarter of all
# corners (Box & Hunter, 1961).
GENERATORS: dict[int, list[tuple[int, ...]]] = {4: [(0, 1, 2)], 5: [(0, 1, 2, 3)], 6: [(0, 1, 2), (1, 2, 3)]}


@dataclass(frozen=True)
class OwnWeights:
    """What the refits gave.

    Attributes:
        extents: posterior draws, (J, K), internal units.
        surrogate: the regression, which holds the points.
        facts: for the settings of a result, as JSON holds it: ``points``, ``error`` (nats, left out one by one),
            ``log_evidence`` (nats), ``pareto_k`` of the draws, ``exact`` (the determinant), ``steps``, and ``used``.
    """

    extents: Float[Tensor, "J K"]
    surrogate: Surrogate
    facts: dict[str, Any]

    @property
    def problem(self) -> str:
        """Why the draws are of no use, and what to do; empty where they are good."""
        if self.facts["used"]:
            return ""
        return (
            f"own_weights: the regression misses refits that it was not given by {self.facts['error']:.1f} nats, so "
            "that the draws are those of the guide, whose intervals are too narrow: raise epochs or batch_size, or "
            "lower weight_rate"
        )


def why_not(model: InvarianceModel, stream: Stream) -> str:
    """Why weights cannot be refitted at every extent, and what to do; empty where they can."""
    if not isinstance(model.evidence, LaplaceEvidence):
        return (
            f"the {model.evidence_name} evidence has no Occam factor that weights of their own could be compared by; "
            'use evidence="laplace"'
        )
    if len(model.active) > MOST_EXTENTS:
        return (
            f"expected at most {MOST_EXTENTS} latent extents, got {len(model.active)}; fix those that matter least, "
            "such as priors={name: None}"
        )
    if not stream.exact_resume:
        return "the data are iterated as they come, so that no two extents would see the same; use a map-style data set"
    return ""


def check_own_weights(model: InvarianceModel, stream: Stream) -> None:
    """Raise where weights cannot be refitted.

    Raises:
        EvidenceError: with the reason and what to do.
    """
    reason = why_not(model, stream)
    if reason:
        raise EvidenceError(f"own_weights: {reason}")


def is_cheap(model: InvarianceModel, stream: Stream, training: Training, seed: int) -> bool:
    """Whether the determinant is exact in about a tenth of a second: refits then agree, and cost half of the fit."""
    return not why_not(model, stream) and Examples.of(model, stream, training, seed).exact


def own_weights(
    model: InvarianceModel,
    guide_draws: Float[Tensor, "J K"],
    stream: Stream,
    training: Training,
    num_steps: int,
    seed: int,
    num_draws: int,
) -> OwnWeights | None:
    """Refit at the points of a design, and draw from the posterior that follows.

    Args:
        model: as fitted; left as it is.
        guide_draws: of its variational posterior.
        stream: the training data.
        training: batch sizes and the rate of the weights.
        num_steps: of the fit.
        seed: of batches, rows and draws.
        num_draws: J of the result.

    Returns:
        None where too few refits could be computed.

    Warns:
        UserWarning: too few refits could be computed.
    """
    space = Unconstrained(model.extents)
    z = space.to_z(guide_draws)
    low, high, *bulk = (space.to_z(model.extents.prior_quantile(p)) for p in (CUT, 1.0 - CUT, BULK, 1.0 - BULK))
    points = design(z, low, high, bulk)
    examples = Examples.of(model, stream, training, seed)
    share = SHARE_EXACT if examples.exact else SHARE
    steps = min(STEPS, max(FEWEST_STEPS, round(share * num_steps / OF_REFITS)))
    base = Refit(model, space.extents(points[0]), examples).fit(steps, training.weight_rate, ROUNDS).model

    def value_at(point: Tensor) -> float | None:
        try:
            refit = Refit(base, space.extents(point), examples).fit(steps, training.weight_rate, ROUNDS)
            value = torch.tensor(refit.log_evidence())
        except (NumericalError, torch.linalg.LinAlgError):
            return None
        return float(value) if bool(torch.isfinite(value)) else None

    def log_prior(z: Float[Tensor, "N A"]) -> Float[Tensor, " N"]:
        return model.extents.log_prior(space.extents(z).T) + space.log_jacobian(z)

    start = _proposal(z)
    known = _Known(points[:0], [])
    for point in points:
        known = known.with_point(point, value_at(point))
    for number in range(MORE_POINTS.get(len(space.columns), MANY_MORE_POINTS)):
        if not known.enough:
            break
        surrogate = known.surrogate()
        found = _posterior(surrogate, log_prior, start, derive_seed(seed, "look", number))
        point = _where_uncertain(surrogate, log_prior, found.theta, known.points)
        if point is None:
            break
        known = known.with_point(point, value_at(point))
    if not known.enough:
        warnings.warn(
            f"own_weights: the evidence could be computed at {len(known.values)} of {len(points)} extents alone, too "
            "few for a regression; the draws are those of the guide",
            UserWarning,
            stacklevel=4,  # the line that called fit
        )
        return None
    surrogate = known.surrogate()
    found = _posterior(surrogate, log_prior, start, derive_seed(seed, "own weights"))
    log_mean = float(found.log_weights.logsumexp(0) - torch.tensor(len(found.theta)).double().log())
    rows = systematic_resample(num_draws, len(found.theta), found.log_weights.numpy(), seed)
    error = surrogate.error(log_prior(known.points))
    facts = {
        "points": len(known.values),
        "error": error,
        "used": error <= LARGEST_ERROR,
        "log_evidence": log_mean,
        "pareto_k": pareto_smooth(found.log_weights)[1],
        "exact": examples.exact,
        "steps": steps,
    }
    return OwnWeights(space.extents(found.theta[torch.from_numpy(rows)]), surrogate, facts)


def design(
    z: Float[Tensor, "J A"], low: Float[Tensor, " A"], high: Float[Tensor, " A"], bulk: Sequence[Float[Tensor, " A"]]
) -> Float[Tensor, "M A"]:
    """Where to refit: the centre of the guide's draws first, then around it.

    Args:
        z: draws of the guide.
        low, high: ends of the prior's range, past which no point goes unless the guide lies there.
        bulk: ends of the prior's bulk, which the points of a single extent reach.

    Example:
        >>> z = torch.tensor([[0.9], [1.1]], dtype=torch.float64)
        >>> ends = (torch.tensor([end], dtype=torch.float64) for end in (-2.6, 2.6, -1.6, 1.6))
        >>> low, high, *bulk = ends
        >>> design(z, low, high, bulk)[:, 0].round(decimals=3).tolist()
        [1.0, -1.6, -0.3, 1.3, 1.6]
    """
    A = z.shape[1]
    centre, sd = z.mean(0), z.std(0)
    low, high = torch.minimum(low, centre - sd), torch.maximum(high, centre + sd)
    if A == 1:
        reach = 2.0 * WIDER * sd
        first = torch.maximum(torch.minimum(centre - reach, bulk[0]), low)
        last = torch.minimum(torch.maximum(centre + reach, bulk[1]), high)
        points = torch.stack([centre, first, 0.5 * (first + centre), 0.5 * (last + centre), last])
    else:
        values, vectors = torch.linalg.eigh(torch.cov(z.T))
        spread = WIDER * values.clamp_min(0.0).sqrt().clamp_min(NARROWEST)
        axes = AXIAL * torch.eye(A, dtype=z.dtype)
        corners = AXIAL * (A / 2) ** 0.25 / A**0.5 * _corners(A).to(z.dtype)
        points = torch.cat([torch.zeros(1, A, dtype=z.dtype), axes, -axes, corners])
        points = (centre + (points * spread) @ vectors.T).clamp(low, high)
    kept: list[Tensor] = []
    for point in points:
        if all(float((point - other).norm()) > SAME for other in kept):
            kept.append(point)
    return torch.stack(kept)


def _corners(A: int) -> Float[Tensor, "M A"]:
    """±1 in every coordinate, all of them or the fraction that the generators name."""
    generators = GENERATORS.get(A, [])
    free = A - len(generators)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * free).reshape(-1, free)
    return torch.cat([signs, *(signs[:, list(g)].prod(1, keepdim=True) for g in generators)], 1)


@dataclass(frozen=True)
class _Known:
    """Points at which the evidence could be computed."""

    points: Float[Tensor, "M A"]
    values: list[float]

    def with_point(self, point: Tensor, value: float | None) -> _Known:
        return self if value is None else _Known(torch.cat([self.points, point[None]]), [*self.values, value])

    @property
    def enough(self) -> bool:
        return len(self.values) >= max(4, self.points.shape[1] + 2)

    def surrogate(self) -> Surrogate:
        return Surrogate.of(self.points, torch.tensor(self.values, dtype=torch.float64))


def _proposal(z: Float[Tensor, "J A"]) -> Mixture:
    """The guide made wider, and the prior where it is flat, in equal shares."""
    A = z.shape[1]
    eye = torch.eye(A, dtype=z.dtype)
    covariance = torch.cov(z.T).reshape(A, A) + NARROWEST**2 * eye
    scales = torch.stack([WIDER * torch.linalg.cholesky(covariance), eye])
    return Mixture(z.new_tensor([0.5, 0.5]), torch.stack([z.mean(0), z.new_zeros(A)]), scales)


def _posterior(surrogate: Surrogate, log_prior: Any, start: Mixture, seed: int) -> Adapted:
    return adapt(start, lambda z: surrogate(z)[0] + log_prior(z), PROPOSALS, seed & 0x7FFFFFFF)


def _where_uncertain(
    surrogate: Surrogate, log_prior: Any, z: Float[Tensor, "N A"], known: Float[Tensor, "M A"]
) -> Float[Tensor, " A"] | None:
    """The draw with the largest product of posterior density and standard deviation, away from known points."""
    mean, sd = surrogate(z)
    gain = mean + log_prior(z) + sd.log()
    gain[torch.cdist(z, known).amin(1) < SAME] = -torch.inf
    best = int(gain.argmax())
    return z[best] if bool(torch.isfinite(gain[best])) else None
