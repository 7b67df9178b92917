"""f = E_t h_θ(T_t x): a network seen through its orbit at one value of the extents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.orbits import Orbit, average_log_probs, weighted_mean

if TYPE_CHECKING:
    from bayesinv.backbones.network import NeuralNetwork

AVERAGES = ("function", "probabilities", "log_likelihood")


def average_copies(
    outputs: Float[Tensor, "S n C"], average: str, likelihood: str, weights: Float[Tensor, " S"] | None = None
) -> Float[Tensor, "n C"]:
    """The function f whose likelihood is the average over the copies of an input.

    "function": mean_s h_s. For classes also "probabilities": log mean_s softmax h_s, and "log_likelihood":
    mean_s log softmax h_s; for real targets the mean of those mixtures is mean_s h_s again. The means are weighted
    where there are weights.
    """
    if average == "function" or likelihood == "gaussian":
        return weighted_mean(outputs, weights)
    log_probs = outputs.log_softmax(-1)
    return weighted_mean(log_probs, weights) if average == "log_likelihood" else average_log_probs(log_probs, weights)


class InvariantNetwork:
    """A network seen through its orbit at one value of the extents.

    Args:
        backbone: the network.
        orbit: T and the base draws.
        eta: extents, shape (K,), internal units.
        average: what is averaged over the copies; see :func:`average_copies`.
        memory_budget: bytes that one block of copies may take where no gradient is asked for.
        identity: True when every extent is fixed to zero; the orbit is then the input itself, once.
        base: base draws in place of the orbit's own.
    """

    def __init__(
        self,
        backbone: NeuralNetwork,
        orbit: Orbit,
        eta: Float[Tensor, " K"],
        average: str = "function",
        memory_budget: int = 2**30,
        identity: bool = False,
        base: Float[Tensor, "S K"] | None = None,
    ):
        self.backbone, self.orbit, self.eta, self.average = backbone, orbit, eta, average
        self.memory_budget, self.identity, self.base = memory_budget, identity, base

    def points(self, x: Float[Tensor, n * event]) -> Float[Tensor, "S n *event"]:
        """The sampled orbits T_s x of every input."""
        x = x.to(self.backbone.dtype)
        if self.identity:
            return x[None]
        return self.orbit(x, self.eta.to(x.device), self.base)

    def weights(self) -> Float[Tensor, " S"] | None:
        """Of the points of an orbit; None if they count alike."""
        return None if self.identity else self.orbit.weights(self.eta)

    def outputs(
        self, x: Float[Tensor, n * event], weights: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "S n C"]:
        """h_θ(T_s x), with some weights replaced if given."""
        points = self.points(x)
        flat = self.backbone.functional(weights or {}, points.flatten(0, 1))
        return flat.unflatten(0, points.shape[:2])

    @torch.no_grad()
    def outputs_in_blocks(self, x: Float[Tensor, n * event]) -> Float[Tensor, "S n C"]:
        """The same without gradients, for any n; layers draw and update no statistics."""
        net = self.backbone.net
        training = {module: module.training for module in net.modules()}
        net.eval()
        try:
            return torch.cat([self.outputs(block) for block in x.split(self._block_size(x))], dim=1)
        finally:
            for module, flag in training.items():
                module.training = flag

    def _block_size(self, x: Tensor) -> int:
        # A block holds its copies, and the activations of a network: for small convolutional networks about
        # thirty times their input.
        S = 1 if self.identity else self.orbit.num_copies
        return max(1, min(4096, self.memory_budget // (32 * S * x[0].numel() * x.element_size())))
