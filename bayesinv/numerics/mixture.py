"""q as a mixture of Student t distributions, and its adaptation by importance sampling."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import gammaincinv
from torch import Tensor

from bayesinv.errors import NumericalError
from bayesinv.numerics.bend import Bend

# Degrees of freedom: under a flat prior a posterior in z has normal tails, so that these are the heavier ones. The
# scale is that of the standard deviations found, which ten degrees widen by 1.12. On eight unknowns of 150 digits 128
# draws were worth 62-85 independent ones with two rounds; five degrees, or a share of wider components, did no better.
DEGREES = 10.0
LOOK = 2.5  # standard deviations of Laplace's approximation at which the density is looked at, either side of a mode
SIDES = (0.4, 4.0)  # limits of the scales found there
# Draws of a round: many small ones place the next better than few large ones. On four simulated regressions whose modes
# say little 14 rounds of 40 were worth 61-289 independent draws, two rounds of the same 640 in all 26-103.
ROUND, SHARE = 40, 0.25  # at least so many, and this share of those before
FEWEST_ROUNDS = 4
# Modes with less than this share of the mass by Laplace's approximation get no draws.
SMALLEST_SHARE = 1e-3
NEEDLE = 1e-4  # smallest scale of a component, in standard deviations of the mode with the largest mass
FEWEST_EACH = 2.0  # effective draws for each dimension from which on moments are believed half


Density = Callable[[Float[Tensor, "J d"]], Float[Tensor, " J"]]  # its log; minus infinity where it cannot be computed


@dataclass(frozen=True)
class Mixture:
    """q(θ) = |dε/dθ| Σ_m π_m t_ν(ε | μ_m, Σ_m), draws by quasi-random numbers; ε = θ without a bend.

    Attributes:
        shares: π, (M,), summing to one.
        means: μ, (M, d).
        scales: lower Cholesky factors of Σ, (M, d, d).
        degrees: ν; infinity for normal distributions.
        bend: from ε to θ, coordinate by coordinate; None for none.
    """

    shares: Float[Tensor, " M"]
    means: Float[Tensor, "M d"]
    scales: Float[Tensor, "M d d"]
    degrees: float = DEGREES
    bend: Bend | None = None

    def straighten(self, theta: Float[Tensor, "*draws d"]) -> Float[Tensor, "*draws d"]:
        """ε of θ."""
        return theta if self.bend is None else self.bend.straighten(theta)

    def log_prob(self, theta: Float[Tensor, "*draws d"]) -> Float[Tensor, "*draws"]:
        """log q(θ)."""
        d = self.means.shape[1]
        if d == 0:
            return theta.new_zeros(theta.shape[:-1])
        away = self.straighten(theta)[..., None, :] - self.means  # (*draws, M, d)
        white = torch.linalg.solve_triangular(self.scales, away[..., None], upper=False)[..., 0]
        squares = white.square().sum(-1)
        log_det = self.scales.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        nu = self.degrees
        if math.isinf(nu):
            kernel = -0.5 * squares - 0.5 * d * math.log(2.0 * math.pi)
        else:
            constant = math.lgamma(0.5 * (nu + d)) - math.lgamma(0.5 * nu) - 0.5 * d * math.log(nu * math.pi)
            kernel = constant - 0.5 * (nu + d) * torch.log1p(squares / nu)
        log_q = (self.shares.log() + kernel - log_det).logsumexp(-1)
        return log_q if self.bend is None else log_q + self.bend.log_slope(theta)

    def sample(self, num: int, seed: int = 0) -> Float[Tensor, "num d"]:
        """Draws by scrambled Sobol points, components in proportion to their shares."""
        d = self.means.shape[1]
        unit = torch.quasirandom.SobolEngine(d + 2, scramble=True, seed=seed).draw(num, dtype=torch.float64)
        unit = unit.clamp(1e-9, 1.0 - 1e-9)
        component = torch.searchsorted(self.shares.cumsum(0), unit[:, -1].contiguous()).clamp_max(len(self.shares) - 1)
        normal = torch.special.ndtri(unit[:, :d])
        if not math.isinf(self.degrees):
            # SciPy's quantile function: torch has none for this distribution.
            radius = torch.from_numpy(2.0 * gammaincinv(0.5 * self.degrees, unit[:, d].numpy()))  # chi-squared
            normal = normal * (self.degrees / radius).sqrt()[:, None]
        epsilon = self.means[component] + (self.scales[component] @ normal[..., None])[..., 0]
        return epsilon if self.bend is None else self.bend(epsilon)

    def marginal(self, columns: Sequence[int]) -> Mixture:
        """Of some coordinates."""
        which = list(columns)
        covariance = (self.scales @ self.scales.mT)[:, which][:, :, which]
        bend = None if self.bend is None else self.bend.of(which)
        return Mixture(self.shares, self.means[:, which], torch.linalg.cholesky(covariance), self.degrees, bend)

    @staticmethod
    def pooled(parts: Sequence[tuple[float, Mixture]]) -> Mixture:
        """The mixture of mixtures with given weights, all of the same bend."""
        total = sum(weight for weight, _ in parts)
        return Mixture(
            torch.cat([part.shares * (weight / total) for weight, part in parts]),
            torch.cat([part.means for _, part in parts]),
            torch.cat([part.scales for _, part in parts]),
            parts[0][1].degrees,
            parts[0][1].bend,
        )


@dataclass(frozen=True)
class Adapted:
    """What adaptive importance sampling leaves: draws of q, their raw log weights, and q itself."""

    theta: Float[Tensor, "J d"]
    log_weights: Float[Tensor, " J"]
    guide: Mixture


def bend_at(
    mode: Float[Tensor, " d"],
    precision: Float[Tensor, "d d"],
    value: float,
    log_density: Density,
    diagonal: bool,
) -> tuple[Bend, Float[Tensor, "d d"], float]:
    """Coordinates in which a density is about normal around a mode, their correlations, and its log mass.

    Along each direction e_k of Laplace's approximation (columns of the symmetric root of the correlations, so that each
    belongs to one coordinate) the density is looked at on either side of the mode. A drop of Δ at x standard deviations
    is that of a normal with scale x / √(2Δ). Extents that may well be zero have long tails on that side, which
    Laplace's approximation cuts off.

    Args:
        mode: θ, (d,).
        precision: minus the second derivatives there.
        value: the log density there.
        log_density: of many θ at once.
        diagonal: whether correlations are left out.
    """
    d = len(mode)
    covariance = torch.linalg.inv(precision)
    sd = covariance.diagonal().sqrt()
    correlation = torch.eye(d, dtype=torch.float64) if diagonal else covariance / torch.outer(sd, sd)
    values, vectors = torch.linalg.eigh(correlation)
    root = sd[:, None] * ((vectors * values.clamp_min(0.0).sqrt()) @ vectors.T)
    drops = value - log_density(torch.cat([mode - LOOK * root.T, mode + LOOK * root.T])).view(2, d)
    sides = (LOOK / (2.0 * drops.clamp_min(1e-3)).sqrt()).clamp(*SIDES)
    bend = Bend(mode, sd, sides[0], sides[1])
    log_det = float(torch.linalg.slogdet(root).logabsdet)
    log_mass = value + 0.5 * d * math.log(2.0 * math.pi) + log_det + float((0.5 * sides.sum(0)).log().sum())
    return bend, correlation, log_mass


def around_modes(
    bend: Bend,
    correlation: Float[Tensor, "d d"],
    log_mass: float,
    others: Sequence[tuple[Float[Tensor, " d"], Float[Tensor, "d d"], float]] = (),
) -> Mixture:
    """A component at one mode in its own coordinates, and one at every other mode that holds a share of the mass.

    Args:
        bend, correlation, log_mass: of the mode with the largest mass, see `bend_at`.
        others: θ, precision and log mass by Laplace's approximation of other modes.
    """
    d = len(bend.centre)
    means, covariances, masses = [torch.zeros(d, dtype=torch.float64)], [correlation], [log_mass]
    for theta, precision, mass in others:
        slopes = bend.log_slopes(theta).exp()
        covariance = slopes[:, None] * torch.linalg.inv(precision) * slopes
        means.append(bend.straighten(theta))
        covariances.append(covariance)
        masses.append(mass)
    log_shares = torch.tensor(masses, dtype=torch.float64)
    shares = (log_shares - log_shares.logsumexp(0)).exp()
    kept = shares >= SMALLEST_SHARE
    scales = torch.stack([_factor(covariance) for covariance in covariances])[kept]
    return Mixture(shares[kept] / shares[kept].sum(), torch.stack(means)[kept], scales, bend=bend)


def _factor(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The lower Cholesky factor; of the diagonal alone where there is none, as of a needle."""
    factor, info = torch.linalg.cholesky_ex(covariance)
    if int(info) == 0:
        return factor
    return covariance.diagonal().nan_to_num(0.0).clamp_min(NEEDLE**2).sqrt().diag()


