"""f = E_t h(T_t x): the prior over invariant functions that a backbone and an orbit make together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bayesinv.backbones.gp import GaussianProcess
from bayesinv.orbits.orbit import Orbit

KEPT_PARTS = 7  # of eight parts of the memory, for what is kept; the eighth is for what is computed again


class InvariantPrior:
    """The Gaussian-process prior over orbit averages at one value of the extents.

    Works through the inputs in blocks whose orbits and kernels fit in ``memory_budget``; with gradients on, blocks
    that do not fit together are recomputed in the backward pass instead of being kept.

    Args:
        backbone: the prior over h.
        orbit: T and the base draws.
        eta: extents, shape (K,), internal units.
        dtype: of the orbit and its kernel, unless the backbone needs float64; the algebra after it is float64.
        memory_budget: bytes for orbit and kernel of one block.
        identity: True when every extent is fixed to zero; the orbit is then the input itself, once.
    """

    def __init__(
        self,
        backbone: GaussianProcess,
        orbit: Orbit,
        eta: Float[Tensor, " K"],
        dtype: torch.dtype = torch.float64,
        memory_budget: int = 2**30,
        identity: bool = False,
    ):
        self.backbone, self.orbit, self.eta = backbone, orbit, eta
        self.dtype, self.memory_budget, self.identity = backbone.orbit_dtype(dtype), memory_budget, identity

    def points(self, x: Float[Tensor, n * event]) -> Float[Tensor, "S n *event"]:
        """The sampled orbits T_s x of every input."""
        x = x.to(self.dtype)
        if self.identity:
            return x[None]
        return self.orbit(x, self.eta.to(x.device))

    def weights(self) -> Float[Tensor, " S"] | None:
        """Of the points of an orbit; None if they count alike."""
        return None if self.identity else self.orbit.weights(self.eta)

    def inducing_covariance(self) -> Float[Tensor, "M M"]:
        """k(Z, Z)."""
        return self.backbone.prior_covariance()

    def statistics(self, x: Float[Tensor, n * event]) -> tuple[Float[Tensor, "n M"], Float[Tensor, " n"]]:
        """k_fu and k_ff of every input, float64."""
        cross, variance = zip(*self._by_blocks(self._block_statistics, x), strict=True)
        return torch.cat(cross), torch.cat(variance)

    def features(self, x: Float[Tensor, n * event]) -> Float[Tensor, "n D"]:
        """φ̄(x), float64: f(x) = φ̄(x)ᵀw, w ~ N(0, I); only of a backbone in feature space."""
        return torch.cat(self._by_blocks(self._block_features, x))

    def covariance(self, x: Float[Tensor, n * event]) -> Float[Tensor, "n n"]:
        """The dense k_ff(x, x') of the model that is fitted, float64: of the features, where there are some.

        Otherwise n²S² kernel values, for small n only.
        """
        if self.backbone.space == "features":
            phi = self.features(x)
            return phi @ phi.T
        points = self.backbone.embed(self.points(x))
        return self.backbone.covariance(points, points, weights=self.weights())

    def _by_blocks(self, compute: Callable[[Tensor], Any], x: Tensor) -> list[Any]:
        """What ``compute`` gives for each block of inputs; what memory does not hold is computed again backwards."""
        most = self._block_size(x)
        if len(x) <= most or not torch.is_grad_enabled():
            return [compute(block) for block in x.split(most)]
        size = max(1, most // (KEPT_PARTS + 1))
        kept = min(KEPT_PARTS, most - 1)
        return [
            compute(block)
            if number < kept
            else checkpoint(compute, block, use_reentrant=False, preserve_rng_state=False)
            for number, block in enumerate(x.split(size))
        ]

    def _block_features(self, x: Tensor) -> Tensor:
        return self.backbone.fourier(self.backbone.embed(self.points(x)), self.weights())

    def _block_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        points = self.backbone.embed(self.points(x))
        weights = self.weights()
        return self.backbone.cross(points, weights), self.backbone.variance(points, weights)

    def _block_size(self, x: Tensor) -> int:
        S = 1 if self.identity else self.orbit.num_copies
        return max(1, self.memory_budget // self.backbone.bytes_per_input(S, x[0].numel(), self.dtype))
