"""Evidences with the free function integrated out in closed form, given a Gaussian form of the likelihood.

`CollapsedEvidence` holds what all of them share: the coordinates of the prior (:mod:`bayesinv.evidence.basis`), the
mean of each output, which is integrated out with the function, and predictions from a cached posterior.
`SiteEvidence` is for likelihoods that are Gaussian sites from the start,

    log p(y_i | f_i)  =  const_i - λ_ic (f_ic - t_ic)² / 2.

With V whitened features, A_c = I + V Λ_c Vᵀ and r = t - m the evidence is

    Σ const  -  ½ Σ_c [ log|A_c| + rᵀΛ_c r - rᵀΛ_c Vᵀ A_c⁻¹ V Λ_c r ]  -  ½ Σ_ic log(1 + λ_ic d_i),

exact where V leaves no residual d, as random features and `num_inducing=None` do. With inducing values the last term
makes it a lower bound, tighter than the trace term ½ Σ λ d of Titsias (2009), at the same cost.

Reference:
    M. K. Titsias (2009). Variational learning of inducing variables in sparse Gaussian processes. AISTATS.
    M. K. Titsias (2025). New bounds for sparse variational Gaussian processes. arXiv:2502.08730.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.evidence.algebra import Factor, Posterior
from bayesinv.evidence.base import Evidence
from bayesinv.evidence.basis import Basis, CollapsedPrior, Whitened, basis_of

__all__ = ["CollapsedEvidence", "CollapsedPrior", "Conditioned", "SiteEvidence", "Sites", "Whitened"]

RESIDUALS = ("bound", "fitc")


@dataclass(frozen=True)
class Conditioned:
    """The function given the training data, at one value of extents and hyperparameters; cheap to ask again.

    Attributes:
        basis: coordinates of the prior; reads the kernel's hyperparameters when asked.
        posterior: of the coordinates.
        mean: the fixed offset of each output.
        offset_variance: of the unknown one.
        uncertain: whether variances are reported; False for a predictor at the mode of the function, which has none.
    """

    basis: Basis
    posterior: Posterior
    mean: Float[Tensor, " C"]
    offset_variance: Float[Tensor, ""]
    uncertain: bool = True

    def moments(
        self, x: Float[Tensor, n * event], groups: Int[Tensor, " n"] | None = None
    ) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """Mean and variance of f at inputs."""
        white = self.basis.at(x, groups).with_offset(self.offset_variance)
        mean = self.mean + self.posterior.means(white.V)
        if not self.uncertain:
            return mean, torch.zeros_like(mean)
        return mean, (white.residuals + self.posterior.variances(white.V)).expand(mean.shape)


class CollapsedEvidence(Evidence, ABC):
    """What the evidences of Gaussian processes on all data at once share; subclasses say how y enters."""

    mean: Tensor
    offset_variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("offset_variance", torch.zeros((), dtype=torch.float64))

    @property
    def constant_mean(self) -> Float[Tensor, " C"]:
        """The fixed offset of each output, around which the unknown one has variance ``offset_variance``."""
        return self.mean

    def prepare_state(self, state: Mapping[str, Tensor]) -> None:
        """Make room for the means."""
        self.mean = torch.zeros(len(state["mean"]), dtype=torch.float64, device=self.mean.device)

    def whitened(self, prior: CollapsedPrior, data: Data) -> tuple[Basis, Whitened]:
        """Coordinates of the prior, and V at the training inputs with the offset in it."""
        basis = basis_of(prior, data.x)
        return basis, basis.at(data.x, data.groups).with_offset(self.offset_variance)

    def log_evidence(self, prior: CollapsedPrior, data: Data, num_total: int | None = None) -> Float[Tensor, ""]:
        """log p(D | η), with the means of the outputs integrated out too.

        Raises:
            ValueError: a minibatch, over which it does not split.
        """
        if num_total not in (None, len(data)):
            raise ValueError(
                f"the {self.name} evidence needs all {num_total} examples at once, got {len(data)}; "
                'for minibatches use evidence="stochastic"'
            )
        return self.bound(self.whitened(prior, data)[1], data)

    @abstractmethod
    def bound(self, white: Whitened, data: Data) -> Float[Tensor, ""]:
        """log p(D | η) from the whitened features of the training inputs."""

    @abstractmethod
    def solve(self, white: Whitened, data: Data, near: Posterior | None = None) -> Posterior:
        """The posterior of the coordinates, for predictions; ``near`` is one at similar extents, to start from."""

    @property
    def is_lower_bound(self) -> bool:
        """Whether inducing values give a lower bound on the evidence, which more of them only raise."""
        return False

    @property
    def predicts_mode(self) -> bool:
        """Whether predictions take the function at its mode instead of averaging over it."""
        return False

    def condition(self, prior: CollapsedPrior, data: Data, near: Conditioned | None = None) -> Conditioned:
        """The function given the data, to be asked for its moments as often as one likes.

        Args:
            prior: at one value of the extents.
            data: the training data.
            near: the same at similar extents, from which an iteration starts; saves time and changes nothing else.
        """
        basis, white = self.whitened(prior, data)
        posterior = self.solve(white, data, None if near is None else near.posterior)
        return Conditioned(basis, posterior, self.mean, self.offset_variance, not self.predicts_mode)

    def function_posterior(
        self,
        prior: CollapsedPrior,
        x: Float[Tensor, n * event],
        data: Data,
        groups: Int[Tensor, " n"] | None = None,
    ) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """Mean and variance of f(x), shapes (n, C); ``groups`` are those of x."""
        return self.condition(prior, data).moments(x, groups)


@dataclass(frozen=True)
class Sites:
    """The likelihood in Gaussian form: precisions λ, targets t (n, C), and the sum of the constants.

    λ has one column where the outputs share it, else one for each.
    """

    precision: Float[Tensor, "n G"]
    target: Float[Tensor, "n C"]
    constant: Float[Tensor, ""]


class SiteEvidence(CollapsedEvidence):
    """A likelihood that is Gaussian in f; a subclass gives its sites.

    Args:
        residual: what becomes of the variance d that inducing values leave: "bound" (a lower bound on the evidence),
            or "fitc" (as noise of each input on its own; Snelson and Ghahramani, 2006, which is no bound).

    Raises:
        ValueError: neither of these.
    """

    def __init__(self, residual: str = "bound"):
        super().__init__()
        if residual not in RESIDUALS:
            raise ValueError(f"residual: expected one of {list(RESIDUALS)}, got {residual!r}")
        self.residual = residual

    @property
    def is_lower_bound(self) -> bool:
        """With residual="bound"."""
        return self.residual == "bound"

    @abstractmethod
    def sites(self, data: Data) -> Sites:
        """The likelihood in Gaussian form."""

    def weighted_gram(self, V: Float[Tensor, "M n"], sites: Sites, data: Data) -> Float[Tensor, "G M M"] | None:
        """V Λ_c Vᵀ of every set of precisions, where there is a cheaper way to it than a product for each."""
        return None

    def _factor(self, white: Whitened, data: Data) -> tuple[Factor, Sites, Float[Tensor, "n G"]]:
        """The factor, the sites that it is of, and log(1 + λd)."""
        sites = self.sites(data)
        log_loss = torch.log1p(sites.precision * white.residuals)  # (n, G)
        if self.residual == "fitc":
            precision = sites.precision * torch.exp(-log_loss)
            sites = Sites(precision, sites.target, sites.constant)
        own_gram = white.per_output or self.residual == "fitc" or white.V.shape[-2] >= white.V.shape[-1]
        gram = None if own_gram else self.weighted_gram(white.V, sites, data)
        return Factor.of(white.V, sites.precision, gram, white.K), sites, log_loss

    def bound(self, white: Whitened, data: Data) -> Float[Tensor, ""]:
        """The formula at the top of this module."""
        factor, sites, log_loss = self._factor(white, data)
        r = sites.target - self.mean
        b = sites.precision * r
        C = r.shape[1]
        log_det = factor.log_det.sum() * (C / len(factor.log_det))
        quadratic = (b * (r - factor.means(b))).sum()
        loss = log_loss.sum() * (C / log_loss.shape[1])
        return sites.constant - 0.5 * (log_det + quadratic + loss)

    def solve(self, white: Whitened, data: Data, near: Posterior | None = None) -> Posterior:
        """The posterior of the coordinates under the sites; in closed form, so that ``near`` is of no use."""
        factor, sites, _ = self._factor(white, data)
        return factor.posterior(sites.precision * (sites.target - self.mean))
