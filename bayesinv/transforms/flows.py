"""Flows of matrices that somebody found, in place of ones that have a name: x ↦ exp(Σ_k t_k A_k) x.

`bayesinv.discover` hands its generators on as these.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.affine2d import MatrixWarp
from bayesinv.transforms.base import Coordinate, Transform, register, wrong_kind
from bayesinv.transforms.exponential import exponential
from bayesinv.transforms.warp import INTERPOLATIONS, PADDINGS

__all__ = ["ImageFlow", "LinearFlow"]

LARGEST_GROWTH = math.log(3.0)  # as a factor that `ColumnScale` takes for sensible
LARGEST_SHIFT = 2.0  # of a nilpotent generator, such as a shear or a translation: as far as `ColumnShift`
# Share of the largest singular value below which an imaginary eigenvalue is noise: an error δ of a shear, which has
# none, makes eigenvalues of √δ, and a cone of 5° is δ = 0.09. Turns along ellipses up to 1:3 lie above.
_TURNS = 0.3
_FAR = 0.03  # share of the matrix in (A, b) below which it is noise of a translation; a centre 30 units off has this


def _as_generators(generators: Any, who: str, shapes: str, taken: Any) -> Float[Tensor, "K rows columns"]:
    """Generators as float64, (K, rows, columns).

    Raises:
        ValueError: of another shape, none, not finite, or zero.
    """
    G = torch.as_tensor(generators, dtype=torch.float64).detach().clone()
    if G.ndim != 3 or len(G) == 0 or not taken(*G.shape[1:]):
        raise ValueError(f"{who}: expected generators of shape {shapes}, got {tuple(G.shape)}")
    if not bool(G.isfinite().all()) or bool((G.flatten(1).norm(dim=1) == 0).any()):
        raise ValueError(f"{who}: expected finite generators that move something, and one is zero or not finite")
    return G


def _homogeneous(G: Float[Tensor, "K rows columns"]) -> Float[Tensor, "K square square"]:
    """(A, b) as [[A, b], [0, 0]]; square matrices stay."""
    rows, columns = G.shape[1:]
    return G if rows == columns else torch.cat([G, G.new_zeros(len(G), columns - rows, columns)], 1)


def _coordinate(name: str, A: Float[Tensor, "rows columns"]) -> Coordinate:
    """How far along exp(tA) makes sense, for A or (A, b).

    A full turn where it turns and grows less than threefold on the way. Else as far as nothing grows more than
    threefold or moves further than `LARGEST_SHIFT`. Noisy generators get about the range of the exact ones.
    """
    linear = A[:, : len(A)]
    eigenvalues = torch.linalg.eigvals(linear)
    turn, growth = float(eigenvalues.imag.abs().max()), float(eigenvalues.real.abs().max())
    own, whole = (float(torch.linalg.matrix_norm(M, 2)) for M in (linear, A))
    meaning = "Moves along exp(t A)."
    if own > _FAR * whole and turn > _TURNS * own and math.pi * growth <= LARGEST_GROWTH * turn:
        return Coordinate.linear(name, "°", math.pi / turn, math.degrees(turn), meaning)
    largest = LARGEST_SHIFT / whole
    if growth * largest > LARGEST_GROWTH:
        largest = LARGEST_GROWTH / growth
    return Coordinate(name, "", largest, meaning=meaning)


def _names(names: str | Sequence[str] | None, number: int, who: str) -> tuple[str, ...]:
    if names is None:
        chosen = tuple(f"generator_{k + 1}" for k in range(number))
    else:
        chosen = (names,) if isinstance(names, str) else tuple(names)
    if len(chosen) != number or len(set(chosen)) < number:
        raise ValueError(f"{who}: expected {number} different names, one for each generator, got {list(chosen)}")
    return chosen


@register
class LinearFlow(Transform):
    """x ↦ exp(Σ_k t_k A_k) x on the last axis of an example; with columns b, x ↦ the affine map of [[A, b], [0, 0]].

    Examples are rows of a table, (columns,), or points, (atoms, d), all moved alike. −t is the inverse of t. A
    generator whose eigenvalues are imaginary turns: its extent is read in degrees of its fastest plane. The suggested
    ranges take columns of a standard deviation near one, with centres of turns within some 30 of the origin.

    Args:
        generators: A, (K, d, d), or (A, b), (K, d, d + 1).
        names: of the coordinates, one name alone for one generator; "generator_1" and so on by default.

    Raises:
        ValueError: generators of another shape, zero ones, or names that do not fit.
        DataError: when called on inputs whose last axis is not d long.

    Example:
        >>> turn = LinearFlow([[[0.0, -1.0], [1.0, 0.0]]], ["turn"])
        >>> turn(torch.tensor([[1.0, 0.0]]), torch.tensor([[math.pi / 2]])).round().abs().tolist()
        [[0.0, 1.0]]
        >>> turn.coordinates[0].words(math.pi / 2)
        '±90.0°'
    """

    invertible = True

    def __init__(self, generators: Any, names: str | Sequence[str] | None = None) -> None:
        super().__init__()
        self.given = _as_generators(
            generators, "LinearFlow", "(K, d, d) or (K, d, d + 1)", lambda rows, columns: columns - rows in (0, 1)
        )
        self.num_axes = self.given.shape[1]
        self.generators: Tensor
        self.register_buffer("generators", _homogeneous(self.given), persistent=False)
        chosen = _names(names, len(self.given), "LinearFlow")
        self._coordinates = tuple(_coordinate(name, A) for name, A in zip(chosen, self.given, strict=True))

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def matrix(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit size size"]:
        """exp(Σ_k t_k A_k), homogeneous where there are translations."""
        self.check_coordinates(t)
        return exponential(self.generators, t)

    def _parts(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        d = self.num_axes
        M = self.matrix(t).to(x.dtype)
        return M[..., :d, :d], M[..., :d, d] if M.shape[-1] > d else None

    def transform(self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch K"]) -> Float[Tensor, "batch *event"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        A, b = self._parts(t, x)
        moved = torch.einsum("nij,n...j->n...i", A, x)
        return moved if b is None else moved + b.reshape(len(x), *[1] * (x.ndim - 2), -1)

    def orbit(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "*orbit K"]
    ) -> Float[Tensor, "*orbit_batch_event"]:
        self.check_input(x)
        self.check_coordinates(t)
        A, b = self._parts(t.reshape(-1, t.shape[-1]), x)
        moved = torch.einsum("sij,n...j->sn...i", A, x)
        if b is not None:
            moved = moved + b.reshape(len(b), *[1] * (x.ndim - 1), -1)
        return moved.reshape(*t.shape[:-1], *x.shape)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t."""
        self.check_coordinates(t)
        return -t

    def check_input(self, x: object) -> None:
        super().check_input(x)
        if isinstance(x, Tensor) and (x.ndim < 2 or x.shape[-1] != self.num_axes):
            raise wrong_kind(self, f"inputs whose last axis is {self.num_axes} long", x)

    def config(self) -> dict[str, Any]:
        return {"type": "LinearFlow", "generators": self.given.tolist(), "names": list(self.names)}

    def extra_repr(self) -> str:
        return f"{list(self.names)}"


