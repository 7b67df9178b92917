"""The sparse variational bound with the inducing values integrated analytically.

Whatever the likelihood, it is brought to Gaussian form in f, a product of *sites*

    log p(y_i | f_i)  >=  const_i - λ_ic (f_ic - t_ic)² / 2,

exactly (Gaussian noise; Dirichlet targets) or by a bound (Pólya-Gamma). With V = L⁻¹ k_uf, L Lᵀ = k_uu,
A_c = I + V Λ_c Vᵀ, r = t - m and q_i = |V_i|², the collapsed bound is (Titsias, 2009, for equal λ)

    Σ const  -  ½ Σ_c [ log|A_c| + rᵀΛ_c r - rᵀΛ_c Vᵀ A_c⁻¹ V Λ_c r ]  -  ½ Σ_ic λ_ic (k_ff,i - q_i).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bayesinv.backbones.exact import ExactPrior
from bayesinv.backbones.grouped import GroupedPrior
from bayesinv.backbones.invariant import InvariantPrior
from bayesinv.backbones.per_output import PerOutputPrior
from bayesinv.data import Data
from bayesinv.evidence.base import Evidence
from bayesinv.evidence.linear_algebra import cholesky

CollapsedPrior = InvariantPrior | PerOutputPrior | GroupedPrior


def _spanned(prior: CollapsedPrior, x: Float[Tensor, n * event]) -> CollapsedPrior | ExactPrior:
    """The prior; with f(x) for its inducing values where it has none of its own."""
    exact = isinstance(prior, InvariantPrior) and prior.backbone.is_exact
    return ExactPrior(prior, x) if exact else prior  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sites:
    """The likelihood in Gaussian form: precisions λ and targets t (n, C), and the sum of the constants."""

    precision: Float[Tensor, "n C"]
    target: Float[Tensor, "n C"]
    constant: Float[Tensor, ""]


@dataclass(frozen=True)
class Whitened:
    """The prior at the data, in the whitened space of the inducing values.

    Where every output has extents of its own, V and the residual have a leading dimension C.
    """

    L: Float[Tensor, "M M"]  # Cholesky factor of k(Z, Z)
    V: Float[Tensor, "*C M n"]  # L⁻¹ k_uf
    residual: Float[Tensor, "*C n"]  # k_ff - q_ff: variance that the inducing values leave

    @staticmethod
    def of(
        prior: CollapsedPrior | ExactPrior,
        x: Float[Tensor, n * event],
        L: Tensor | None = None,
        groups: Int[Tensor, " n"] | None = None,
    ) -> Whitened:
        """Whiten the statistics of x; pass L to reuse the factor of another set of inputs.

        Where groups of examples have extents of their own, ``groups`` says which is whose.
        """
        if L is None:
            L = cholesky(
                prior.inducing_covariance(),
                "k(Z, Z), the covariance of the inducing points",
                regularise=True,
            )
        if isinstance(prior, GroupedPrior):
            if groups is None:
                raise ValueError("this prior has extents for groups; say which example is of which")
            cross, variance = prior.statistics(x, groups)
        else:
            cross, variance = prior.statistics(x)
        V = torch.linalg.solve_triangular(L, cross.mT, upper=False)
        return Whitened(L, V, variance - (V * V).sum(-2))

    @property
    def per_output(self) -> bool:
        """Whether every output has statistics of its own."""
        return self.V.ndim == 3

    @property
    def residuals(self) -> Float[Tensor, "n G"]:
        """The residual as columns: one for all outputs, or one for each."""
        return self.residual.mT if self.per_output else self.residual[:, None]


@dataclass(frozen=True)
class Solution:
    """The Gaussian posterior of the whitened inducing values under given sites, one per output."""

    LA: Float[Tensor, "G M M"]  # Cholesky factors of A_c; G is 1 when all outputs share it, else C
    c: Float[Tensor, "C M"]  # LA⁻¹ V Λ r

    def mean_and_variance(self, white: Whitened) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """Posterior mean (without the constant mean) and variance of f at the whitened inputs."""
        w = torch.linalg.solve_triangular(self.LA, white.V.expand(len(self.LA), -1, -1), upper=False)  # (G, M, n)
        mean = torch.einsum("cmn,cm->nc", w.expand(len(self.c), -1, -1), self.c)
        variance = white.residuals.clamp_min(0.0) + (w * w).sum(1).T
        return mean, variance.expand(-1, len(self.c))


class CollapsedEvidence(Evidence):
    """The collapsed bound; a subclass says how its likelihood becomes sites."""

    mean: nn.Parameter  # constant mean of each output, (C,)

    @property
    def constant_mean(self) -> Float[Tensor, " C"]:
        """The learned mean of each output."""
        return self.mean

    def prepare_state(self, state: Mapping[str, Tensor]) -> None:
        """Make room for the means."""
        num_outputs = len(state["mean"])
        self.mean = nn.Parameter(torch.zeros(num_outputs, dtype=torch.float64, device=self.mean.device))

    @abstractmethod
    def sites(self, white: Whitened, data: Data) -> Sites:
        """The likelihood in Gaussian form, at its best for this prior."""

    @abstractmethod
    def weighted_gram(self, V: Float[Tensor, "M n"], sites: Sites, data: Data) -> Float[Tensor, "G M M"]:
        """V Λ_c Vᵀ for every output (G = C), or once when the outputs share Λ (G = 1)."""

    def solve(self, white: Whitened, sites: Sites, data: Data) -> Solution:
        """Posterior of the whitened inducing values under the sites."""
        identity = torch.eye(white.V.shape[-2], dtype=white.V.dtype, device=white.V.device)
        weighted = (sites.precision * (sites.target - self.mean)).T  # (C, n)
        if white.per_output:
            gram = (white.V * sites.precision.T[:, None]) @ white.V.mT  # (C, M, M)
        else:
            gram = self.weighted_gram(white.V, sites, data)
        LA = cholesky(identity + gram, "I + VΛVᵀ of the collapsed bound")
        b = white.V @ weighted[..., None]  # (C, M, 1)
        c = torch.linalg.solve_triangular(LA, b, upper=False)[..., 0]  # (C, M)
        return Solution(LA, c)

    def log_evidence(self, prior: CollapsedPrior, data: Data, num_total: int | None = None) -> Float[Tensor, ""]:
        """The collapsed lower bound on log p(D | η); exact when Z spans the orbits of the data.

        Raises:
            ValueError: a minibatch, over which the bound does not split.
        """
        if num_total not in (None, len(data)):
            raise ValueError(
                f"the {self.name} evidence needs all {num_total} examples at once, got {len(data)}; "
                'for minibatches use evidence="stochastic"'
            )
        return self.bound(Whitened.of(_spanned(prior, data.x), data.x, groups=data.groups), data)

    def bound(self, white: Whitened, data: Data) -> Float[Tensor, ""]:
        """The formula at the top of this module."""
        sites = self.sites(white, data)
        solution = self.solve(white, sites, data)
        num_outputs, num_factors = len(solution.c), len(solution.LA)
        log_det = 2.0 * solution.LA.diagonal(dim1=-2, dim2=-1).log().sum() * (num_outputs / num_factors)
        r = sites.target - self.mean
        quadratic = (sites.precision * r * r).sum() - solution.c.square().sum()
        trace = (sites.precision * white.residuals).sum()
        return sites.constant - 0.5 * (log_det + quadratic + trace)

    def function_posterior(
        self,
        prior: CollapsedPrior,
        x: Float[Tensor, n * event],
        data: Data,
        groups: Int[Tensor, " n"] | None = None,
    ) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """Mean and variance of f(x), shapes (n, C); ``groups`` are those of x."""
        spanned = _spanned(prior, data.x)
        white = Whitened.of(spanned, data.x, groups=data.groups)
        solution = self.solve(white, self.sites(white, data), data)
        mean, variance = solution.mean_and_variance(Whitened.of(spanned, x, white.L, groups))
        return self.mean + mean, variance
