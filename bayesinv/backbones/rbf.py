"""Orbit means of the squared-exponential kernel, with hand-written gradients; weighted where the orbit is.

GPyTorch builds the (S·n) x M kernel through a dozen temporaries of the size of the orbit, whose allocation
costs more than the arithmetic; these two functions need one matrix product and three passes in place. They are
tested to agree with GPyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class _CrossMean(torch.autograd.Function):
    """out[i, j] = Σ_s w_s exp(-γ |x_si - z_j|²)."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, inducing: Tensor, gamma: Tensor, weights: Tensor) -> Tensor:
        S, n, D = points.shape
        flat = points.reshape(S * n, D)
        squares = torch.linalg.vector_norm(flat, dim=-1).square_()  # (S·n,) without a copy of the orbit
        E = torch.addmm((-gamma * squares)[:, None], flat, (2.0 * gamma * inducing).T)  # (S·n, M)
        E.sub_(gamma * (inducing * inducing).sum(-1)).clamp_(max=0.0).exp_()
        ctx.save_for_backward(points, inducing, gamma, weights, E)
        return torch.tensordot(weights, E.view(S, n, -1), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        points, inducing, gamma, weights, E = ctx.saved_tensors
        S, n, D = points.shape
        flat = points.reshape(S * n, D)
        dE = E.view(S, n, -1) * grad
        d_weights = dE.sum((1, 2)) if ctx.needs_input_grad[3] else None
        dE = dE.mul_(weights[:, None, None]).view(S * n, -1)  # (S·n, M)
        d_points = dE @ (2.0 * gamma * inducing)
        d_points.addcmul_(flat, (-2.0 * gamma * dE.sum(1))[:, None])
        d_inducing = (dE.T @ flat - dE.sum(0)[:, None] * inducing) * (2.0 * gamma)
        # |x - z|² is homogeneous of degree two in (x, z) jointly, so Euler's theorem gives the gradient in γ
        # without keeping the distances: 2γ ∂γ = x·∂x + z·∂z.
        along = torch.dot(flat.reshape(-1), d_points.reshape(-1)) + (inducing * d_inducing).sum()
        return d_points.view(S, n, D), d_inducing, 0.5 * along / gamma, d_weights


class _SelfMean(torch.autograd.Function):
    """out[i] = Σ_{s,s'} w_s w_s' exp(-γ |x_si - x_s'i|²)."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, gamma: Tensor, weights: Tensor) -> Tensor:
        per_input = points.transpose(0, 1).contiguous()  # (n, S, D)
        gram = torch.bmm(per_input, per_input.transpose(1, 2))  # (n, S, S)
        squares = gram.diagonal(dim1=1, dim2=2)
        E = (2.0 * gram - squares[:, None, :] - squares[:, :, None]).mul_(gamma).clamp_(max=0.0).exp_()
        ctx.save_for_backward(per_input, gamma, weights, E)
        return (E @ weights) @ weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        per_input, gamma, weights, E = ctx.saved_tensors
        d_weights = 2.0 * grad @ (E @ weights) if ctx.needs_input_grad[2] else None
        dE = E * grad[:, None, None] * torch.outer(weights, weights)
        dE.diagonal(dim1=1, dim2=2).sub_(dE.sum(1))
        d_points = torch.bmm(dE, per_input).mul_(4.0 * gamma)  # both orders of each pair
        along = torch.dot(per_input.reshape(-1), d_points.reshape(-1))
        return d_points.transpose(0, 1), 0.5 * along / gamma, d_weights


def rbf_cross_mean(
    points: Float[Tensor, "S n D"],
    inducing: Float[Tensor, "M D"],
    gamma: Float[Tensor, ""],
    weights: Float[Tensor, " S"] | None = None,
) -> Float[Tensor, "n M"]:
    """Σ_s w_s exp(-γ |x_si - z_j|²), γ = 1 / (2 lengthscale²); differentiable once in all arguments."""
    out: Tensor = _CrossMean.apply(points, inducing, gamma, _weights(points, weights))
    return out


def rbf_self_mean(
    points: Float[Tensor, "S n D"], gamma: Float[Tensor, ""], weights: Float[Tensor, " S"] | None = None
) -> Float[Tensor, " n"]:
    """Σ_{s,s'} w_s w_s' exp(-γ |x_si - x_s'i|²), the prior variance of an orbit average of unit scale."""
    out: Tensor = _SelfMean.apply(points, gamma, _weights(points, weights))
    return out


def _weights(points: Tensor, weights: Tensor | None) -> Tensor:
    return points.new_full((len(points),), 1.0 / len(points)) if weights is None else weights.to(points)
