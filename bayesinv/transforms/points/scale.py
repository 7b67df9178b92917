"""Enlarging points about the origin."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.points.base import AffinePoints
from bayesinv.transforms.points.coordinates import factor_to_percent, percent_to_factor

__all__ = ["Scale3d"]


@register
class Scale3d(AffinePoints):
    """The same factor along all three axes, r ↦ exp(t) r.

    Molecules have a scale of their own, the length of their bonds: its extent should go to zero. `Affine3d` has one
    factor an axis. −t is the inverse of t.

    Args:
        mask: the column that is zero in padded rows; scaling leaves these at the origin anyway.

    Raises:
        ValueError: a mask among the coordinates.
        DataError: when called on something else than batch × atoms × (3 + F) floating point numbers.

    Example:
        >>> import math, torch
        >>> Scale3d()(torch.ones(1, 1, 3), torch.tensor([[math.log(2.0)]])).tolist()
        [[[2.0, 2.0, 2.0]]]
    """

    invertible = True
    coordinates = (
        Coordinate(
            "scale",
            "%",
            math.log(2.0),
            factor_to_percent,
            percent_to_factor,
            "Enlarges about the origin, by a log factor.",
        ),
    )

    def __init__(self, mask: int | None = None) -> None:
        super().__init__(mask)

    def affine(self, t: Float[Tensor, "*orbit K"]) -> tuple[Float[Tensor, "*orbit 3 3"], Float[Tensor, "*orbit 3"]]:
        A = torch.eye(3).to(t) * t.exp()[..., None]  # (*orbit, 3, 3)
        return A, t.new_zeros(3).expand(*t.shape[:-1], 3)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t: the inverse factor."""
        self.check_coordinates(t)
        return -t

    def config(self) -> dict[str, Any]:
        return {"type": type(self).__name__, "mask": self.mask}

    def extra_repr(self) -> str:
        return f"mask={self.mask}"
