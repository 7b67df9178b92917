"""The Gaussian evidence from sums over examples, which may lie on any number of machines."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.evidence.algebra import PrimalPosterior
from bayesinv.evidence.linear_algebra import cholesky

__all__ = ["FeatureStatistics"]


@dataclass(frozen=True)
class FeatureStatistics:
    """What the evidence of Gaussian targets needs of n examples with M whitened features V_i and targets r_i.

        G = Σ_i V_i V_iᵀ,   b = Σ_i V_i r_iᵀ,   s = Σ_i |r_i|²,   n;

        log p(y | η) = -½ [ nC log 2πσ² + C log|A| + s/σ² - tr(bᵀ A⁻¹ b)/σ⁴ ],   A = I + G/σ².

    Statistics of parts add up to those of the whole; their size is that of M and not of n.

    Attributes:
        gram: G, (M, M), float64.
        cross: b, (M, C).
        square: s.
        count: n.

    Example:
        >>> V, r = torch.rand(2, 5).double(), torch.rand(5, 1).double()
        >>> whole = FeatureStatistics.of(V, r).log_evidence(torch.tensor(0.1).double())
        >>> parts = FeatureStatistics.of(V[:, :3], r[:3]) + FeatureStatistics.of(V[:, 3:], r[3:])
        >>> torch.allclose(whole, parts.log_evidence(torch.tensor(0.1).double()))
        True
    """

    gram: Float[Tensor, "M M"]
    cross: Float[Tensor, "M C"]
    square: Float[Tensor, ""]
    count: Float[Tensor, ""]

    @classmethod
    def of(cls, V: Float[Tensor, "M n"], r: Float[Tensor, "n C"]) -> FeatureStatistics:
        """Those of some examples, differentiable in both arguments."""
        return cls(V @ V.T, V @ r, r.square().sum(), r.new_tensor(float(len(r))))

    def __add__(self, other: FeatureStatistics) -> FeatureStatistics:
        return FeatureStatistics(*(a + b for a, b in zip(self.tensors(), other.tensors(), strict=True)))

    def tensors(self) -> list[Tensor]:
        """G, b, s and n."""
        return [getattr(self, field.name) for field in fields(self)]

    def log_evidence(self, noise: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """log p(y | η) at a noise variance σ², nats.

        Raises:
            NumericalError: A has no Cholesky factor.
        """
        C, L = self.cross.shape[1], self._factor(noise)
        w = torch.linalg.solve_triangular(L, self.cross, upper=False) / noise
        log_det = 2.0 * L.diagonal().log().sum()
        fit = self.square / noise - w.square().sum()
        return -0.5 * (self.count * C * (math.log(2.0 * math.pi) + noise.log()) + C * log_det + fit)

    def posterior(self, noise: Float[Tensor, ""]) -> PrimalPosterior:
        """That of the coefficients, N(A⁻¹ b/σ², A⁻¹) for every output."""
        L = self._factor(noise)
        return PrimalPosterior(L[None], torch.cholesky_solve(self.cross, L)[None] / noise)

    def _factor(self, noise: Float[Tensor, ""]) -> Float[Tensor, "M M"]:
        return cholesky(torch.eye(len(self.gram)).to(self.gram) + self.gram / noise, "I + G/σ²")
