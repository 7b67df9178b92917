"""f_c = E_{t ~ p(t | η_c)} h_c(T_t x): a prior over functions whose outputs have orbits of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones.gp import GaussianProcess
from bayesinv.backbones.invariant import InvariantPrior


class PerOutputPrior:
    """One :class:`InvariantPrior` for each output, with kernel and inducing inputs in common.

    The outputs of a collapsed evidence are independent given the kernel, each with its own Gaussian factor; extents of
    their own give them k_fu and k_ff of their own too, at C times the cost of one orbit.

    Args:
        priors: one for each output, in order.
    """

    def __init__(self, priors: Sequence[InvariantPrior]):
        self.priors = tuple(priors)

    @property
    def backbone(self) -> GaussianProcess:
        """The process that all outputs share."""
        return self.priors[0].backbone

    def features(self, x: Float[Tensor, n * event]) -> Float[Tensor, "C n D"]:
        """φ̄_c(x) of every output, float64; only of a backbone in feature space."""
        return torch.stack([prior.features(x) for prior in self.priors])

    def inducing_covariance(self) -> Float[Tensor, "M M"]:
        """k(Z, Z), of every output."""
        return self.priors[0].inducing_covariance()

    def statistics(self, x: Float[Tensor, n * event]) -> tuple[Float[Tensor, "C n M"], Float[Tensor, "C n"]]:
        """k_fu and k_ff of every output and input, float64."""
        cross, variance = zip(*(prior.statistics(x) for prior in self.priors), strict=True)
        return torch.stack(cross), torch.stack(variance)

    def covariance(self, x: Float[Tensor, n * event]) -> Float[Tensor, "C n n"]:
        """The dense k_ff(x, x') of every output, for small n only."""
        return torch.stack([prior.covariance(x) for prior in self.priors])
