"""f = E_t T'_t⁻¹ h_θ(T_t x): a network seen through its orbit at one value of the extents."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.backbones.network import NeuralNetwork
from bayesinv.orbits.averages import average_log_probs, weighted_mean
from bayesinv.orbits.groups import GroupedOrbit
from bayesinv.orbits.orbit import Orbit
from bayesinv.orbits.structure import PerOutputOrbit, by_output
from bayesinv.transforms.actions import OutputAction, undo

AVERAGES = ("function", "probabilities", "log_likelihood")


def moved_back(
    action: OutputAction | None,
    outputs: Float[Tensor, "S n *out"],
    t: Float[Tensor, S * each] | None,
    weights: Float[Tensor, S * some] | None = None,
) -> tuple[Float[Tensor, "S n *cells C"], Float[Tensor, S * some] | None]:
    """T'_t⁻¹ h(T_t x) with the channels in the last axis, and the weight of every copy (in every cell of an output).

    A cell that some copies have left is averaged over the others: with m_s the share of it that copy s covers,

        f(p) = Σ_s w_s m_s(p) o_s(p) / Σ_s w_s m_s(p),

    so that nothing is extrapolated and borders do not fade. Where no copy is left the outputs are zero: for classes,
    all alike.

    Args:
        action: T'; None if outputs stay.
        outputs: h(T_t x), (S, n, C) or maps (S, n, C, *cells).
        t: (S, columns) or (S, n, columns); None for inputs as they are.
        weights: of the copies, (S,) or (S, n), or without T' of a copy for each output, (S, 1, C); equal if None.
    """
    coverage = None
    if action is not None and t is not None:
        outputs, coverage = undo(action, outputs, t)
    values = outputs.movedim(2, -1)
    if coverage is None:
        return values, weights
    shares = coverage if weights is None else _weighed(coverage, weights)
    total = shares.sum(0)
    return values, torch.where(total > 0, shares / torch.where(total > 0, total, 1.0), 1.0 / len(shares))


def _weighed(coverage: Float[Tensor, "S shared *cells"], weights: Float[Tensor, S * some]) -> Tensor:
    return coverage * weights.to(coverage).reshape(*weights.shape, *[1] * (coverage.ndim - weights.ndim))


def average_copies(
    outputs: Float[Tensor, "S n *cells C"],
    average: str,
    likelihood: str,
    weights: Float[Tensor, S * some] | None = None,
) -> Float[Tensor, "n *cells C"]:
    """The function f whose likelihood is the average over the copies of an input.

    "function": mean_s h_s. For classes also "probabilities": log mean_s softmax h_s, and "log_likelihood":
    mean_s log softmax h_s; for real targets the mean of those mixtures is mean_s h_s again. The means are weighted
    where there are weights. A Bernoulli's single output is a logit, and so is its average.
    """
    if average == "function" or likelihood == "gaussian":
        return weighted_mean(outputs, weights)
    if likelihood == "bernoulli" and average == "log_likelihood":
        return weighted_mean(outputs, weights)  # the normalised mean of log probabilities has the mean logit
    log_probs = class_log_probs(outputs, likelihood)
    if average == "log_likelihood":
        return weighted_mean(log_probs, weights)
    log_probs = average_log_probs(log_probs, weights)
    return log_probs[..., 1:] - log_probs[..., :1] if likelihood == "bernoulli" else log_probs


def class_log_probs(f: Float[Tensor, "*batch C"], likelihood: str) -> Float[Tensor, "*batch classes"]:
    """log softmax f; of a Bernoulli's single logit the log probabilities of 0 and 1."""
    if likelihood == "bernoulli":
        return torch.cat([torch.nn.functional.logsigmoid(-f), torch.nn.functional.logsigmoid(f)], -1)
    return f.log_softmax(-1)


