"""Classes through a softmax: the evidence by expectation propagation, predictions at the mode or averaged."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.errors import NotSettledError
from bayesinv.evidence.algebra import Factor, Posterior
from bayesinv.evidence.anderson import Anderson
from bayesinv.evidence.base import ClassificationEvidence
from bayesinv.evidence.collapsed import CollapsedEvidence, Whitened
from bayesinv.evidence.expected_softmax import expected_softmax
from bayesinv.evidence.kernel_logistic import Mode, logistic_mode

# Largest change of a marginal's mean, in its standard deviations, or of its variance, relative, by one more step. The
# evidence is stationary in the sites, so that what is left costs it the order of the square.
TOLERANCE = 2e-4
# Without a gradient. Costs the evidence 0.003 nat at an outputscale of 10, and up to about 0.03 at 10,000.
VALUE_TOLERANCE = 4e-3
FAILURE = 3e-2
MAX_STEPS = 300
# From sites of other extents, which can lie where damped steps only swing: after so many steps such a run is given up
# if its steps are still larger than this. Smaller ones are on their way.
MAX_WARM_STEPS, LOST = 30, 0.05
# Share of the way to the new sites that a step goes. Sites that all move at once overshoot: whole steps diverge.
DAMPING = 0.5
SWINGING, SHORTEST_STEP = 0.97, 0.1  # steps that hardly shrink are taken shorter, but never shorter than this
# Steps above this size are not accelerated: far from the fixed point their differences say nothing about it.
LARGEST_ACCELERATED = 1.0
PLAIN_STEPS = 3  # after an accelerated one that ran off
# The first steps are in float32, at half the time: at most so many, and only above so many tolerances. Large
# outputscales leave noise in float32 below which they would never come.
ROUGH_STEPS, ROUGH = 12, 3.0
LARGEST_ROUGH = 1e5  # prior variance of f above which float32 cannot hold I + ΛK
UNLIKELY = -15.0  # log probabilities below which a label is treated in float64
SMALLEST_PRECISION, LARGEST_PRECISION = 1e-10, 1e6  # of a site; the second where one begins
START_VARIANCE = 10.0  # prior variance of f that a fit starts from: labels that are mostly, not always, certain
OFFSET_VARIANCE = 1.0  # of the unknown mean of a class: shares of classes within a factor of about 20
PREDICTIONS = ("mode", "average")


class SoftmaxEvidence(CollapsedEvidence, ClassificationEvidence):
    """log p(y | η) for labels y_i ~ softmax(f(x_i)), by expectation propagation (EP).

    Every example has one site, exp(b_iᵀf_i - λ_i f_iᵀP f_i / 2) with P = I - 11ᵀ/C, since a softmax does not see a
    common shift of the classes. One precision an example means that all classes share one factor, however many there
    are. With cavities f_i ~ N(m, s I), Ẑ_i = E softmax_{y_i}(f_i), α = ∂ log Ẑ/∂m and β = ∂ log Ẑ/∂s,

        ν = (|α|² - 2β) / (C - 1),   λ <- ν / (1 - sν),   b <- (α + νm) / (1 - sν),

    matches the mean and the total variance of the contrasts, and

        log p(y) ≈ ½ Σ_c b_cᵀ(Vᵀ A⁻¹ V) b_c - (C - 1)/2 log|A| + Σ_i [ log Ẑ_i - log E_cavity site_i ].

    It is stationary in the sites at their fixed point, so that the gradient treats them as constants. Where outputs
    have extents of their own, sites have a precision for each class. Two classes are exact one-dimensional EP. The
    residual that inducing values leave counts as noise of each example on its own.

    Args:
        prediction: "mode" predicts with the most probable function (kernel logistic regression at the learned extents
            and hyperparameters), "average" over the Gaussian that EP fits. The intervals of extents are the same.

    Raises:
        ValueError: an unknown prediction.

    References:
        T. P. Minka (2001). Expectation propagation for approximate Bayesian inference. UAI, arXiv:1301.2294.
        J. Riihimäki, P. Jylänki, A. Vehtari (2013). Nested expectation propagation for Gaussian process classification
        with a multinomial probit likelihood. JMLR 14, arXiv:1207.3649.
    """

    name = "softmax"

    def __init__(self, prediction: str = "mode"):
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction: expected one of {list(PREDICTIONS)}, got {prediction!r}")
        self.prediction = prediction
        self.offset_variance = torch.tensor(OFFSET_VARIANCE, dtype=torch.float64)
        self.warm_start: Float[Tensor, "n G_plus_C"] | None = None  # log λ and b of the last fixed point

    @property
    def predicts_mode(self) -> bool:
        """Whether predictions take the most probable function."""
        return self.prediction == "mode"

    @property
    def _offset(self) -> Float[Tensor, " C"]:
        """The fixed part of the means, without what is common to the classes."""
        return self.mean - self.mean.mean()

    def initialise(self, data: Data) -> float:
        """Offsets of zero, with the prior's spread around them."""
        self.mean = torch.zeros(data.num_outputs, dtype=torch.float64, device=data.x.device)
        self.offset_variance = torch.tensor(OFFSET_VARIANCE, dtype=torch.float64, device=data.x.device)
        self.warm_start = None
        return START_VARIANCE

    def log_probabilities(self, f: Float[Tensor, "*draws n C"]) -> Float[Tensor, "*draws n C"]:
        """log softmax(f)."""
        return f.log_softmax(-1)

    def bound(self, white: Whitened, data: Data) -> Float[Tensor, ""]:
        """EP's approximation of log p(y | η); neither a lower nor an upper bound.

        Raises:
            NotSettledError: the sites still move after 300 steps.
        """
        tolerance = TOLERANCE if white.V.requires_grad else VALUE_TOLERANCE
        precision, b = self._fixed_point(white, data.y, data.num_outputs, tolerance)
        step = _Step(white, precision, b, self._offset)
        variance = step.variance + white.residuals
        with torch.no_grad():
            log_Z, alpha, beta = expected_softmax(step.mean, variance, data.y)
        # The value of log Ẑ, with the gradient that its cavities pass on.
        total = log_Z.sum() + (alpha * _gradient_only(step.mean)).sum() + (beta * _gradient_only(variance)).sum()
        return step.joint + total - step.log_site_averages().sum()

    def solve(self, white: Whitened, data: Data, near: Posterior | None = None) -> Posterior:
        """The posterior of the coordinates: a point at the mode, or EP's Gaussian."""
        if self.predicts_mode:
            return logistic_mode(white, self._offset, data.y, near if isinstance(near, Mode) else None)
        precision, b = self._fixed_point(white, data.y, data.num_outputs, TOLERANCE)
        return Factor.of(white.V, precision, K=white.K).posterior(b - precision * self._offset)

    def _fixed_point(self, white: Whitened, y: Int[Tensor, " n"], C: int, tolerance: float) -> tuple[Tensor, Tensor]:
        """Precisions (n, 1) or (n, C) and locations b (n, C) of the sites, from the last ones or else from nothing."""
        white = white.detached()
        G = C if white.per_output else 1
        fresh = (
            torch.full((len(y), G), 1.0 / C, dtype=torch.float64, device=y.device),
            F.one_hot(y, C).to(torch.float64) - 1.0 / C,
        )
        moved = math.inf
        warm = self.warm_start
        if warm is not None and warm.shape == (len(y), G + C) and warm.device == y.device:
            start = warm[:, :G].exp().clamp(SMALLEST_PRECISION, LARGEST_PRECISION), warm[:, G:]
            sites, moved = self._iterate(white, y, start, tolerance, LOST)
            if moved < tolerance:
                self.warm_start = torch.cat([sites[0].log(), sites[1]], 1)
                return sites
        sites, moved = self._iterate(white, y, fresh, tolerance)
        if not moved < FAILURE:
            self.warm_start = None
            raise NotSettledError(
                f"expectation propagation: the sites of {len(y)} labels still move by {moved:.2g} standard deviations "
                f"after {MAX_STEPS} steps (expected {TOLERANCE:g}); the prior may be far too wide (an outputscale of "
                'thousands): give the kernel a prior on it, or use evidence="dirichlet"'
            )
        self.warm_start = torch.cat([sites[0].log(), sites[1]], 1)
        return sites

    @torch.no_grad()
    def _iterate(
        self,
        white: Whitened,
        y: Int[Tensor, " n"],
        sites: tuple[Tensor, Tensor],
        tolerance: float,
        lost: float = math.inf,
    ) -> tuple[tuple[Tensor, Tensor], float]:
        """The sites where steps become small, and the size of the last one; given up early where it is ``lost``.

        Damped steps, accelerated (Anderson, 1965) in coordinates in which every site has the effect of one standard
        deviation. An accelerated step that runs off is taken back to plain ones; plain ones that swing are shortened.
        """
        precision, b = sites
        n, (C, G) = len(y), (b.shape[1], precision.shape[1])
        scale: Tensor | None = None
        anderson: Anderson | None = None
        smallest, plain, damping, moved = math.inf, 0, DAMPING, math.inf
        rough, coarse = float(white.V.square().sum(-2).amax()) < LARGEST_ROUGH, white.single()
        for number in range(MAX_STEPS):
            step = _Step(coarse if rough else white, precision, b, self._offset)
            new_precision, new_b = _matched(step.mean, step.variance, white.residuals, y)
            change = (new_precision - precision, new_b - b)
            before, moved = moved, _effect(change, precision, step.variance)
            if (moved < tolerance and not rough) or (number >= MAX_WARM_STEPS and moved > lost):
                break
            was_rough, rough = rough, rough and moved > ROUGH * tolerance and number < ROUGH_STEPS
            if was_rough and moved < tolerance:
                continue  # to see it in float64
            if moved > SWINGING * before and anderson is None:
                damping = max(SHORTEST_STEP, 0.7 * damping)
            if scale is None:
                scale = torch.cat([step.variance * math.sqrt(0.5 * C), step.variance.sqrt().expand(-1, C)], 1)
            u = torch.cat([precision, b], 1) * scale
            residual = torch.cat(change, 1) * scale
            size = float(residual.norm())
            if size > 2.0 * smallest:
                plain, smallest = PLAIN_STEPS, size
            smallest = min(smallest, size)
            image = (u + damping * residual).reshape(1, -1)
            if plain > 0 or moved > LARGEST_ACCELERATED:
                plain, anderson = plain - 1, None
            elif anderson is None:
                anderson = Anderson(u.reshape(1, -1))
            following = (image if anderson is None else anderson.next(image)).reshape(n, G + C) / scale
            # A precision that acceleration would make negative shrinks instead.
            lowered = torch.where(following[:, :G] > 0, following[:, :G], 0.3 * precision)
            precision, b = lowered.clamp_min(SMALLEST_PRECISION), following[:, G:]
        return (precision, b), moved

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {"type": self.name, "prediction": self.prediction}


