"""The mirror image of points: a discrete symmetry."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.discrete import FiniteGroup
from bayesinv.transforms.points.base import PointTransform

__all__ = ["Reflection3d"]

AXES = ("x", "y", "z")


@register
class Reflection3d(PointTransform, FiniteGroup):
    """The mirror image, r ↦ (1 − 2 g e eᵀ) r with g = 0 or 1 and e an axis: a group of two elements.

    Its extent is the probability of the mirror image, at most ½, and orbit averages hold both images exactly. Energies
    do not tell a molecule from its mirror image; which axis is mirrored makes no difference where rotations are full.
    A reflection is its own inverse.

    Args:
        axis: whose sign changes: "x", "y" or "z".
        mask: the column that is zero in padded rows; reflections leave these at the origin anyway.

    Raises:
        ValueError: an unknown axis, or a mask among the coordinates.
        DataError: when called on something else than batch × atoms × (3 + F) floating point numbers.

    Example:
        >>> import torch
        >>> points = torch.tensor([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]])
        >>> Reflection3d("z")(points, torch.tensor([[0.0], [1.0]]))[:, 0, 2].tolist()
        [3.0, -3.0]
    """

    def __init__(self, axis: str = "x", mask: int | None = None) -> None:
        super().__init__(mask)
        if axis not in AXES:
            raise ValueError(f"axis: expected one of {', '.join(AXES)}, got {axis!r}")
        self.axis = axis
        self._coordinates = (Coordinate.group(f"reflect_{axis}", 2, f"The mirror image, {axis} to −{axis}."),)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def act(self, x: Float[Tensor, "batch atoms columns"], element: int) -> Float[Tensor, "batch atoms columns"]:
        signs = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
        signs[AXES.index(self.axis)] = -1.0 if element else 1.0
        return x * signs

    def inverse(self, element: int) -> int:
        return element

    def config(self) -> dict[str, Any]:
        return {"type": type(self).__name__, "axis": self.axis, "mask": self.mask}

    def extra_repr(self) -> str:
        return f"axis={self.axis!r}, mask={self.mask}"
