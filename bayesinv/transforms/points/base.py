"""What transforms of points share: the layout of an example, the padding, and linear maps of the coordinates.

An example is a matrix of atoms (or points) by columns,

    row a:   x, y, z, further columns ...

Its first three columns are coordinates; whatever follows (an atomic number, a charge, a mask) is carried along
untouched. Examples of different sizes share a tensor by padding with rows of zeros. ``mask`` is the index of a further
column that is zero in padded rows and nowhere else, such as that of the atomic number: padded rows then stay at the
origin. Without one every row is a point.

Rotations, scalings and reflections act about the **origin**, so centre the points first.
"""

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.transforms.base import Transform, wrong_kind

__all__ = ["NUM_SPATIAL", "AffinePoints", "PointTransform"]

NUM_SPATIAL = 3  # coordinates come first


class PointTransform(Transform):
    """A transform of examples (atoms, 3 + F).

    Args:
        mask: the column that is zero in padded rows, 3 or more; None if there are none.

    Raises:
        ValueError: a mask among the coordinates.
    """

    def __init__(self, mask: int | None = None) -> None:
        super().__init__()
        if mask is not None and (isinstance(mask, bool) or not isinstance(mask, int) or mask < NUM_SPATIAL):
            raise ValueError(
                f"mask: expected the index of a column after the {NUM_SPATIAL} coordinates, 3 or more, or None; "
                f"got {mask!r}"
            )
        self.mask = mask

    def present(self, x: Float[Tensor, "*batch atoms columns"]) -> Float[Tensor, "*batch atoms 1"]:
        """1 where a row is a point, 0 where it is padding."""
        if self.mask is None:
            return torch.ones_like(x[..., :1])
        return (x[..., self.mask : self.mask + 1] != 0).to(x.dtype)

    def check_input(self, x: object) -> None:
        super().check_input(x)
        if not isinstance(x, Tensor):
            return
        name = type(self).__name__
        if x.ndim != 3 or x.shape[-1] < NUM_SPATIAL:
            behind = "put further columns, such as atomic numbers, behind the coordinates with torch.cat"
            raise wrong_kind(
                self, "points, batch x atoms x (3 + further columns)", x, cure=behind if x.ndim == 3 else ""
            )
        if self.mask is not None and self.mask >= x.shape[-1]:
            raise DataError(
                f"{name} expects the mask in column {self.mask}, and the examples have {x.shape[-1]} columns, "
                f"0..{x.shape[-1] - 1}"
            )
        if torch.compiler.is_compiling():  # a graph does not depend on values
            return
        if self.mask is not None and bool((x[..., :NUM_SPATIAL] * (1.0 - self.present(x))).any()):
            raise DataError(
                f"{name} expects zeros in padded rows, and some rows with a zero in column {self.mask} have "
                "coordinates; set them to zero"
            )


class AffinePoints(PointTransform):
    """r ↦ A(t) r + b(t), one matrix product for a whole orbit."""

    @abstractmethod
    def affine(self, t: Float[Tensor, "*orbit K"]) -> tuple[Float[Tensor, "*orbit 3 3"], Float[Tensor, "*orbit 3"]]:
        """A(t) and b(t)."""

    def transform(
        self, x: Float[Tensor, "batch atoms columns"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch atoms columns"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        A, b = (part.to(x.dtype) for part in self.affine(t))
        moved = x[..., :NUM_SPATIAL] @ A.transpose(-1, -2)  # (batch, atoms, 3)
        return self._assemble(x, moved, b[:, None])

    def orbit(
        self, x: Float[Tensor, "batch atoms columns"], t: Float[Tensor, "*orbit K"]
    ) -> Float[Tensor, "*orbit batch atoms columns"]:
        self.check_input(x)
        self.check_coordinates(t)
        A, b = (part.to(x.dtype) for part in self.affine(t))
        moved = torch.einsum("...ij,naj->...nai", A, x[..., :NUM_SPATIAL])  # (*orbit, batch, atoms, 3)
        return self._assemble(x, moved, b[..., None, None, :])

    def _assemble(self, x: Tensor, moved: Tensor, shift: Tensor) -> Tensor:
        """Shift what is a point, and put the further columns back."""
        moved = moved + shift * self.present(x)
        rest = x[..., NUM_SPATIAL:]
        return torch.cat([moved, rest.expand(*moved.shape[:-1], rest.shape[-1])], -1)
