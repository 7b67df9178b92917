"""log Z_A: the evidence of one set of symmetries, by adaptive importance sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.errors import NumericalError
from bayesinv.numerics.psis import pareto_smooth
from bayesinv.selection.space import UnconstrainedSpace

LogEvidence = Callable[[Float[Tensor, " K"]], float]

# Share of every proposal that is the slab itself. Weights are then at most the largest likelihood divided by it: no
# region of the prior is out of reach, whatever the adapted parts do.
SLAB_SHARE = 0.2
# Share of a second adapted part, whose covariance is WIDE times that of the first and at least LEAST_SCALE² along each
# symmetry, where an extent that the data leave open has about 0.5. A guide that is too narrow would otherwise give an
# estimate that is too low by several of its own standard errors (tests/selection hold this).
WIDE_SHARE, WIDE, LEAST_SCALE = 0.3, 6.0, 0.4
# Degrees of freedom of the adapted part: a posterior in z has normal tails, so that these are the heavier ones.
DEGREES = 5.0
# Wider than the moments say: a proposal that is too wide costs draws, one too narrow the answer.
INFLATION = 1.3
# Widening of the starting covariance, towards which that of few effective draws is drawn.
DOUBT = 2.0
# Draws below which a Pareto tail cannot be fitted.
FEWEST_FOR_K = 25


@dataclass(frozen=True)
class Moments:
    """Where a proposal lies: mean (k,) and covariance (k, k) in z."""

    mean: Float[Tensor, " k"]
    covariance: Float[Tensor, "k k"]

    def of(self, which: Int[Tensor, " k"]) -> Moments:
        """Those of some of the symmetries."""
        return Moments(self.mean[which], self.covariance[which][:, which])

    def wide(self) -> Moments:
        """Those of the second part of a proposal."""
        floor = LEAST_SCALE**2 * torch.eye(len(self.mean), dtype=torch.float64)
        return Moments(self.mean, WIDE * self.covariance + floor)

    @staticmethod
    def weighted(z: Float[Tensor, "J k"], weights: Float[Tensor, " J"]) -> Moments:
        """The moments of weighted draws, weights summing to one."""
        mean = weights @ z
        centred = z - mean
        return Moments(mean, (weights[:, None] * centred).T @ centred)


class SetEvidence:
    """Draws for one set A, and the estimate that they give.

        Z_A = ∫ p(D | η_A, 0) p(η_A) dη_A  ≈  1/N Σ_j p(D | η_j, 0) p(η_j) / q̄(η_j),   q̄ = Σ_r n_r q_r / N

    over rounds r of n_r draws. Each proposal q_r is a mixture of the slab (a fifth) and two Student t, one wider than
    the other, whose moments follow the draws weighed so far; every draw is weighed by the mixture of all proposals, so
    that no round is lost and a poor one does no harm (adaptive multiple importance sampling). The empty set is one
    evaluation, without error.

    Args:
        which: indices of the symmetries in A among the latent ones.
        space: the slabs in z.
        log_evidence: η (K,) over the latent symmetries -> log p(D | η).
        start: moments of the first proposal.

    Reference:
        J.-M. Cornuet, J.-M. Marin, A. Mira, C. Robert (2012). Adaptive multiple importance sampling. arXiv:0907.1254.
    """

    def __init__(self, which: Int[Tensor, " k"], space: UnconstrainedSpace, log_evidence: LogEvidence, start: Moments):
        self.which = which
        self.space = space
        self._log_evidence = log_evidence
        self._proposals: list[tuple[int, Moments]] = []
        self._start = self._next = start
        k = len(which)
        self.z = torch.zeros(0, k, dtype=torch.float64)
        self.log_likelihoods = torch.zeros(0, dtype=torch.float64)
        self.num_failed = 0

    @property
    def num_draws(self) -> int:
        """N, evaluations so far."""
        return len(self.log_likelihoods)

    @property
    def num_rounds(self) -> int:
        """Rounds so far."""
        return len(self._proposals)

    @property
    def exact(self) -> bool:
        """Whether nothing is left to integrate: the empty set."""
        return len(self.which) == 0

    @property
    def extents(self) -> Float[Tensor, "N k"]:
        """η_A of the draws, internal units."""
        return self.space.to_extents(self.z, self.which)

    def forget(self) -> None:
        """Drop the draws and keep where they led: the evidence has changed."""
        if self.num_draws and not self.exact:
            self._next = self._adapted()
        self.z = self.z[:0]
        self.log_likelihoods = self.log_likelihoods[:0]
        self._proposals, self.num_failed = [], 0

    def replace(self, log_evidence: LogEvidence) -> None:
        """Go on with another evidence: `forget`, and evaluate that one from now on."""
        self.forget()
        self._log_evidence = log_evidence

    def draw(self, num: int) -> None:
        """One more round of `num` draws, from torch's global generator."""
        if self.exact:
            if not self.num_draws:
                self._proposals.append((1, self._next))
                self.z, self.log_likelihoods = (
                    torch.zeros(1, 0, dtype=torch.float64),
                    self._evaluate(self.z.new_zeros(1, 0)),
                )
            return
        if self.num_draws:
            self._next = self._adapted()
        near, wide, slab = _parts(num)
        parts = [
            _student(self._next).sample(torch.Size([near])),
            _student(self._next.wide()).sample(torch.Size([wide])),
        ]
        new = torch.cat([*parts, self.space.sample_slab(slab, self.which)])
        self._proposals.append((num, self._next))
        self.z = torch.cat([self.z, new])
        self.log_likelihoods = torch.cat([self.log_likelihoods, self._evaluate(new)])

    def log_weights(self) -> Float[Tensor, " N"]:
        """log p(D | η_j, 0) p(η_j) / q̄(η_j)."""
        if self.exact:
            return self.log_likelihoods
        log_slab = self.space.log_slab(self.z, self.which)
        terms = []
        for num, moments in self._proposals:
            parts = [_student(moments).log_prob(self.z), _student(moments.wide()).log_prob(self.z), log_slab]
            shares = [math.log(count / num) for count in _parts(num)]
            mixture = torch.stack([part + share for part, share in zip(parts, shares, strict=True)]).logsumexp(0)
            terms.append(mixture + math.log(num / self.num_draws))
        return self.log_likelihoods + log_slab - torch.stack(terms).logsumexp(0)

    @property
    def log_value(self) -> float:
        """The estimate of log Z_A; -inf where the evidence could be computed nowhere."""
        return float(self.log_weights().logsumexp(0)) - math.log(self.num_draws)

    @property
    def relative_error(self) -> float:
        """Standard error of Z_A over Z_A; with the delta method, that of log Z_A in nats."""
        if self.exact:
            return 0.0
        return relative_error(self.log_weights())

    @property
    def effective_draws(self) -> float:
        """(Σ w)² / Σ w²."""
        return effective_size(self.log_weights())

    @property
    def pareto_k(self) -> float:
        """k̂ of the weights; NaN with fewer draws than a tail takes, and for the empty set."""
        log_weights = self.log_weights()
        finite = log_weights[torch.isfinite(log_weights)]
        if self.exact or len(finite) < FEWEST_FOR_K:
            return math.nan
        return pareto_smooth(finite)[1]

    def moments(self) -> Moments:
        """Those of the posterior of A, as far as the draws know."""
        return self._adapted()

    def _evaluate(self, z: Float[Tensor, "num k"]) -> Float[Tensor, " num"]:
        values = []
        eta = torch.zeros(len(z), len(self.space.symmetries), dtype=torch.float64)
        eta[:, self.which] = self.space.to_extents(z, self.which)
        for row in eta:
            try:
                value = self._log_evidence(row)
            except NumericalError:  # no evidence there: the draw has no weight, and is counted
                value = -math.inf
            if not math.isfinite(value):
                value, self.num_failed = -math.inf, self.num_failed + 1
            values.append(value)
        return torch.tensor(values, dtype=torch.float64)

    def _adapted(self) -> Moments:
        """Moments of the weighted draws, drawn towards a wide start the more, the fewer of them count."""
        log_weights = self.log_weights()
        if not bool(torch.isfinite(log_weights).any()):
            return self._next
        k, effective = len(self.which), effective_size(log_weights)
        found = Moments.weighted(self.z, log_weights.softmax(0))
        own = effective / (effective + k + 3.0)
        mean = found.mean if effective >= 2 else own * found.mean + (1.0 - own) * self._next.mean
        # A few draws lie closer together than what they stand for, and a proposal on which few count was a bad one.
        # Following them without widening both narrows with every round and ends too low (by 0.4 nats in 3 dimensions).
        spread = own * (1.0 + (k + 3.0) / effective) * found.covariance
        return Moments(mean, spread + (1.0 - own) * DOUBT * self._start.covariance)