class _Step:
    """Cavities at given sites, and the parts of the evidence that depend on them; of f without the residual."""

    def __init__(self, white: Whitened, precision: Tensor, b: Tensor, offset: Tensor):
        self.precision, self.b = precision, b
        factor = Factor.of(white.V, precision.to(white.V), K=white.K)
        r = b - precision * offset
        mean, marginal = factor.means(r.to(white.V)).to(b), factor.variances().to(b)
        # One precision an example acts on C - 1 contrasts, which share a factor; otherwise each class has its own.
        self.contrasts = b.shape[1] - 1 if precision.shape[1] == 1 else 1
        quadratic = 0.5 * (r * mean).sum() + (b * offset).sum() - 0.5 * (precision * offset.square()).sum()
        self.joint = quadratic - 0.5 * self.contrasts * factor.log_det.sum()
        left = (1.0 - precision * marginal).clamp_min(1e-6)
        self.variance = (marginal / left).clamp_min(1e-10)
        self.mean = (offset + mean - marginal * b) / left

    def log_site_averages(self) -> Float[Tensor, " n"]:
        """log E site_i over the cavities."""
        s, lam, b, m = self.variance, self.precision, self.b, self.mean
        if self.contrasts > 1 or lam.shape[1] == 1:
            m = m - m.mean(-1, keepdim=True)  # P m
        den = 1.0 + s * lam
        quadratic = ((b * m - 0.5 * lam * m.square() + 0.5 * s * b.square()) / den).sum(-1)
        return quadratic - 0.5 * self.contrasts * den.log().sum(-1)


