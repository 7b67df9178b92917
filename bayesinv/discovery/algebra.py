"""The Lie algebra in which generators are looked for: matrices, how they move an input, and their brackets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.transforms import ImageFlow, LinearFlow

__all__ = ["Algebra", "algebra_for"]

ALGEBRAS = ("auto", "linear", "affine")
MOST_AXES = 8  # d² = 64 directions, d (d + 1) = 72: more than that a few hundred examples cannot tell apart
_NOTHING = 1e-8  # of the motions' correlation matrix: eigenvalues below it belong to generators that move nothing
_ROUNDING = 1e-20  # share of the largest mean square motion below which one is rounding
_SMALL_STEP = 1e-4  # of the unit of the inputs: differences of a linear map are exact, and of features right to 1e-7


@dataclass(frozen=True)
class Algebra:
    """Generators B_1 ... B_p, orthonormal under the Frobenius product, as square homogeneous matrices.

    A direction is a unit vector v of R^p, and stands for Σ_j v_j B_j. Translations are in units of `scale`, so that
    angles between directions do not depend on the unit of the inputs.

    Attributes:
        kind: "linear" (A), "affine" (A, b), or "image" (A, b in half widths, through warps of images).
        matrices: B, (p, size, size).
        num_axes: d, of the space that the matrices act on.
        scale: the root mean square of the inputs, in which translations are measured; 1 for images.
        num_still: how many directions were left out because they move no input.
    """

    kind: str
    matrices: Float[Tensor, "p size size"]
    num_axes: int
    scale: float = 1.0
    num_still: int = 0

    @property
    def size(self) -> int:
        """p, the number of directions."""
        return len(self.matrices)

    def at(self, V: Float[Tensor, "p k"]) -> Float[Tensor, "k size size"]:
        """The matrices of directions, in internal units."""
        return torch.einsum("pk,pij->kij", V, self.matrices)

    def outward(self, V: Float[Tensor, "p k"]) -> Float[Tensor, "k rows columns"]:
        """Generators in the unit of the inputs: (k, d, d), (k, d, d + 1), or (k, 2, 3) for images."""
        G = self.at(V)[:, : self.num_axes].clone()
        if self.kind == "affine":
            G[..., -1] *= self.scale
        return G

    def bracket(
        self, left: Float[Tensor, "p m"], right: Float[Tensor, "p m"]
    ) -> tuple[Float[Tensor, "p m"], Float[Tensor, " m"]]:
        """[A, B] of pairs of directions, in coordinates, and the norm of what lies outside the algebra."""
        A, B = self.at(left), self.at(right)
        C = A @ B - B @ A
        inside = torch.einsum("mij,pij->pm", C, self.matrices)
        return inside, (C.square().sum((-2, -1)) - inside.square().sum(0)).clamp_min(0.0).sqrt()

    def flow(self, V: Float[Tensor, "p k"], names: tuple[str, ...] | None = None) -> LinearFlow | ImageFlow:
        """The transform exp(Σ_k t_k A_k) of k directions."""
        G = self.outward(V)
        return ImageFlow(G, names) if self.kind == "image" else LinearFlow(G, names)

    def step(self, event_shape: tuple[int, ...]) -> float:
        """How far a difference quotient moves an input: a pixel at the rim of an image, little elsewhere."""
        return 2.0 / min(event_shape[-2:]) if self.kind == "image" else _SMALL_STEP

    def moving(self, x: Float[Tensor, n * event]) -> Algebra:
        """Without the directions that move none of these inputs.

        Raises:
            DataError: none is left.
        """
        v = self.tangents(x).flatten(1)  # (p, n·D)
        G = v @ v.T
        squares = G.diagonal()
        if not bool(squares.max() > 0):
            raise DataError(
                "x: every generator leaves the inputs where they are; expected inputs that are not all zero"
            )
        # Each motion over its own size: beside a column of large numbers those of small ones are not nothing.
        inverse = torch.where(squares > _ROUNDING * squares.max(), squares, torch.inf).rsqrt()
        w, E = torch.linalg.eigh(inverse[:, None] * G * inverse)
        still = w < _NOTHING
        if not bool(still.any()):
            return self
        nothing = torch.where((inverse > 0)[:, None], inverse[:, None] * E, E)[:, still]
        # Those that move the inputs: orthogonal to those that do not.
        basis = torch.linalg.qr(nothing / nothing.norm(dim=0), mode="complete").Q[:, int(still.sum()) :]
        matrices = torch.einsum("pq,pij->qij", basis, self.matrices)
        return replace(self, matrices=matrices, num_still=int(still.sum()))

    @torch.no_grad()
    def tangents(
        self,
        x: Float[Tensor, n * event],
        function: Callable[[Tensor], Tensor] | None = None,
        step: float | None = None,
    ) -> Float[Tensor, "p n *out"]:
        """d/dt g(exp(t B_j) x) at t = 0, by central differences along the transforms themselves.

        Args:
            x: the inputs.
            function: g, from (m, *event) to (m, *out); the inputs themselves by default.
            step: of the differences; for images a pixel at the rim.
        """
        x = x.double()
        shape = tuple(x.shape[1:])
        step = self.step(shape) if step is None or self.kind == "image" else step
        flow = self.flow(torch.eye(self.size, dtype=torch.float64))
        moved = []
        for t in torch.eye(self.size, dtype=torch.float64) * step:
            ends = [flow.orbit(x, sign * t[None])[0] for sign in (1.0, -1.0)]
            ahead, behind = ends if function is None else map(function, ends)
            moved.append((ahead - behind) / (2.0 * step))
        return torch.stack(moved)


def algebra_for(x: Float[Tensor, n * event], algebra: str) -> Algebra:
    """The algebra for inputs of a shape.

    Args:
        x: rows (n, d), points (n, atoms, d), or images (n, channels, height, width).
        algebra: "linear", "affine", or "auto": linear, and affine for images.

    Raises:
        ValueError: an unknown algebra, or "linear" for images.
        DataError: inputs of another shape, or of too many coordinates.

    Example:
        >>> algebra_for(torch.randn(10, 3), "auto").size, algebra_for(torch.rand(10, 1, 8, 8), "auto").size
        (9, 6)
    """
    if algebra not in ALGEBRAS:
        raise ValueError(f"algebra: expected one of {list(ALGEBRAS)}, got {algebra!r}")
    shape = tuple(x.shape)
    if x.ndim == 4:
        if algebra == "linear":
            raise ValueError('algebra: images are warped by the affine algebra of the plane; expected "auto", "affine"')
        return Algebra("image", _elementary(2, True), 2).moving(x)
    if x.ndim not in (2, 3):
        raise DataError(f"x: expected rows (n, d), points (n, atoms, d) or images (n, channels, h, w), got {shape}")
    d = shape[-1]
    if d > MOST_AXES:
        raise DataError(
            f"x: the last axis has {d} coordinates, hence {d * d} linear generators, and examples tell few apart; "
            f"expected at most {MOST_AXES}. Leave columns out, or reduce them first (principal components)"
        )
    affine = algebra == "affine"
    scale = float(x.double().square().mean().sqrt()) or 1.0
    return Algebra("affine" if affine else "linear", _elementary(d, affine), d, scale).moving(x)


def _elementary(d: int, affine: bool) -> Float[Tensor, "p size size"]:
    """Matrices with a single one: all of gl(d), and the translations behind them."""
    size = d + affine
    pairs = [(i, j) for i in range(d) for j in range(d)] + ([(i, d) for i in range(d)] if affine else [])
    basis = torch.zeros(len(pairs), size, size, dtype=torch.float64)
    for k, (i, j) in enumerate(pairs):
        basis[k, i, j] = 1.0
    return basis
