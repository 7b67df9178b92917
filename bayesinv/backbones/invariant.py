"""f = E_t h(T_t x): the prior over invariant functions that a backbone and an orbit make together."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bayesinv.backbones.gp import GaussianProcess
from bayesinv.orbits import Orbit


class InvariantPrior:
    """The Gaussian-process prior over orbit averages at one value of the extents.

    Works through the inputs in blocks whose orbits and kernels fit in ``memory_budget``; with more than
    one block and gradients on, a block is recomputed in the backward pass instead of being kept.

    Args:
        backbone: the prior over h.
        orbit: T and the base draws.
        eta: extents, shape (K,), internal units.
        dtype: of the orbit and its kernel; the algebra after it is float64.
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
        self.dtype, self.memory_budget, self.identity = dtype, memory_budget, identity

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
        blocks = x.split(self._block_size(x))
        keep = len(blocks) == 1 or not torch.is_grad_enabled()
        parts = [
            self._block_statistics(block)
            if keep
            else checkpoint(self._block_statistics, block, use_reentrant=False, preserve_rng_state=False)
            for block in blocks
        ]
        cross, variance = zip(*parts, strict=True)
        return torch.cat(cross), torch.cat(variance)

    def covariance(self, x: Float[Tensor, n * event]) -> Float[Tensor, "n n"]:
        """The dense k_ff(x, x'), float64; n²S² kernel values, for small n only."""
        points = self.backbone.embed(self.points(x))
        return self.backbone.covariance(points, points, weights=self.weights())

    def _block_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        points = self.backbone.embed(self.points(x))
        weights = self.weights()
        return self.backbone.cross(points, weights), self.backbone.variance(points, weights)

    def _block_size(self, x: Tensor) -> int:
        S = 1 if self.identity else self.orbit.num_copies
        return max(1, self.memory_budget // self.backbone.bytes_per_input(S, x[0].numel(), self.dtype))