def _matched(
    mean: Float[Tensor, "n C"],
    variance: Float[Tensor, "n G"],
    residual: Float[Tensor, "n G"],
    y: Int[Tensor, " n"],
) -> tuple[Float[Tensor, "n G"], Float[Tensor, "n C"]]:
    """Sites whose product with the cavities has the moments of the tilted distributions, to four digits."""
    C, total = mean.shape[1], variance + residual
    log_Z, alpha, beta = (part.double() for part in expected_softmax(mean.float(), total.float(), y))
    unlikely = ~(log_Z >= UNLIKELY)
    if bool(unlikely.any()):  # float32 cannot hold their parts
        _, alpha[unlikely], beta[unlikely] = expected_softmax(mean[unlikely], total[unlikely], y[unlikely])
    alpha = alpha - alpha.mean(-1, keepdim=True)
    if variance.shape[1] == 1:
        nu = ((alpha.square().sum(-1, keepdim=True) - 2.0 * beta) / (C - 1)).clamp_min(0.0)
    else:
        nu = (alpha.square() - 2.0 * beta).clamp_min(0.0)
    left = (1.0 - variance * nu).clamp_min(1e-3)
    return (nu / left).clamp_min(SMALLEST_PRECISION), (alpha + nu * mean) / left


def _effect(change: tuple[Tensor, Tensor], precision: Tensor, variance: Tensor) -> float:
    """The largest change of a marginal: of its mean in standard deviations, or of its variance, relative."""
    d_precision, d_b = change
    scale = 1.0 / (1.0 + variance * precision)
    of_variance = (d_precision.abs() * variance * scale).amax()
    of_mean = (d_b.abs() * variance.sqrt() * scale).amax()
    return float(torch.maximum(of_variance, of_mean))


def _gradient_only(value: Tensor) -> Tensor:
    """Zero, with the gradient of the value."""
    return value - value.detach()
