"""Subspaces of a Lie algebra: frames, charts, angles, and what of a neighbourhood are subalgebras."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.discovery.algebra import Algebra

__all__ = ["angles", "chart", "closed_tangents", "complement", "defect", "log_volume", "orthonormal"]

# Singular values of the closing condition's derivative above this belong to directions that break it. Its entries are
# structure constants, of order one.
_BREAKS = 0.05


def orthonormal(U: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
    """U (UᵀU)^-½ by a Cholesky factor: differentiable, and the same subspace."""
    if U.shape[1] == 0:
        return U
    L = torch.linalg.cholesky(U.mT @ U)
    return torch.linalg.solve_triangular(L, U.mT, upper=False).mT


def complement(V: Float[Tensor, "p k"]) -> Float[Tensor, "p rest"]:
    """An orthonormal basis of what is orthogonal to V."""
    full = torch.linalg.svd(V, full_matrices=True).U if V.shape[1] else torch.eye(len(V), dtype=V.dtype)
    return full[:, V.shape[1] :]


def chart(V: Float[Tensor, "p k"], speeds: Float[Tensor, "p p"], unit: float = 0.03) -> Float[Tensor, "p rest"]:
    """Directions out of V, long where the function hardly changes along them: like curvatures for an optimiser.

    Args:
        V: orthonormal.
        speeds: E ξ_i f ξ_j f, the second moments of the change along the basis.
        unit: radians of a step of one, on average.
    """
    N = complement(V)
    w, E = torch.linalg.eigh(N.mT @ speeds @ N)
    mean = w.mean()
    return N @ E * (mean / w.clamp_min(1e-3 * mean)).sqrt() * unit


def defect(V: Float[Tensor, "p k"], algebra: Algebra) -> Float[Tensor, " conditions"]:
    """What the brackets of V have outside V: zero for a subalgebra."""
    k = V.shape[1]
    i, j = torch.triu_indices(k, k, 1)
    if len(i) == 0:
        return V.new_zeros(0)
    inside, _ = algebra.bracket(V[:, i], V[:, j])
    return (inside - V @ (V.mT @ inside)).flatten()


def closed_tangents(V: Float[Tensor, "p k"], algebra: Algebra) -> tuple[Tensor, Tensor]:
    """Directions in which the subalgebra V may move and stay one, to first order.

    A subspace near V is spanned by V + N Z; the closing condition has a derivative in Z, whose null space they are. For
    one generator they are all p − 1 directions; for so(3) in gl(3) the five that come from a change of coordinates.

    Returns:
        N (p, p − k), and an orthonormal basis (k (p − k), D) of the Z.
    """
    p, k = V.shape
    N = complement(V)
    if k == 1 or k == p:
        return N, torch.eye(N.shape[1] * k, dtype=V.dtype)

    def of(z: Tensor) -> Tensor:
        return defect(orthonormal(V + N @ z.reshape(p - k, k)), algebra)

    J = torch.autograd.functional.jacobian(of, V.new_zeros((p - k) * k))
    _, s, Vh = torch.linalg.svd(J, full_matrices=True)
    return N, Vh[int((s > _BREAKS).sum()) :].mT


def angles(V: Float[Tensor, "p k"], W: Float[Tensor, "p m"]) -> Float[Tensor, " smaller"]:
    """Principal angles between two subspaces in degrees, ascending.

    By sines where the angles are small, whose cosines are rounded.
    """
    V, W = (V, W) if V.shape[1] <= W.shape[1] else (W, V)
    cosines = torch.linalg.svdvals(W.mT @ V).clamp(0.0, 1.0)
    sines = torch.linalg.svdvals(V - W @ (W.mT @ V)).clamp(0.0, 1.0).flip(0)
    radians = torch.where(cosines**2 > 0.5, sines.asin(), cosines.acos())
    return torch.rad2deg(radians)


def log_volume(dimension: int) -> float:
    """Logarithm of the volume of real projective space: where one generator in dimension + 1 directions may lie."""
    half = 0.5 * (dimension + 1)
    return half * math.log(math.pi) - math.lgamma(half)
