"""Gaussian noise: exact sites with one noise variance."""

from __future__ import annotations

import math
from typing import Any

import torch
from gpytorch.constraints import GreaterThan
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.priors import Prior
from jaxtyping import Float
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.evidence.collapsed import SiteEvidence, Sites
from bayesinv.evidence.prediction import Average, GaussianAverage

# As a share of the targets' variance. The bound divides rounding errors by the noise: at 1 % the jitter and a float32
# orbit cost 0.6 and 0.1 nat on 300 inputs with ten outputs, at 0.01 % both cost tens. For noise below 1 % use
# precision="double".
SMALLEST_NOISE_SHARE = 1e-4


def _above(lowest: float) -> GreaterThan:
    """A lower bound with the variance moving on the log scale."""
    return GreaterThan(lowest, transform=torch.exp, inv_transform=torch.log)


class GaussianEvidence(SiteEvidence):
    """log p(y | η) for y = f(x) + N(0, σ²), several outputs sharing kernel and noise.

    λ = 1/σ², t = y, const = ½ log(λ / 2π).

    Args:
        noise_prior: a GPyTorch prior on σ², in place of the library's weak one.
        residual: see :class:`~bayesinv.evidence.collapsed.SiteEvidence`.
    """

    name = "gaussian"
    likelihood = "gaussian"

    def __init__(self, noise_prior: Prior | None = None, residual: str = "bound"):
        super().__init__(residual)
        self._has_prior = noise_prior is not None
        self.noise_model = GaussianLikelihood(noise_prior=noise_prior, noise_constraint=_above(1e-10)).double()

    @property
    def noise(self) -> Float[Tensor, ""]:
        """σ², the variance of the observation noise."""
        return self.noise_model.noise.reshape(())

    def initialise(self, data: Data) -> float:
        """Offsets at the targets' means with the targets' variance around them, noise at a tenth of that variance."""
        y = data.y.to(torch.float64)
        variance = float(y.var(0, correction=0).mean()) if len(y) > 1 else 1.0
        variance = variance if variance > 0 else 1.0  # constant targets have no scale
        self.mean = y.mean(0)
        self.offset_variance = torch.tensor(variance, dtype=torch.float64, device=y.device)
        self.noise_model.noise_covar.register_constraint("raw_noise", _above(SMALLEST_NOISE_SHARE * variance))
        self.noise_model.noise = 0.1 * variance
        return variance

    def sites(self, data: Data) -> Sites:
        """Exact: the same precision everywhere."""
        y = data.y.to(torch.float64)
        precision = (1.0 / self.noise).expand(len(y), 1)
        constant = 0.5 * y.numel() * (precision[0, 0].log() - math.log(2.0 * math.pi))
        return Sites(precision, y, constant)

    def weighted_gram(self, V: Float[Tensor, "M n"], sites: Sites, data: Data) -> Float[Tensor, "1 M M"]:
        """V Vᵀ / σ², shared by the outputs."""
        return (sites.precision[0, 0] * (V @ V.T))[None]

    def average(self, num_function_samples: int, seed: int) -> Average:
        """Mean and variance in closed form; the arguments have no use here."""
        return GaussianAverage(lambda: self.noise.detach())

    def log_likelihood(self, f: Float[Tensor, "*draws n C"], y: Float[Tensor, "n C"]) -> Float[Tensor, "*draws n"]:
        """Σ_c log N(y_ic | f_ic, σ²)."""
        return torch.distributions.Normal(f, self.noise.sqrt()).log_prob(y.to(f.dtype)).sum(-1)

    def sample_targets(self, f: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """f plus noise."""
        return f + self.noise.detach().sqrt() * torch.randn_like(f)

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """Log density of the noise prior."""
        total = torch.zeros((), dtype=torch.float64, device=self.mean.device)
        for _, module, prior, closure, _ in self.noise_model.named_priors():
            total = total + prior.log_prob(closure(module)).sum()
        return total

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {"type": self.name, "noise_prior": "custom" if self._has_prior else None, "residual": self.residual}
