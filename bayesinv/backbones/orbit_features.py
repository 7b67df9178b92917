"""Orbit means of random Fourier features, with a hand-written gradient.

Autograd would keep five arrays of the size of the projected orbit; this keeps two and makes one pass over them. On a
CPU it goes through the examples in blocks that stay in the cache, in as many threads as there are to spare.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesinv.numerics.threads import in_spare_threads

BLOCK = 2**18  # numbers in one projected block: 512 copies at 512 frequencies; half and twice as many take as long
PARTS = 8  # in which gradients are summed


class _FourierMean(torch.autograd.Function):
    """out[i] = Σ_s w_s [cos Wᵀx_si ; sin Wᵀx_si]."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, frequencies: Tensor, weights: Tensor) -> Tensor:
        S, n, _ = points.shape
        R, keeps = frequencies.shape[1], any(ctx.needs_input_grad)
        out = points.new_empty(n, 2 * R)
        # One projected copy after the other: what is kept of a block lies in one piece.
        kept = [points.new_empty(S * n if keeps else 0, R) for _ in range(2)]

        def project(rows: range) -> None:
            where = slice(rows.start, rows.stop)
            flat = points[:, where].reshape(-1, points.shape[-1])
            if keeps:
                cos, sin = (part[S * rows.start : S * rows.stop] for part in kept)
                torch.cos(torch.mm(flat, frequencies, out=sin), out=cos)
            else:
                sin = flat @ frequencies
                cos = sin.cos()
            sin.sin_()
            for part, of in enumerate((cos, sin)):
                out[where, part * R : (part + 1) * R] = torch.mv(of.view(S, -1).T, weights).view(-1, R)

        in_spare_threads(project, _blocks(points, R))
        if keeps:
            ctx.save_for_backward(points, frequencies, weights, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        points, frequencies, weights, *kept = ctx.saved_tensors
        S, (D, R) = len(points), frequencies.shape
        of_points, of_frequencies, of_weights = ctx.needs_input_grad
        d_points = torch.empty_like(points) if of_points else None

        def differentiate(blocks: list[range]) -> tuple[Tensor | None, Tensor | None]:
            d_frequencies = torch.zeros_like(frequencies) if of_frequencies else None
            d_weights = torch.zeros_like(weights) if of_weights else None
            for rows in blocks:
                where = slice(rows.start, rows.stop)
                cos, sin = (part[S * rows.start : S * rows.stop].view(S, -1, R) for part in kept)
                d_cos, d_sin = grad[where, :R], grad[where, R:]
                d_projected = torch.addcmul(cos * d_sin, sin, d_cos, value=-1.0).mul_(weights[:, None, None])
                if d_points is not None:
                    d_points[:, where] = d_projected @ frequencies.T
                if d_frequencies is not None:
                    d_frequencies.addmm_(points[:, where].reshape(-1, D).T, d_projected.view(-1, R))
                if d_weights is not None:
                    d_weights += torch.einsum("snr,nr->s", cos, d_cos) + torch.einsum("snr,nr->s", sin, d_sin)
            return d_frequencies, d_weights

        blocks = _blocks(points, R)
        each = max(1, math.ceil(len(blocks) / PARTS))  # whatever the number of threads, which then changes nothing
        parts = [blocks[start : start + each] for start in range(0, len(blocks), each)]
        d_frequencies, d_weights = zip(*in_spare_threads(differentiate, parts or [[]]), strict=True)
        return d_points, _total(d_frequencies), _total(d_weights)


def _blocks(points: Float[Tensor, "S n D"], R: int) -> list[range]:
    """Examples, by the block that they belong to."""
    S, n, _ = points.shape
    rows = max(1, BLOCK // max(1, S * R)) if points.device.type == "cpu" else max(1, n)
    return [range(start, min(start + rows, n)) for start in range(0, n, rows)]


def _total(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.stack(known).sum(0) if known else None


def fourier_mean(
    points: Float[Tensor, "S n D"],
    frequencies: Float[Tensor, "D R"],
    weights: Float[Tensor, " S"] | None = None,
) -> Float[Tensor, "n twice_R"]:
    """φ̄(x_i) = Σ_s w_s [cos ω_rᵀx_si ; sin ω_rᵀx_si], w_s = 1/S without weights.

    Args:
        points: the orbits, (S, n, D).
        frequencies: ω as columns, (D, R), in the dtype of the points.
        weights: of the copies, summing to one.

    Returns:
        (n, 2R): cosines, then sines; differentiable once in all arguments.

    Example:
        >>> fourier_mean(torch.zeros(3, 2, 4), torch.ones(4, 5)).shape
        torch.Size([2, 10])
    """
    if weights is None:
        weights = points.new_full((len(points),), 1.0 / len(points))
    out: Tensor = _FourierMean.apply(points, frequencies, weights.to(points))
    return out