class InvariantNetwork:
    """A network seen through its orbit at one value of the extents.

    Args:
        backbone: the network.
        orbit: T and the base draws; one for each output takes the average "function" and single outputs, not maps; one
            for each group of the examples sees nothing before :meth:`of_groups`.
        eta: extents, shape (K,), internal units.
        average: what is averaged over the copies; see :func:`average_copies`.
        memory_budget: bytes that one block of copies may take, with what autograd keeps of it.
        identity: True when every extent is fixed to zero; the orbit is then the input itself, once.
        base: base draws in place of the orbit's own.
        action: how outputs move with the inputs; None if they stay.
    """

    def __init__(
        self,
        backbone: NeuralNetwork,
        orbit: Orbit | PerOutputOrbit | GroupedOrbit,
        eta: Float[Tensor, " K"],
        average: str = "function",
        memory_budget: int = 2**30,
        identity: bool = False,
        base: Float[Tensor, "S columns"] | None = None,
        action: OutputAction | None = None,
    ):
        self.action = action
        self.backbone, self.orbit, self.eta, self.average = backbone, orbit, eta, average
        self.memory_budget, self.identity, self.base = memory_budget, identity, base

    def points(self, x: Float[Tensor, n * event]) -> Float[Tensor, "S n *event"]:
        """The sampled orbits T_s x of every input."""
        x = x.to(self.backbone.dtype)
        if self.identity:
            return x[None]
        return self.orbit(x, self.eta.to(x.device, non_blocking=True), self.base)

    def weights(self) -> Float[Tensor, S * some] | None:
        """Of the points of an orbit; None if they count alike."""
        return None if self.identity else self.orbit.weights(self.eta)

    def outputs(
        self, x: Float[Tensor, n * event], weights: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "S n *out"]:
        """h_θ(T_s x), with some weights replaced if given; (S, n, C), or maps (S, n, C, *cells)."""
        points = self.points(x)
        flat = self.backbone.functional_in_parts(weights or {}, points.flatten(0, 1), self.memory_budget)
        return flat.unflatten(0, points.shape[:2])

    def evaluated(self) -> InvariantNetwork:
        """The same through the network in evaluation mode; see :meth:`NeuralNetwork.evaluated`."""
        seen = copy.copy(self)
        seen.backbone = self.backbone.evaluated()
        return seen

    def of_output(self, output: int) -> InvariantNetwork:
        """The same network through the orbit of a single output, where each has its own.

        Raises:
            TypeError: the outputs share one orbit.
        """
        if not isinstance(self.orbit, PerOutputOrbit):
            raise TypeError("of_output: the outputs of this network share one orbit")
        eta = by_output(self.orbit.structure, self.eta)[output]
        inner = self.orbit.inner
        return InvariantNetwork(self.backbone, inner, eta, self.average, self.memory_budget, self.identity, self.base)

    def of_groups(self, groups: Any) -> InvariantNetwork:
        """The same network on examples of these groups, where each group has an orbit of its own; else itself.

        Args:
            groups: (n,) numbers.

        Raises:
            DataError: groups that are not there, or none where they are needed.
        """
        if self.identity or not isinstance(self.orbit, GroupedOrbit):
            return self
        seen = copy.copy(self)
        seen.orbit = self.orbit.of(groups)
        return seen

    def copies(self, device: torch.device) -> dict[str, Tensor]:
        """What an average over the copies needs to know of them: ``t`` where outputs are moved back, (S, columns), and
        ``weights`` where these differ, (S, ...); with groups, (S, n, columns) and (S, n).
        """
        known = {}
        if self.action is not None and not self.identity:
            known["t"] = self.orbit.coordinates(self.eta.to(device, non_blocking=True), self.base)
        weights = self.weights()
        if weights is not None:
            known["weights"] = weights
        return known

    def moved_back(
        self, outputs: Float[Tensor, "S n *out"], copies: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "S n *cells C"], Float[Tensor, S * some] | None]:
        """What is averaged, in the unit of the targets, and its weights; see :func:`moved_back`.

        ``copies`` are those of other examples.
        """
        copies = self.copies(outputs.device) if copies is None else copies
        values, weights = moved_back(self.action, outputs, copies.get("t"), copies.get("weights"))
        return self.backbone.in_unit(values), weights

    @torch.no_grad()
    def in_blocks(
        self,
        x: Float[Tensor, n * event],
        reduce: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]],
        groups: Int[Tensor, " n"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Two statistics (n, ...) of the copies' outputs and their weights, without gradients and for any n.

        Layers draw and update no statistics of their own. ``groups`` are those of x.
        """
        size = self._block_size(x)
        blocks = x.split(size)
        whose = [None] * len(blocks) if groups is None else groups.split(size)
        net = self.backbone.net
        training = {module: module.training for module in net.modules()}
        net.eval()
        try:
            parts = []
            for block, own in zip(blocks, whose, strict=True):
                seen = self.of_groups(own)
                parts.append(reduce(*seen.moved_back(seen.outputs(block))))
            return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        finally:
            for module, flag in training.items():
                module.training = flag

    def _block_size(self, x: Tensor) -> int:
        S = 1 if self.identity else self.orbit.num_copies
        return max(1, min(4096, self.backbone.points_within(self.memory_budget, x) // S))