@register
class ImageFlow(MatrixWarp):
    """Images warped by A(t) = exp(Σ_k t_k [A_k b_k; 0 0]), in the coordinates of `Affine2d`: half the width, y down.

    Args:
        generators: (A, b), (K, 2, 3).
        names: of the coordinates, one name alone for one generator; "generator_1" and so on by default.
        padding, interpolation: as for `Affine2d`.

    Raises:
        ValueError: generators of another shape, zero ones, names that do not fit, an unknown padding or interpolation.
        DataError: when called on something else than images, batch × channel × height × width.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> flow, x = ImageFlow([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]]), torch.rand(1, 1, 8, 8)
        >>> t = torch.tensor([[0.3]])
        >>> bool(torch.allclose(flow(x, t), Affine2d(["rotation"])(x, t)))
        True
    """

    invertible = True

    def __init__(
        self,
        generators: Any,
        names: str | Sequence[str] | None = None,
        padding: str = "zeros",
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__()
        self.given = _as_generators(generators, "ImageFlow", "(K, 2, 3)", lambda *shape: shape == (2, 3))
        if padding not in PADDINGS:
            raise ValueError(f"unknown padding {padding!r}; known are {', '.join(PADDINGS)}")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"unknown interpolation {interpolation!r}; known are {', '.join(INTERPOLATIONS)}")
        self.padding, self.interpolation = padding, interpolation
        self.generators: Tensor
        self.register_buffer("generators", _homogeneous(self.given), persistent=False)
        chosen = _names(names, len(self.given), "ImageFlow")
        self._coordinates = tuple(_coordinate(name, A) for name, A in zip(chosen, self.given, strict=True))

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def matrix(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        self.check_coordinates(t)
        return exponential(self.generators, t)

    def pullback(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        return self.matrix(-t)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t."""
        self.check_coordinates(t)
        return -t

    def config(self) -> dict[str, Any]:
        return {
            "type": "ImageFlow",
            "generators": self.given.tolist(),
            "names": list(self.names),
            "padding": self.padding,
            "interpolation": self.interpolation,
        }

    def extra_repr(self) -> str:
        return f"{list(self.names)}"
