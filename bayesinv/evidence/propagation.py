"""Expectation propagation for softmax labels: cavities, and the sites at their fixed point.

Given the precisions λ of the sites, and with them the variances s of the cavities, the means alone are a concave
problem, K⁻¹(μ - offset) = α(m) with μ = m + s α(m), and Newton steps towards its solution need no new factor. They are
settled between any two steps that move λ, which are accelerated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.evidence.algebra import Factor, Posterior
from bayesinv.evidence.anderson import CautiousAnderson
from bayesinv.evidence.collapsed import Whitened
from bayesinv.evidence.expected_softmax import expected_softmax

# Steps that move the precisions; they end as well after so many without progress.
MAX_STEPS, PATIENCE = 100, 20
# Between two of them, Newton steps of the means, until the misfit is this share of the first, or of the tolerance.
MAX_NEWTON_STEPS, MISFIT_SHARE, MISFIT_SHARE_OF_TOLERANCE, MAX_HALVINGS = 10, 0.1, 0.5, 5
MAX_CONJUGATE, CONJUGATE_SHARE = 50, 0.1  # conjugate gradients of one, and what they leave of the misfit
LARGEST_SHRINKING = 0.95  # of a variance by its label
# Moves above this many standard deviations are not accelerated: their differences say nothing about the fixed point.
LARGEST_ACCELERATED = 1.0
# The first steps are in float32, at half the time, while each is at most this share of the last and this many times the
# tolerance: at large outputscales the noise of float32 is larger than the tolerance.
SHRINKING, ROUGH = 0.5, 3.0
LARGEST_ROUGH = 1e5  # prior variance of f above which float32 cannot hold I + ΛK
UNLIKELY = -15.0  # log probabilities below which a label is treated in float64
SMALLEST_PRECISION, LARGEST_PRECISION = 1e-10, 1e6  # of a site
LEAST_WEIGHT = 1e-3  # in the acceleration, of a precision that has no effect at the first sites

SitePair = tuple[Float[Tensor, "n G"], Float[Tensor, "n C"]]


@dataclass(frozen=True)
class Sites:
    """Where the sites came to rest.

    Attributes:
        precision: λ, (n, 1) or (n, C).
        b: locations, (n, C).
        moved: how far the next step would move them.
        cavities: theirs, in float64.
    """

    precision: Float[Tensor, "n G"]
    b: Float[Tensor, "n C"]
    moved: float
    cavities: Cavities


class Cavities:
    """The posterior without each example's own site, at given precisions; of f without the residual.

    Attributes:
        variance: of every cavity, s, (n, G).
    """

    def __init__(self, white: Whitened, precision: Float[Tensor, "n G"], offset: Float[Tensor, " C"]):
        self.precision, self._offset = precision, offset
        self._factor = Factor.of(white.V, precision.to(white.V), K=white.K)
        self._marginal = self._factor.variances().to(precision)
        self._left = (1.0 - precision * self._marginal).clamp_min(1e-6)
        self.variance = (self._marginal / self._left).clamp_min(1e-10)
        # One precision an example acts on C - 1 contrasts, which share a factor; otherwise each class has its own.
        self._contrasts = len(offset) - 1 if precision.shape[1] == 1 else 1

    def spread(self, r: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """(K⁻¹ + Λ)⁻¹ r, the posterior's means for r = b less the offset's part."""
        return self._factor.means(r.to(self._factor.L)).to(r)

    def means(self, b: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """m, of the cavities of sites at b."""
        mean = self.spread(b - self.precision * self._offset)
        return (self._offset + mean - self._marginal * b) / self._left

    def joint(self, b: Float[Tensor, "n C"]) -> Float[Tensor, ""]:
        """log ∫ p(f) Π site_i(f_i) df."""
        r = b - self.precision * self._offset
        offsets = (b * self._offset).sum() - 0.5 * (self.precision * self._offset.square()).sum()
        quadratic = 0.5 * (r * self.spread(r)).sum() + offsets
        return quadratic - 0.5 * self._contrasts * self._factor.log_det.sum()

    def posterior(self, b: Float[Tensor, "n C"]) -> Posterior:
        """Of the coordinates, with the sites in it."""
        return self._factor.posterior(b - self.precision * self._offset)

    def slopes(
        self, b: Float[Tensor, "n C"], means: Float[Tensor, "n C"], alpha: Float[Tensor, "n C"], beta: Tensor
    ) -> Float[Tensor, "*C M n"]:
        """∂/∂V of `joint` and of what the cavities are asked for; at the fixed point the latter cancels.

        Args:
            b: sites.
            means: of their cavities.
            alpha: derivatives of log Ẑ in the means, (n, C),
            beta: and in the variances, (n, G).
        """
        with torch.enable_grad():
            m, s = means.detach().requires_grad_(), self.variance.detach().requires_grad_()
            of_m, of_s = torch.autograd.grad(self._log_site_averages(b, m, s).sum(), [m, s])
        of_m, of_s = (alpha - of_m) / self._left, (beta - of_s) / self._left.square()
        of_marginal = of_m * (self.precision * means - b)
        of_marginal = of_marginal.sum(-1, keepdim=True) if self.precision.shape[1] == 1 else of_marginal
        return self._factor.slopes(b - self.precision * self._offset, self._contrasts, of_m, of_marginal + of_s)

    def log_site_averages(self, b: Float[Tensor, "n C"], means: Float[Tensor, "n C"]) -> Float[Tensor, " n"]:
        """log E site_i over the cavities, whose means at b are given."""
        return self._log_site_averages(b, means, self.variance)

    def _log_site_averages(self, b: Tensor, m: Tensor, s: Tensor) -> Float[Tensor, " n"]:
        lam = self.precision
        if lam.shape[1] == 1:
            m = m - m.mean(-1, keepdim=True)  # P m
        den = 1.0 + s * lam
        quadratic = ((b * m - 0.5 * lam * m.square() + 0.5 * s * b.square()) / den).sum(-1)
        return quadratic - 0.5 * self._contrasts * den.log().sum(-1)


@torch.no_grad()
def settled(
    white: Whitened, y: Int[Tensor, " n"], sites: SitePair, offset: Float[Tensor, " C"], tolerance: float
) -> Sites:
    """Sites which one more step moves little.

    Args:
        white: of the training inputs.
        y: labels.
        sites: to start from, precisions and locations.
        offset: fixed part of the means, whose sum is zero.
        tolerance: largest move of a mean, in standard deviations of its cavity, or of a marginal's variance, relative.

    Returns:
        The sites; where none come to rest, those with the smallest move.
    """
    precision, b = sites
    best: Sites | None = None
    since, moved = 0, math.inf
    weight: Tensor | None = None
    steps = CautiousAnderson()
    rough, coarse = float(white.V.square().sum(-2).amax()) < LARGEST_ROUGH, white.single()
    for number in range(MAX_STEPS):
        cavities = Cavities(coarse if rough else white, precision, offset)
        b, found = _with_settled_means(cavities, white.residuals, y, b, tolerance)
        new_precision, new_b = matched(found.mean, cavities.variance, found.alpha, found.beta)
        before, moved = moved, _effect((new_precision - precision, new_b - b), precision, cavities.variance)
        if not rough:
            if best is None or not moved >= best.moved:
                best, since = Sites(precision, b, moved, cavities), number
            if moved < tolerance or number - since >= PATIENCE:
                break
        if rough and not (moved > ROUGH * tolerance and moved < SHRINKING * before):
            rough, since = False, number
            if moved < tolerance:
                continue  # to see it in float64
        if weight is None:
            weight = 1.0 - 1.0 / (1.0 + cavities.variance * precision) + LEAST_WEIGHT
        u, image = (weight * p.log() for p in (precision, new_precision))
        following = steps.next(u, image, near=moved < LARGEST_ACCELERATED) / weight
        precision = following.exp().clamp(SMALLEST_PRECISION, LARGEST_PRECISION)
        b = found.alpha + precision * (found.mean + cavities.variance * found.alpha)  # keeps the means that are settled
    return Sites(precision, b, moved, Cavities(white, precision, offset)) if best is None else best


def _with_settled_means(
    cavities: Cavities, residuals: Tensor, y: Tensor, b: Tensor, tolerance: float
) -> tuple[Float[Tensor, "n C"], _Misfit]:
    """b where the means of cavity times site and of the tilted distributions nearly agree, λ as it is."""
    s, lam = cavities.variance, cavities.precision
    growth = 1.0 + s * lam
    effect = s.sqrt() / growth  # of b on the mean, in standard deviations of the cavity
    found = _Misfit(cavities, residuals, y, b)
    size = float((found.value * effect).abs().amax())
    enough = max(MISFIT_SHARE * size, MISFIT_SHARE_OF_TOLERANCE * tolerance)
    for _ in range(MAX_NEWTON_STEPS):
        if size <= enough:
            break
        curvature = _Curvature(found, s, y)
        step = _newton_step(cavities, curvature, curvature.solve(found.value / growth))
        for _ in range(MAX_HALVINGS):
            following = _Misfit(cavities, residuals, y, b + step)
            new_size = float((following.value * effect).abs().amax())
            if new_size < size:
                break
            step = 0.5 * step
        else:
            break
        b, found, size = b + step, following, new_size
    return b, found


class _Misfit:
    """How far sites at b are from those that the tilted distributions ask for."""

    def __init__(self, cavities: Cavities, residuals: Tensor, y: Tensor, b: Tensor):
        self.mean = cavities.means(b)
        self.alpha, self.beta = expected_slopes(self.mean, cavities.variance + residuals, y)
        s, lam = cavities.variance, cavities.precision
        self.value = self.alpha * (1.0 + s * lam) + lam * self.mean - b


class _Curvature:
    """H = -∂²log Ẑ/∂m² of every example as c (diag p - ppᵀ), with p = e_y - α and its trace.

    p are the probabilities that the tilted distribution expects. Exact for two classes, up to a cap on c.
    """

    def __init__(self, at: _Misfit, s: Tensor, y: Tensor):
        trace = (at.alpha.square().sum(-1, keepdim=True) - 2.0 * at.beta.sum(-1, keepdim=True)).clamp_min(0.0)
        p = -at.alpha
        p[torch.arange(len(y), device=y.device), y] += 1.0
        p = p.clamp_min(0.0)
        self._p = p / p.sum(-1, keepdim=True)
        spread = (1.0 - self._p.square().sum(-1, keepdim=True)).clamp_min(1e-12)
        steepest = (2.0 * s * self._p * (1.0 - self._p)).amax(-1, keepdim=True).clamp_min(1e-12)
        self._c = torch.minimum(trace / spread, LARGEST_SHRINKING / steepest)
        self._sp = s * self._p
        left = 1.0 - self._c * self._sp  # negative where p is nearly one
        self._left = torch.where(left.abs() < 1e-6, 1e-6, left)
        self._inner = 1.0 + self._c * (self._sp * self._p / self._left).sum(-1, keepdim=True)

    def solve(self, u: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """(I - H S)⁻¹ u."""
        u = u / self._left
        return u - self._c * self._p / self._left * ((self._sp * u).sum(-1, keepdim=True) / self._inner)

    def __call__(self, u: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """(I - H S)⁻¹ H u, the precision that full sites would have."""
        pu = self._p * u
        return self.solve(self._c * (pu - self._p * pu.sum(-1, keepdim=True)))


def _newton_step(cavities: Cavities, curvature: _Curvature, g: Tensor) -> Float[Tensor, "n C"]:
    """The change of b that moves the posterior means by (K⁻¹ + W)⁻¹ g, by conjugate gradients from (K⁻¹ + Λ)⁻¹."""
    lam, r = cavities.precision, g
    z = cavities.spread(r)
    p, of_p, step = z, r, torch.zeros_like(g)  # of_p = (K⁻¹ + Λ) p
    energy = first = float((r * z).sum())
    for _ in range(MAX_CONJUGATE):
        if not energy > CONJUGATE_SHARE**2 * first:
            break
        Ap = of_p + curvature(p) - lam * p
        curved = float((p * Ap).sum())
        if not curved > 0:
            break
        length = energy / curved
        step, r = step + length * of_p, r - length * Ap
        z = cavities.spread(r)
        energy, before = float((r * z).sum()), energy
        p, of_p = z + energy / before * p, r + energy / before * of_p
    # K⁻¹(K⁻¹ + Λ)⁻¹ r: conjugate gradients do not see what is left where K is small. All of r would move the means.
    step = step + r - lam * z
    # With one precision the classes' common shift has no likelihood to hold it: rounding would add up there.
    return step - step.mean(-1, keepdim=True) if lam.shape[1] == 1 else step


def matched(
    mean: Float[Tensor, "n C"],
    variance: Float[Tensor, "n G"],
    alpha: Float[Tensor, "n C"],
    beta: Float[Tensor, "n G"],
) -> SitePair:
    """Sites whose product with the cavities has the moments of the tilted distributions.

    Args:
        mean: of the cavities.
        variance: of the cavities, without what inducing values leave.
        alpha: ∂ log Ẑ in the mean, and
        beta: in the variance.
    """
    if variance.shape[1] == 1:
        nu = ((alpha.square().sum(-1, keepdim=True) - 2.0 * beta) / (mean.shape[1] - 1)).clamp_min(0.0)
    else:
        nu = (alpha.square() - 2.0 * beta).clamp_min(0.0)
    left = (1.0 - variance * nu).clamp_min(1e-3)
    return (nu / left).clamp_min(SMALLEST_PRECISION), (alpha + nu * mean) / left


def expected_slopes(mean: Tensor, variance: Tensor, y: Tensor) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n G"]]:
    """∂ log E softmax_y in means and variances, to four digits; in the means less what all classes share."""
    log_Z, alpha, beta = (part.double() for part in expected_softmax(mean.float(), variance.float(), y))
    unlikely = ~(log_Z >= UNLIKELY)
    if bool(unlikely.any()):  # float32 cannot hold their parts
        _, alpha[unlikely], beta[unlikely] = expected_softmax(mean[unlikely], variance[unlikely], y[unlikely])
    return alpha - alpha.mean(-1, keepdim=True), beta


def _effect(change: SitePair, precision: Tensor, variance: Tensor) -> float:
    """The largest change: of a mean, in standard deviations of its cavity, or of a variance, relative."""
    d_precision, d_b = change
    scale = 1.0 / (1.0 + variance * precision)
    of_variance = (d_precision.abs() * variance * scale).amax()
    of_mean = (d_b.abs() * variance.sqrt() * scale).amax()
    return float(torch.maximum(of_variance, of_mean))