def adapt(
    start: Mixture,
    log_density: Density,
    num_draws: int,
    seed: int,
    diagonal: bool = False,
    enough: Callable[[Float[Tensor, " J"]], bool] | None = None,
    fewest_rounds: int = FEWEST_ROUNDS,
) -> Adapted:
    """Adaptive multiple importance sampling: rounds of draws whose weighted moments place the next round.

        w_j ∝ p(D, θ_j) / q̄(θ_j),    q̄ = Σ_r n_r q_r / Σ_r n_r

    Every draw is weighed by the mixture q̄ of all rounds, which is the guide that is kept.

    Args:
        start: q_1.
        log_density: of many θ at once.
        num_draws: over all rounds; the most, with ``enough``.
        seed: of the draws.
        diagonal: whether covariances stay zero.
        enough: of log weights; whether no more rounds are needed. None draws ``num_draws``.
        fewest_rounds: before ``enough`` is asked.

    Raises:
        NumericalError: the density could not be computed at any draw.

    Reference:
        J.-M. Cornuet, J.-M. Marin, A. Mira, C. Robert (2012). Adaptive multiple importance sampling. arXiv:0907.1254.
    """
    sizes = _round_sizes(num_draws)
    seeds = np.random.SeedSequence(seed).generate_state(len(sizes))
    rounds: list[tuple[Tensor, Tensor, Mixture]] = []
    proposal = start
    for size, own in zip(sizes, seeds, strict=True):
        theta = proposal.sample(size, int(own) & 0x7FFFFFFF)
        rounds.append((theta, log_density(theta), proposal))
        all_draws, log_p = (torch.cat(part) for part in zip(*[r[:2] for r in rounds], strict=True))
        guide = Mixture.pooled([(float(len(draws)), q) for draws, _, q in rounds])
        log_w = log_p - guide.log_prob(all_draws)
        if not bool(torch.isfinite(log_w).any()):
            continue
        if enough is not None and len(rounds) >= fewest_rounds and enough(log_w):
            break
        proposal = _moved(proposal, all_draws, log_w, diagonal)
    if not bool(torch.isfinite(log_w).any()):
        raise NumericalError(f"the evidence could not be computed at any of {num_draws} draws of the guide")
    return Adapted(all_draws, log_w, guide)


