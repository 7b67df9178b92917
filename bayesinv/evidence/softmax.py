"""Classes through a softmax: the evidence by expectation propagation, predictions at the mode or averaged."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.errors import NotSettledError
from bayesinv.evidence.algebra import Posterior
from bayesinv.evidence.base import ClassificationEvidence
from bayesinv.evidence.collapsed import CollapsedEvidence, Whitened
from bayesinv.evidence.expected_softmax import expected_softmax
from bayesinv.evidence.kernel_logistic import Mode, logistic_mode
from bayesinv.evidence.propagation import LARGEST_PRECISION, SMALLEST_PRECISION, Sites, settled

# Largest move by one more step: of a mean, in standard deviations of its cavity, or of a marginal's variance, relative.
# Gradients are off by about as much, values by the order of the square, since the evidence is stationary in the sites.
TOLERANCE = 1e-3
# Without a gradient. Costs the evidence up to 0.02 nat at an outputscale of 10, 0.1 at 1,000 and 3 at 100,000, the most
# with many classes in a long lengthscale; 0.01 or less at 1,500 and 3,000 digits.
VALUE_TOLERANCE = 1e-2
FAILURE = 3e-2
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
            NotSettledError: the sites do not come to rest.
        """
        tolerance = TOLERANCE if white.V.requires_grad else VALUE_TOLERANCE
        sites = self._fixed_point(white, data.y, data.num_outputs, tolerance)
        b, cavities = sites.b, sites.cavities
        with torch.no_grad():
            mean = cavities.means(b)
            log_Z, alpha, beta = expected_softmax(mean, cavities.variance + white.residuals, data.y)
            value = cavities.joint(b) + (log_Z - cavities.log_site_averages(b, mean)).sum()
        if white.V.requires_grad:
            with torch.no_grad():
                slopes = cavities.slopes(b, mean, alpha, beta)
            value = value + (slopes * _gradient_only(white.V)).sum()
        return value + (beta * _gradient_only(white.residuals)).sum()

    def solve(self, white: Whitened, data: Data, near: Posterior | None = None) -> Posterior:
        """The posterior of the coordinates: a point at the mode, or EP's Gaussian."""
        if self.predicts_mode:
            return logistic_mode(white, self._offset, data.y, near if isinstance(near, Mode) else None)
        sites = self._fixed_point(white, data.y, data.num_outputs, TOLERANCE)
        return sites.cavities.posterior(sites.b)

    def _fixed_point(self, white: Whitened, y: Int[Tensor, " n"], C: int, tolerance: float) -> Sites:
        """The sites, from the last ones or else from nothing."""
        white = white.detached()
        G = C if white.per_output else 1
        warm, sites = self.warm_start, None
        if warm is not None and warm.shape == (len(y), G + C) and warm.device == y.device:
            start = warm[:, :G].exp().clamp(SMALLEST_PRECISION, LARGEST_PRECISION), warm[:, G:]
            sites = settled(white, y, start, self._offset, tolerance)
        if sites is None or not sites.moved < FAILURE:
            start = (
                torch.full((len(y), G), 1.0 / C, dtype=torch.float64, device=y.device),
                F.one_hot(y, C).to(torch.float64) - 1.0 / C,
            )
            sites = settled(white, y, start, self._offset, tolerance)
        if sites is None or not sites.moved < FAILURE:
            self.warm_start = None
            raise NotSettledError(
                f"expectation propagation: the sites of {len(y)} labels still move by {sites.moved:.2g} standard "
                f"deviations (expected at most {FAILURE:g}); the prior may be far too wide (an outputscale of 100,000):"
                ' give the kernel a prior on it, or use evidence="dirichlet"'
            )
        self.warm_start = torch.cat([sites.precision.log(), sites.b], 1)
        return sites

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {"type": self.name, "prediction": self.prediction}


def _gradient_only(value: Tensor) -> Tensor:
    """Zero, with the gradient of the value."""
    return value - value.detach()
