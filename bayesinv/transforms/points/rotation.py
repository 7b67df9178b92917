"""Rotations about the three axes, through the exponential of so(3)."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.exponential import exponential
from bayesinv.transforms.points.base import AffinePoints
from bayesinv.transforms.points.coordinates import COORDINATES_3D, generators, select

__all__ = ["Rotation3d"]

NAMES = ("rotation_x", "rotation_y", "rotation_z")


@register
class Rotation3d(AffinePoints):
    """Rotations about x, y and z, each with an extent of its own.

        R(t) = exp(t_x L_x + t_y L_y + t_z L_z),    r ↦ R(t) r

    t is the rotation vector: its direction is the axis and its length |t| the angle. L_x carries y towards z, and so
    on around: rotations are right-handed. −t is the inverse of t.

    The three extents say about which axes the data do not care: a molecule in a random orientation has three large
    ones, one that lies on a surface has one. With all three at π the draws fill a cube around the ball |t| ≤ π, hence
    all of SO(3), but **not evenly**: angles below 60° come a third as often as under the uniform (Haar) measure and
    angles above 150° 1.4 times as often, and E[R] = −0.12 (it is zero at three extents of 132°). `SO3` has one extent
    and the uniform measure at π; ``Compose`` of three `Rotation3d`, one an axis, is a product R_z R_y R_x with
    E[R] = 0 at π.

    Args:
        names: which of rotation_x, rotation_y, rotation_z; the default is all three.
        mask: the column that is zero in padded rows; rotations leave these at the origin anyway.

    Raises:
        ValueError: an unknown or repeated name, an empty list, or a mask among the coordinates.
        DataError: when called on something else than batch × atoms × (3 + F) floating point numbers.

    Reference:
        J. Diebel (2006). Representing attitude: Euler angles, unit quaternions, and rotation vectors.

    Example:
        >>> import torch
        >>> points = torch.tensor([[[1.0, 0.0, 0.0, 6.0]]])  # one carbon atom on the x axis
        >>> turned = Rotation3d("rotation_z")(points, torch.tensor([[torch.pi / 2]]))
        >>> turned.round().abs().tolist()  # x towards y; the atomic number is carried along
        [[[0.0, 1.0, 0.0, 6.0]]]
    """

    invertible = True

    def __init__(self, names: Sequence[str] | None = None, mask: int | None = None) -> None:
        super().__init__(mask)
        chosen = select(names, NAMES, "Rotation3d")
        self._coordinates = tuple(COORDINATES_3D[name] for name in chosen)
        self.generators: Tensor
        self.register_buffer("generators", generators(chosen)[:, :3, :3], persistent=False)  # (K, 3, 3)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def matrix(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        """R(t), a proper rotation."""
        self.check_coordinates(t)
        return exponential(self.generators, t)

    def affine(self, t: Float[Tensor, "*orbit K"]) -> tuple[Float[Tensor, "*orbit 3 3"], Float[Tensor, "*orbit 3"]]:
        return self.matrix(t), t.new_zeros(3).expand(*t.shape[:-1], 3)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t: the same axis, the other way round."""
        self.check_coordinates(t)
        return -t

    def config(self) -> dict[str, Any]:
        return {"type": type(self).__name__, "names": list(self.names), "mask": self.mask}

    def extra_repr(self) -> str:
        return f"{list(self.names)}, mask={self.mask}"
