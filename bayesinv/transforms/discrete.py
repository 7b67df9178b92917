"""Finite groups: flips, rotations by 360°/n, dihedral groups, permutations.

A finite group has one coordinate. Its column of t holds the index g of an element, 0 for the identity; its extent is
the probability of any other element, and at 1 - 1/G, the largest, all are equally likely. An orbit holds every
element and weights it, so that averages are exact and differentiable in the probability.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import permutations as all_permutations
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.transforms.affine2d import Affine2d
from bayesinv.transforms.base import Coordinate, Transform, register, wrong_kind

__all__ = ["CyclicRotation", "Dihedral", "FiniteGroup", "Flip", "Permutation"]


class FiniteGroup(Transform):
    """A finite group of maps; a subclass gives `coordinates`, made by `Coordinate.group`, `act` and `inverse`."""

    invertible = True

    @property
    def order(self) -> int:
        """G, the number of elements."""
        return self.coordinates[0].order

    @abstractmethod
    def act(self, x: Float[Tensor, "batch *event"], element: int) -> Float[Tensor, "batch *event"]:
        """g x, the same element for the whole batch; element 0 is the identity."""

    @abstractmethod
    def inverse(self, element: int) -> int:
        """The element that undoes another one."""

    def transform(self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch K"]) -> Float[Tensor, "batch *event"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        present: Sequence[int]
        if torch.compiler.is_compiling():  # a graph is the same whatever the elements are: all of them are computed
            elements, present = t[..., 0].detach().round().long(), range(1, self.order)
        else:
            elements = self._elements(t[..., 0])
            present = sorted(set(elements.tolist()) - {0})
        moved = x
        for element in present:
            chosen = (elements == element).to(x.device)
            moved = torch.where(chosen.reshape(-1, *[1] * (x.ndim - 1)), self.act(x, element), moved)
        return moved.clone() if moved is x else moved

    def orbit(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "*orbit K"]
    ) -> Float[Tensor, "*orbit_batch_event"]:
        self.check_input(x)
        self.check_coordinates(t)
        elements = self._elements(t[..., 0])
        images = {
            element: self.act(x, element) if element else x for element in sorted(set(elements.flatten().tolist()))
        }
        points = torch.stack([images[element] for element in elements.flatten().tolist()])
        return points.reshape(*elements.shape, *x.shape)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        table = torch.tensor([self.inverse(element) for element in range(self.order)], dtype=t.dtype, device=t.device)
        return table[self._elements(t).to(t.device)]

    def _elements(self, column: Tensor) -> Tensor:
        """Indices on the CPU, where they choose what is computed."""
        elements = column.detach().cpu().round().long()
        outside = (elements < 0) | (elements >= self.order)
        if bool(outside.any()):
            wrong = float(column.detach().cpu()[outside][0])
            raise ValueError(
                f"{type(self).__name__} has the elements 0 to {self.order - 1}, and t = {wrong:g} came; the column of "
                "a finite group holds the index of an element"
            )
        return elements


@register
class Flip(FiniteGroup):
    """The reversal of one axis, a group of two: mirror images, or a signal backwards.

    Args:
        dim: which axis of a batch, counted from the end: -1 for left and right of an image, or for time; -2 for up and
            down.
        name: of the symmetry; by default ``"flip_x"`` for -1, ``"flip_y"`` for -2.

    Raises:
        ValueError: an axis that is not counted from the end.

    Example:
        >>> Flip()(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), torch.tensor([[1.0], [0.0]])).tolist()
        [[[2.0, 1.0]], [[3.0, 4.0]]]
    """

    def __init__(self, dim: int = -1, name: str | None = None) -> None:
        super().__init__()
        if dim >= 0:
            raise ValueError(f"dim: expected an axis counted from the end, such as -1, and {dim} came")
        self.dim = dim
        self.name = {-1: "flip_x", -2: "flip_y"}.get(dim, f"flip_{-dim}") if name is None else name
        self._coordinates = (Coordinate.group(self.name, 2, f"Reverses axis {dim}."),)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def act(self, x: Float[Tensor, "batch *event"], element: int) -> Float[Tensor, "batch *event"]:
        return x.flip(self.dim) if element else x

    def inverse(self, element: int) -> int:
        return element

    def check_input(self, x: object) -> None:
        super().check_input(x)
        x = cast(Tensor, x)
        if x.ndim <= -self.dim:
            raise DataError(
                f"Flip reverses axis {self.dim} of each example, and examples of shape {tuple(x.shape)[1:]} came"
            )

    def config(self) -> dict[str, Any]:
        return {**super().config(), "dim": self.dim, "name": self.name}


class _PlaneGroup(FiniteGroup):
    """Rotations of an image by multiples of 360°/n: quarter and half turns are exact, others interpolate."""

    def __init__(self, n: int, padding: str, interpolation: str) -> None:
        super().__init__()
        if not isinstance(n, int) or isinstance(n, bool) or n < 2:
            raise ValueError(f"n: expected how many rotations make a full turn, at least 2, and {n!r} came")
        self.n, self.padding, self.interpolation = n, padding, interpolation
        self._warp = Affine2d(["rotation"], padding=padding, interpolation=interpolation)

    def turn(self, x: Tensor, times: int) -> Tensor:
        """The image turned counter-clockwise, as seen, by times · 360°/n."""
        quarters = 4 * times / self.n
        if quarters.is_integer():
            return torch.rot90(x, int(quarters), (-2, -1))
        angle = torch.full((1, 1), 2.0 * math.pi * times / self.n, dtype=torch.float64, device=x.device)
        return self._warp.orbit(x, angle)[0]

    def check_input(self, x: object) -> None:
        super().check_input(x)
        x = cast(Tensor, x)
        if x.ndim != 4:
            raise wrong_kind(self, "images, batch x channels x height x width", x)
        if self.n % 4 == 0 and x.shape[-1] != x.shape[-2]:
            raise DataError(
                f"{type(self).__name__}({self.n}) has quarter turns, which need square images, and "
                f"{x.shape[-2]} x {x.shape[-1]} pixels came; pad them, or use n = 2"
            )

    def config(self) -> dict[str, Any]:
        return {**super().config(), "n": self.n, "padding": self.padding, "interpolation": self.interpolation}


@register
class CyclicRotation(_PlaneGroup):
    """C_n: rotations of an image by multiples of 360°/n, exact for n = 2 and 4.

    Args:
        n: rotations in a full turn.
        padding, interpolation: of other turns than quarters, as for `Affine2d`.

    Raises:
        ValueError: n below 2, or as `Affine2d`.

    Example:
        >>> quarter = CyclicRotation(4)(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[1.0]]))
        >>> quarter[0, 0].tolist()
        [[2.0, 4.0], [1.0, 3.0]]
    """

    def __init__(self, n: int = 4, padding: str = "zeros", interpolation: str = "bilinear") -> None:
        super().__init__(n, padding, interpolation)
        self._coordinates = (Coordinate.group(f"turns_{n}", n, f"Turns the image by a multiple of {360 / n:g}°."),)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def act(self, x: Float[Tensor, "batch *event"], element: int) -> Float[Tensor, "batch *event"]:
        return self.turn(x, element)

    def inverse(self, element: int) -> int:
        return -element % self.n


@register
class Dihedral(_PlaneGroup):
    """D_n: rotations by multiples of 360°/n, and each after a reflection of left and right; 2n elements.

    Element g < n is a rotation; g ≥ n reflects and then rotates by g - n. D_4 holds all symmetries of the square and is
    exact.

    Args:
        n: rotations in a full turn.
        padding, interpolation: of other turns than quarters, as for `Affine2d`.

    Raises:
        ValueError: n below 2, or as `Affine2d`.

    Example:
        >>> Dihedral(4).order
        8
    """

    def __init__(self, n: int = 4, padding: str = "zeros", interpolation: str = "bilinear") -> None:
        super().__init__(n, padding, interpolation)
        meaning = f"Turns by a multiple of {360 / n:g}°, or mirrors the image first."
        self._coordinates = (Coordinate.group(f"dihedral_{n}", 2 * n, meaning),)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def act(self, x: Float[Tensor, "batch *event"], element: int) -> Float[Tensor, "batch *event"]:
        return self.turn(x.flip(-1) if element >= self.n else x, element % self.n)

    def inverse(self, element: int) -> int:
        return element if element >= self.n else -element % self.n  # a reflection undoes itself


@register
class Permutation(FiniteGroup):
    """A group of permutations of the entries along one axis: sensors, channels, columns of a table.

    Args:
        permutations: the elements, each a list of source indices of the same length: entry i of the result is entry
            p[i] of the example. The identity comes first, and the set has to be closed under composition.
        dim: which axis of a batch, counted from the end.
        name: of the symmetry.

    Raises:
        ValueError: no permutations, not closed, or the identity not first.

    Example:
        >>> pairs = Permutation([[0, 1, 2], [1, 0, 2]])
        >>> pairs(torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([[1.0]])).tolist()
        [[6.0, 5.0, 7.0]]
        >>> Permutation.cyclic(4).order, Permutation.symmetric(3).order
        (4, 6)
    """

    def __init__(self, permutations: Sequence[Sequence[int]], dim: int = -1, name: str = "permutation") -> None:
        super().__init__()
        self.permutations = tuple(tuple(int(i) for i in p) for p in permutations)
        self.dim, self.name = dim, name
        if dim >= 0:
            raise ValueError(f"dim: expected an axis counted from the end, such as -1, and {dim} came")
        if len(self.permutations) < 2 or len(set(self.permutations)) < len(self.permutations):
            raise ValueError(f"permutations: expected at least two different ones, got {list(self.permutations)}")
        length = len(self.permutations[0])
        wrong = [p for p in self.permutations if sorted(p) != list(range(length))]
        if wrong:
            raise ValueError(f"permutations: expected each of 0 to {length - 1} once, got {wrong[0]}")
        if self.permutations[0] != tuple(range(length)):
            raise ValueError(f"permutations: expected the identity first, got {self.permutations[0]}")
        self._index = {p: g for g, p in enumerate(self.permutations)}
        for p in self.permutations:
            for q in self.permutations:
                product = tuple(p[i] for i in q)
                if product not in self._index:
                    raise ValueError(f"permutations: {p} and {q} make {product}, which has to be in the group too")
        self._coordinates = (Coordinate.group(name, len(self.permutations), f"Permutes axis {dim}."),)

    @classmethod
    def cyclic(cls, length: int, dim: int = -1, name: str = "cyclic_shift") -> "Permutation":
        """All cyclic shifts of ``length`` entries; element g moves entry i to i + g."""
        return cls([[(i - g) % length for i in range(length)] for g in range(length)], dim, name)

    @classmethod
    def symmetric(cls, length: int, dim: int = -1, name: str = "permutation") -> "Permutation":
        """All orders of ``length`` entries, at most 5 of them (120 elements)."""
        if length > 5:
            raise ValueError(f"length: {length}! elements are too many for an exact average; expected at most 5")
        return cls(list(all_permutations(range(length))), dim, name)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def act(self, x: Float[Tensor, "batch *event"], element: int) -> Float[Tensor, "batch *event"]:
        return x.index_select(self.dim, torch.tensor(self.permutations[element], device=x.device))

    def inverse(self, element: int) -> int:
        p = self.permutations[element]
        return self._index[tuple(p.index(i) for i in range(len(p)))]

    def check_input(self, x: object) -> None:
        super().check_input(x)
        x = cast(Tensor, x)
        length = len(self.permutations[0])
        if x.ndim <= -self.dim or x.shape[self.dim] != length:
            raise DataError(
                f"{self.name} permutes {length} entries of axis {self.dim}, and examples of shape "
                f"{tuple(x.shape)[1:]} came"
            )

    def config(self) -> dict[str, Any]:
        return {
            **super().config(),
            "permutations": [list(p) for p in self.permutations],
            "dim": self.dim,
            "name": self.name,
        }