def _round_sizes(num_draws: int) -> list[int]:
    """How many draws in each round: small ones first, and about a quarter of all at most."""
    sizes: list[int] = []
    while (left := num_draws - sum(sizes)) > 0:
        sizes.append(min(left, max(math.ceil(SHARE * num_draws), 1), max(ROUND, math.ceil(SHARE * sum(sizes)))))
    return sizes


def _moved(proposal: Mixture, theta: Float[Tensor, "J d"], log_w: Float[Tensor, " J"], diagonal: bool) -> Mixture:
    """Every component at the weighted moments of the draws that belong to it, as far as there are enough of them."""
    d = theta.shape[1]
    epsilon = proposal.straighten(theta)
    # Truncated at √J times the mean (Ionides, 2008), so that no single draw takes the proposal with it.
    cut = log_w.logsumexp(0) - 0.5 * math.log(len(log_w))
    w = (torch.minimum(log_w, cut) - cut).exp()
    w = w / w.sum()
    single = [
        dataclasses.replace(
            proposal, shares=proposal.shares.new_ones(1), means=proposal.means[[m]], scales=proposal.scales[[m]]
        )
        for m in range(len(proposal.shares))
    ]
    log_each = torch.stack([part.log_prob(theta) for part in single], -1) + proposal.shares.log()
    belongs = (log_each - log_each.logsumexp(-1, keepdim=True)).exp()  # (J, M)
    means, scales, shares = [], [], []
    for m in range(len(single)):
        mine = w * belongs[:, m]
        mass = float(mine.sum())
        shares.append(max(mass, SMALLEST_SHARE))
        mine = mine / max(mass, 1e-300)
        effective = 1.0 / max(float(mine.square().sum()), 1e-300) if mass > 0 else 0.0
        trust = effective / (effective + FEWEST_EACH * d)
        before = proposal.scales[m] @ proposal.scales[m].T
        mean = mine @ epsilon
        away = epsilon - mean
        moments = (mine[:, None] * away).T @ away
        mixed = trust * moments + (1.0 - trust) * before
        if diagonal:
            mixed = torch.diag(mixed.diagonal())
        means.append(trust * mean + (1.0 - trust) * proposal.means[m])
        scales.append(_factor(mixed))
    total = torch.tensor(shares, dtype=torch.float64)
    return dataclasses.replace(
        proposal, shares=total / total.sum(), means=torch.stack(means), scales=torch.stack(scales)
    )
