"""The Gram matrices of :mod:`bayesinv.backbones.per_example` in bounded memory.

K = Σ_w σ_w² J_w J_wᵀ needs the gradients J of all examples at once, but not of all weights, and the activations of no
more than a few examples: the columns of J are taken group after group, and the rows of a group block after block. For
the gradient dL/dK = G the columns are computed again, V = dL/dJ = σ² (G + Gᵀ) J follows from them, and Σ <J, V> is
differentiated block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones.memory import in_parts
from bayesinv.backbones.per_example import (
    Average,
    Rows,
    _gradients,
    checked_rows,
    dense_gram,
    example_gram,
    outputs_of,
    with_others,
)
from bayesinv.backbones.recorded_layers import Product, self_product
from bayesinv.numerics.processes import Processes, gathered, shared_by
from bayesinv.orbits.groups import GroupedOrbit

if TYPE_CHECKING:
    from bayesinv.backbones.invariant_network import InvariantNetwork

# Derivatives of gradients keep about so many times what a pass of the network keeps.
SECOND_ORDER = 5
MOST_PASSES = 4

Group = list[tuple[str, int, int]]  # weights, and the first and the last of their numbers


def gram_within(
    prior: InvariantNetwork,
    weights: Mapping[str, Tensor],
    points: Float[Tensor, "S m *event"],
    rows: Rows,
    average: Callable[[Tensor, Mapping[str, Tensor]], Tensor],
    joint: bool = False,
    num_rows: int = 1,
) -> tuple[Float[Tensor, "m C"], Float[Tensor, "*R rows rows"]]:
    """The averaged outputs and K, at once or in parts, whichever the memory budget of the network asks for.

    Args:
        prior: the network seen through its orbit.
        weights: the weight tensors that the Gram matrix runs over, by name; constants.
        points: copies of every example.
        rows: from f (m, C) to A (R, m, C), called once.
        average: from outputs (S, m, C) and ``prior.copies`` to f.
        joint: one matrix over all R·m scalars, row by row, or one for each of R.
        num_rows: R.
    """
    network, copies = prior.backbone, prior.copies(points.device)
    by_example = isinstance(prior.orbit, GroupedOrbit)
    scales = network.prior_scales()
    each_point = network.bytes_per_point(points.flatten(0, 1))
    S, m = points.shape[:2]
    num_weights, size = sum(w.numel() for w in weights.values()), points.element_size()
    if bytes_at_once(S * m, num_rows * m, num_weights, each_point, size) <= prior.memory_budget:
        compute = dense_gram if joint else example_gram
        if by_example:
            return compute(network.net, weights, scales, points, rows, average, copies)
        return compute(network.net, weights, scales, points, rows, lambda outputs: average(outputs, copies))
    group = shared_by(m)
    own = slice(0, m) if group is None else group.part(m)
    mine = points[:, own]
    with torch.autocast(points.device.type, enabled=False):
        flat = in_parts(
            lambda part: outputs_of(network.net, weights, part[None])[0],
            mine.flatten(0, 1),
            network.points_within(prior.memory_budget, mine.flatten(0, 1)),
        )
    known = {name: value[:, own] for name, value in copies.items()} if by_example else copies
    f = average(flat.unflatten(0, mine.shape[:2]), known)
    seen = f if group is None else with_others(f, m, group)
    A = checked_rows(rows(seen), seen)
    job = GramInParts(network.net, weights, average, by_example, joint, prior.memory_budget, each_point, group)
    return f if group is None else gathered(f, m, 0, group), job(points, A, scales, copies)


def bytes_at_once(num_points: int, num_rows: int, num_weights: int, bytes_per_point: int, item: int) -> int:
    """What K takes at once: the activations of all points, and J with its gradient and its square."""
    return SECOND_ORDER * num_points * bytes_per_point + 3 * num_rows * num_weights * item


def num_passes(num_rows: int, num_weights: int, item: int, memory_budget: int) -> int:
    """Groups of columns, each with its own passes of the network: J and its gradient take half of the budget.

    No more than ``MOST_PASSES``, past which memory is cheaper than time: a network of eleven million weights and 128
    examples would otherwise take 22 groups under a budget of 1 GiB.
    """
    return max(1, min(MOST_PASSES, -(-4 * item * num_rows * num_weights // memory_budget)))


@dataclass(frozen=True)
class GramInParts:
    """How to compute K.

    Args:
        net: maps (n, *event) to (n, C), example by example.
        weights: the weight tensors that the Gram matrix runs over, by name.
        average: from the copies' outputs and what it knows of the copies to (m, C).
        by_example: whether what it knows has an entry for each example, in its second axis.
        joint: one matrix over all rows, or one for each.
        memory_budget: bytes.
        bytes_per_point: what autograd keeps of one point.
        group: processes that share the work: each computes the columns of its own examples, and gets those of others.
            The gradient in the own ones is then as many times as large as there are processes, and that in all others
            zero, so that the mean over processes is right.
    """

    net: nn.Module
    weights: Mapping[str, Tensor]
    average: Average
    by_example: bool
    joint: bool
    memory_budget: int
    bytes_per_point: int
    group: Processes | None = None

    def own(self, points: Tensor) -> slice:
        """The examples whose columns this process computes."""
        m = points.shape[1]
        return slice(0, m) if self.group is None else self.group.part(m)

    def __call__(
        self,
        points: Float[Tensor, "S m *event"],
        A: Float[Tensor, "R m C"],
        scales: Mapping[str, Tensor],
        copies: Mapping[str, Tensor],
    ) -> Float[Tensor, "*R rows rows"]:
        """K, differentiable in all arguments."""
        names = list(copies)
        values = [copies[name] for name in names]
        return _Gram.apply(self, names, points, A, *(scales[name] for name in self.weights), *values)

    def groups(self, points: Tensor, A: Tensor, copies: Mapping[str, Tensor]) -> list[Group]:
        """Columns whose share of J fits into memory; see :func:`num_passes`."""
        total = sum(w.numel() for w in self.weights.values())
        room = -(-total // num_passes(A.shape[0] * A.shape[1], total, points.element_size(), self.memory_budget))
        with torch.no_grad():
            first = self.own(points).start
            block = slice(first, first + 1)
            found = self._gradients(points[:, block], A[:, block], self._of(copies, block), list(self.weights))
        groups: list[list[tuple[str, int, int]]] = [[]]
        left = room
        for name, J in found.items():
            if isinstance(J, Product):  # never multiplied out: small
                groups[-1].append((name, 0, -1))
                continue
            begin, total = 0, self.weights[name].numel()
            while begin < total:
                if left == 0:
                    groups.append([])
                    left = room
                end = min(total, begin + left)
                groups[-1].append((name, begin, end))
                left -= end - begin
                begin = end
        return groups

    def blocks(self, points: Tensor) -> Iterator[slice]:
        """Own examples whose activations fit into the other half of the budget."""
        first, last = self.own(points).start, self.own(points).stop
        size = max(1, self.memory_budget // (2 * SECOND_ORDER * points.shape[0] * max(1, self.bytes_per_point)))
        return (slice(start, min(last, start + size)) for start in range(first, last, size))

    def columns(self, points: Tensor, A: Tensor, copies: Mapping[str, Tensor], group: Group) -> list[Tensor]:
        """J of these weights, (R, m, numbers), or its two factors (S, m, inputs) and (R, S, m, outputs)."""
        names = list(dict.fromkeys(name for name, _, _ in group))
        found = self._gradients(points, A, copies, names)
        parts: list[Tensor] = []
        for name, begin, end in group:
            J = found[name]
            parts += [J.a, J.b] if isinstance(J, Product) else [J.reshape(*J.shape[:2], -1)[..., begin:end]]
        return parts

    def of_all(self, points: Tensor, A: Tensor, copies: Mapping[str, Tensor], group: Group) -> list[Tensor]:
        """The same of all examples, block by block."""
        whole: list[Tensor] = []
        for block in self.blocks(points):
            parts = self.columns(points[:, block], A[:, block], self._of(copies, block), group)
            if not whole:
                whole = [part.new_empty(*part.shape[:-2], points.shape[1], part.shape[-1]) for part in parts]
            for total, part in zip(whole, parts, strict=True):
                total[..., block, :] = part
        if self.group is None:
            return whole
        m, own = points.shape[1], self.own(points)
        return [gathered(total[..., own, :], m, total.ndim - 2, self.group) for total in whole]

    def grams(
        self, columns: Sequence[Tensor], scales: Mapping[str, Tensor], group: Group
    ) -> Iterator[tuple[str, list[Tensor], Callable[[Sequence[Tensor], Tensor], Tensor]]]:
        """Each weight of a group, its columns, and what makes their share σ² J Jᵀ of K from them and from σ."""
        left = list(columns)
        for name, _, end in group:
            if end < 0:
                yield name, [left.pop(0), left.pop(0)], lambda J, scale: scale.to(J[0]).square() * Product(*J).gram()
            else:
                yield name, [left.pop(0)], self._share

    def _share(self, J: Sequence[Tensor], scale: Tensor) -> Tensor:
        return scale.to(J[0]).square() * self_product(J[0].flatten(0, 1) if self.joint else J[0])

    def _gradients(self, points: Tensor, A: Tensor, copies: Mapping[str, Tensor], names: Sequence[str]) -> Any:
        each = copies if self.by_example else None
        average = self.average if self.by_example else lambda outputs: self.average(outputs, copies)
        return _gradients(self.net, self.weights, points, lambda f: A, average, each, self.joint, names)[1]

    def _of(self, copies: Mapping[str, Tensor], block: slice) -> dict[str, Tensor]:
        return {name: value[:, block] if self.by_example else value for name, value in copies.items()}


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: GramInParts, names: list[str], points: Tensor, A: Tensor, *rest: Tensor) -> Tensor:
        scales = dict(zip(job.weights, rest, strict=False))
        copies = dict(zip(names, rest[len(scales) :], strict=True))
        ctx.job, ctx.names, ctx.groups = job, names, job.groups(points, A, copies)
        ctx.save_for_backward(points, A, *rest)
        K: Any = 0.0
        for group in ctx.groups:
            columns = job.of_all(points, A, copies, group)
            for name, J, share in job.grams(columns, scales, group):
                K = K + share(J, scales[name])
        ctx.columns = columns if len(ctx.groups) == 1 else None
        return K

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, ...]:
        job, (points, A, *rest) = ctx.job, ctx.saved_tensors
        scales = dict(zip(job.weights, rest, strict=False))
        copies = dict(zip(ctx.names, rest[len(scales) :], strict=True))
        at_scales = {name: torch.zeros_like(scale) for name, scale in scales.items()}
        at = [torch.zeros_like(t) for t in (points, A, *copies.values())]
        for group in ctx.groups:
            columns = job.of_all(points, A, copies, group) if ctx.columns is None else ctx.columns
            V: list[Tensor] = []
            for name, J, share in job.grams(columns, scales, group):
                leaves = [t.detach().requires_grad_() for t in (*J, scales[name])]
                with torch.enable_grad():
                    *of_columns, of_scale = torch.autograd.grad(share(leaves[:-1], leaves[-1]), leaves, G)
                V += of_columns
                at_scales[name] += of_scale
            del columns, leaves
            for block in job.blocks(points):
                _add_slopes(job, (points, A, copies), group, block, [v[..., block, :] for v in V], at)
        for total in at if job.group is not None else []:
            total *= job.group.size
        return None, None, at[0], at[1], *at_scales.values(), *at[2:]


def _add_slopes(
    job: GramInParts, arguments: Any, group: Group, block: slice, V: Sequence[Tensor], at: Sequence[Tensor]
) -> None:
    """Add the gradient of Σ <J, V> over a block of examples, in points, A and what is known of the copies."""
    points, A, copies = arguments
    known = {name: value.detach().requires_grad_() for name, value in job._of(copies, block).items()}
    inputs = [points[:, block].detach().requires_grad_(), A[:, block].detach().requires_grad_(), *known.values()]
    with torch.enable_grad():
        columns = job.columns(inputs[0], inputs[1], known, group)
    wanted = [(J, v) for J, v in zip(columns, V, strict=True) if J.requires_grad]
    if not wanted:
        return
    slopes = torch.autograd.grad([J for J, _ in wanted], inputs, [v for _, v in wanted], allow_unused=True)
    for total, slope, by_example in zip(at, slopes, [True, True] + [job.by_example] * len(known), strict=True):
        if slope is not None:
            (total[:, block] if by_example else total).add_(slope)