def effective_size(log_weights: Float[Tensor, " N"]) -> float:
    """(Σ w)² / Σ w²; 0 if there is no weight."""
    if not bool(torch.isfinite(log_weights).any()):
        return 0.0
    return float((2.0 * log_weights.logsumexp(0) - (2.0 * log_weights).logsumexp(0)).exp())


def relative_error(log_weights: Float[Tensor, " N"]) -> float:
    """sd(w) / (mean(w) √N), infinite if there is no weight."""
    N = len(log_weights)
    if N < 2 or not bool(torch.isfinite(log_weights).any()):
        return math.inf
    relative = (log_weights - log_weights.logsumexp(0) + math.log(N)).exp()
    return float(relative.std() / math.sqrt(N))


def _parts(num: int) -> tuple[int, int, int]:
    """Draws of a round from the narrow part, the wide one and the slab: fixed numbers, which is less noise."""
    wide, slab = max(1, round(WIDE_SHARE * num)), max(1, round(SLAB_SHARE * num))
    return num - wide - slab, wide, slab


def _student(moments: Moments) -> dist.MultivariateStudentT:
    k = len(moments.mean)
    floor = 1e-4 * torch.eye(k, dtype=torch.float64)
    scale = torch.linalg.cholesky(INFLATION * moments.covariance + floor)
    degrees = torch.tensor(DEGREES, dtype=torch.float64)
    return dist.MultivariateStudentT(degrees, moments.mean, scale)
