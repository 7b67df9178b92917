"""Moving points along the axes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.points.base import AffinePoints
from bayesinv.transforms.points.coordinates import COORDINATES_3D, LARGEST_SHIFT, select

__all__ = ["Translation3d"]

NAMES = ("translate_x", "translate_y", "translate_z")


@register
class Translation3d(AffinePoints):
    """Translations, r ↦ r + t for every point; padded rows stay at the origin.

    Translations add up, so −t is the inverse of t.

    Args:
        names: which of translate_x, translate_y, translate_z; the default is all three.
        mask: the column that is zero in padded rows, for examples (atoms, 3 + F) of different sizes.
        largest: the largest sensible extent, in the unit of the coordinates (ångström).

    Raises:
        ValueError: an unknown or repeated name, an empty list, a mask among the coordinates, or an extent that is not
            positive.
        DataError: when called on something else than batch × atoms × (3 + F) floating point numbers.

    Example:
        >>> import torch
        >>> Translation3d("translate_x")(torch.zeros(1, 2, 3), torch.tensor([[1.5]])).tolist()
        [[[1.5, 0.0, 0.0], [1.5, 0.0, 0.0]]]
    """

    invertible = True

    def __init__(
        self, names: Sequence[str] | None = None, mask: int | None = None, largest: float = LARGEST_SHIFT
    ) -> None:
        super().__init__(mask)
        chosen = select(names, NAMES, "Translation3d")
        self.largest = float(largest)
        self._coordinates = tuple(replace(COORDINATES_3D[name], largest=self.largest) for name in chosen)
        self.directions: Tensor
        directions = torch.eye(3, dtype=torch.float64)[[NAMES.index(name) for name in chosen]]  # (K, 3)
        self.register_buffer("directions", directions, persistent=False)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def affine(self, t: Float[Tensor, "*orbit K"]) -> tuple[Float[Tensor, "*orbit 3 3"], Float[Tensor, "*orbit 3"]]:
        return torch.eye(3).to(t).expand(*t.shape[:-1], 3, 3), t @ self.directions.to(t)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t."""
        self.check_coordinates(t)
        return -t

    def config(self) -> dict[str, Any]:
        return {"type": type(self).__name__, "names": list(self.names), "mask": self.mask, "largest": self.largest}

    def extra_repr(self) -> str:
        return f"{list(self.names)}, mask={self.mask}, largest={self.largest:g}"
