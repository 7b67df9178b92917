"""Gaussian posteriors of a linear model, in whichever of its two spaces is smaller.

    f(x_i) = V_iᵀ v,   v ~ N(0, I_M),   sites exp(b_i f_i - λ_i f_i² / 2),   A = I + V Λ Vᵀ

With M < n inputs everything goes through the M x M matrix A, otherwise through the n x n matrix

    B = I + Λ^½ K Λ^½,   K = VᵀV,   |A| = |B|,   Vᵀ A⁻¹ V = K - K Λ^½ B⁻¹ Λ^½ K.

Both are at least the identity, so that neither needs jitter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.evidence.linear_algebra import cholesky


class Factor(ABC):
    """The posterior covariance of v for G sets of precisions: one for all outputs (G = 1), or one for each (G = C).

    Attributes:
        L: lower Cholesky factors, (G, k, k), k the smaller of M and n.
    """

    L: Float[Tensor, "G k k"]

    @staticmethod
    def of(
        V: Float[Tensor, "*C M n"],
        precision: Float[Tensor, "n G"],
        gram: Float[Tensor, "G M M"] | None = None,
        K: Float[Tensor, "*C n n"] | None = None,
    ) -> Factor:
        """Factorise.

        Args:
            V: whitened features of the inputs, (M, n), or (C, M, n) where every output has its own.
            precision: λ, non-negative, (n, G).
            gram: V Λ Vᵀ, where the caller has a cheaper way to it; only used for M < n.
            K: VᵀV, where the caller has it; only used for M >= n.
        """
        primal = V.shape[-2] < V.shape[-1]
        return PrimalFactor(V, precision, gram) if primal else DualFactor(V, precision, K)

    @property
    def log_det(self) -> Float[Tensor, " G"]:
        """log|A| of every set of precisions."""
        return 2.0 * self.L.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @abstractmethod
    def means(self, b: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """Posterior means of f at the inputs, Vᵀ A⁻¹ V b."""

    @abstractmethod
    def variances(self) -> Float[Tensor, "n G"]:
        """Posterior variances of f at the inputs, diag(Vᵀ A⁻¹ V)."""

    @abstractmethod
    def slopes(
        self,
        b: Float[Tensor, "n C"],
        each: int,
        of_means: Float[Tensor, "n C"],
        of_variances: Float[Tensor, "n G"],
    ) -> Float[Tensor, "*C M n"]:
        """∂/∂V of the log integral of prior and sites, and of what depends on means and variances.

            ½ Σ_c b_cᵀVᵀA⁻¹V b_c - ½ each Σ_g log|A_g| + Σ of_means means(b) + Σ of_variances variances()

        Args:
            b: locations of the sites.
            each: how many independent functions share a set of precisions.
            of_means: derivatives in the means,
            of_variances: and in the variances.
        """

    @abstractmethod
    def posterior(self, b: Float[Tensor, "n C"]) -> Posterior:
        """The posterior of v under the sites, for predictions at other inputs."""


class Posterior(ABC):
    """v given the sites: means and variances of f anywhere.

    Attributes:
        weights: the mean of v, (G, M, C/G).
    """

    weights: Float[Tensor, "G M each"]

    @abstractmethod
    def means(self, V: Float[Tensor, "*C M m"]) -> Float[Tensor, "m C"]:
        """E f at inputs whose whitened features are V."""

    @abstractmethod
    def variances(self, V: Float[Tensor, "*C M m"]) -> Float[Tensor, "m G"]:
        """var f there."""


def _columns(rows: Float[Tensor, "G n"]) -> Float[Tensor, "n G"]:
    return rows.mT


class PrimalFactor(Factor):
    """Through A = I + V Λ Vᵀ."""

    def __init__(self, V: Tensor, precision: Tensor, gram: Tensor | None):
        self.V, self._precision = V, precision
        if gram is None:
            gram = (V * precision.T[:, None]) @ V.mT  # (G, M, M), also for one V
        eye = torch.eye(V.shape[-2], dtype=V.dtype, device=V.device)
        self.L = cholesky(eye + gram, "I + VΛVᵀ")
        self._w: Tensor | None = None

    def _whitened(self) -> Float[Tensor, "G M n"]:
        if self._w is None:
            self._w = torch.linalg.solve_triangular(self.L, self.V.expand(len(self.L), -1, -1), upper=False)
        return self._w

    def means(self, b: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        w = self._whitened()
        return (w.mT @ (w @ _per_set(b, len(w)))).movedim(0, -1).flatten(1) if len(w) > 1 else w[0].T @ (w[0] @ b)

    def variances(self) -> Float[Tensor, "n G"]:
        return _columns(self._whitened().square().sum(1))

    def slopes(self, b: Tensor, each: int, of_means: Tensor, of_variances: Tensor) -> Float[Tensor, "*C M n"]:
        precision, G = self._precision.T[:, None], len(self.L)  # (G, 1, n)
        solved = torch.linalg.solve_triangular(self.L.mT, self._whitened(), upper=True)  # A⁻¹V, (G, M, n)
        moved = _per_set(of_means, G)
        means, means_moved = (solved @ columns for columns in (_per_set(b, G), moved))  # of v, (G, M, C/G)
        left, left_moved = (
            columns.mT - precision * (v.mT @ self.V) for columns, v in ((_per_set(b, G), means), (moved, means_moved))
        )  # (G, C/G, n)
        weighed = 2.0 * of_variances.T[:, None] * solved
        found = (means + means_moved) @ left + means @ left_moved + weighed
        found = found - (each * precision * solved + (weighed @ self.V.mT) @ (solved * precision))
        return found if self.V.ndim == 3 else found.sum(0)

    def posterior(self, b: Float[Tensor, "n C"]) -> Posterior:
        Vb = self.V @ _per_set(b, len(self.L))  # (G, M, C/G)
        return PrimalPosterior(self.L, torch.cholesky_solve(Vb, self.L))


class PrimalPosterior(Posterior):
    def __init__(self, L: Tensor, weights: Float[Tensor, "G M each"]):
        self.L, self.weights = L, weights

    def means(self, V: Tensor) -> Tensor:
        return (V.mT @ self.weights).movedim(0, -1).flatten(1) if len(self.L) > 1 else V.mT @ self.weights[0]

    def variances(self, V: Tensor) -> Tensor:
        return _columns(
            torch.linalg.solve_triangular(self.L, V.expand(len(self.L), -1, -1), upper=False).square().sum(1)
        )


class DualFactor(Factor):
    """Through B = I + Λ^½ K Λ^½."""

    def __init__(self, V: Tensor, precision: Tensor, K: Tensor | None = None):
        self.V = V
        self.K = V.mT @ V if K is None else K  # (n, n) or (C, n, n)
        self.root = precision.T.sqrt()  # (G, n)
        eye = torch.eye(self.K.shape[-1], dtype=V.dtype, device=V.device)
        self._rootK = self.root[..., None] * self.K  # (G, n, n): Λ^½ K
        self.L = cholesky(eye + self._rootK * self.root[:, None], "I + Λ^½KΛ^½")
        self._w: Tensor | None = None
        self._covariance: Tensor | None = None  # once the variances were asked for

    def _whitened(self) -> Float[Tensor, "G n n"]:
        """L⁻¹ Λ^½ K."""
        if self._w is None:
            self._w = torch.linalg.solve_triangular(self.L, self._rootK, upper=False)
        return self._w

    def means(self, b: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        w, S, each = self._whitened(), self._covariance, _per_set(b, len(self.L))
        found = self.K @ each - w.mT @ (w @ each) if S is None else S @ each
        return found.movedim(0, -1).flatten(1) if len(w) > 1 else found[0]

    def variances(self) -> Float[Tensor, "n G"]:
        return _columns(self._posterior_covariance().diagonal(dim1=-2, dim2=-1).clamp_min(0.0))

    def _posterior_covariance(self) -> Float[Tensor, "G n n"]:
        """Of f at the inputs. Once it was asked for, means go through it: it is symmetric up to its own rounding, and
        with K b - wᵀ(w b), which cancels, conjugate gradients stall."""
        if self._covariance is None:
            self._covariance = self.K - self._whitened().mT @ self._whitened()
        return self._covariance

    def slopes(self, b: Tensor, each: int, of_means: Tensor, of_variances: Tensor) -> Float[Tensor, "*C M n"]:
        precision, G = self.root.T.square(), len(self.L)
        left, left_moved = (_per_set(r - precision * self.means(r), G) for r in (b, of_means))  # (I + ΛK)⁻¹ r
        inner = (left + left_moved) @ left.mT + left @ left_moved.mT
        inner = inner - each * self.root[..., None] * torch.cholesky_inverse(self.L) * self.root[:, None]
        shrunk = precision.T[..., None] * self._posterior_covariance()  # ΛS
        shrunk = torch.eye(len(b), dtype=b.dtype, device=b.device) - shrunk
        inner = inner + (shrunk * (2.0 * of_variances.T[:, None])) @ shrunk.mT
        return self.V @ (inner if self.V.ndim == 3 else inner.sum(0))

    def posterior(self, b: Float[Tensor, "n C"]) -> Posterior:
        each = _per_set(b, len(self.L))  # (G, n, C/G)
        inner = torch.cholesky_solve(self._rootK @ each, self.L)
        return DualPosterior(self.V, self.L, self.root, each - self.root[..., None] * inner)


class DualPosterior(Posterior):
    def __init__(self, V: Tensor, L: Tensor, root: Tensor, alpha: Float[Tensor, "G n each"]):
        self.V, self.L, self.root = V, L, root
        self.weights = V @ alpha  # (G, M, C/G): v's mean

    def means(self, V: Tensor) -> Tensor:
        return (V.mT @ self.weights).movedim(0, -1).flatten(1) if len(self.L) > 1 else V.mT @ self.weights[0]

    def variances(self, V: Tensor) -> Tensor:
        cross = self.root[..., None] * (self.V.mT @ V)  # (G, n, m)
        w = torch.linalg.solve_triangular(self.L, cross, upper=False)
        return _columns((V.square().sum(-2) - w.square().sum(1)).clamp_min(0.0))


def _per_set(b: Float[Tensor, "n C"], num_sets: int) -> Float[Tensor, "G n each"]:
    """Columns of b by the set of precisions that they belong to: all to one, or each to its own."""
    return b[None] if num_sets == 1 else b.T[..., None]
