"""All rotations with one extent, uniform over the rotation group at 180°."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.points.base import AffinePoints

__all__ = ["SO3", "axis_from_auxiliaries", "rotation_about"]


def axis_from_auxiliaries(auxiliaries: Float[Tensor, "*orbit 2"]) -> Float[Tensor, "*orbit 3"]:
    """A unit vector, uniform on the sphere for auxiliaries uniform on [−1, 1]².

        (√(1 − u²) cos πv, √(1 − u²) sin πv, u)

    by Archimedes: the height of a uniform point of the sphere is uniform.
    """
    height, turn = auxiliaries[..., 0], math.pi * auxiliaries[..., 1]
    radius = (1.0 - height.square()).clamp(min=0.0).sqrt()
    return torch.stack([radius * turn.cos(), radius * turn.sin(), height], -1)


def rotation_about(axis: Float[Tensor, "*orbit 3"], angle: Float[Tensor, "*orbit"]) -> Float[Tensor, "*orbit 3 3"]:
    """R = 1 + sin θ N + (1 − cos θ) N², N r = n × r (Rodrigues)."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    N = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    sine, cosine = angle.sin()[..., None, None], angle.cos()[..., None, None]
    return torch.eye(3).to(axis) + sine * N + (1.0 - cosine) * (N @ N)


@register
class SO3(AffinePoints):
    """Rotations about any axis by an angle up to the extent: the ball of angle η in SO(3).

        R = rotation about n by θ,    n uniform on the sphere,    p(θ | η) ∝ 1 − cos θ on [0, η]

    n is read off two auxiliary columns of t; the coordinate is θ. The density of the angle is that of the uniform
    (Haar) measure of the group, restricted to angles of at most η: its distribution function is
    (θ − sin θ) / (η − sin η), the augmentation distribution ``"haar"``. The draws are therefore uniform over the ball
    that they fill, and at **η = π uniform over SO(3)**: E[R] = 0, and an average over the orbit is the invariant
    average over the whole group. θ and −θ about the same axis are inverse to each other.

    One extent cannot tell the axes apart; `Rotation3d` has three.

    Args:
        mask: the column that is zero in padded rows; rotations leave these at the origin anyway.

    Raises:
        ValueError: a mask among the coordinates.
        DataError: when called on something else than batch × atoms × (3 + F) floating point numbers.

    Reference:
        K. Shoemake (1992). Uniform random rotations. Graphics Gems III.

    Example:
        >>> import torch
        >>> points = torch.tensor([[[1.0, 0.0, 0.0]]])
        >>> about_z = torch.tensor([[torch.pi / 2, 1.0, 0.0]])  # the angle, and the auxiliaries of the axis
        >>> SO3()(points, about_z).round().abs().tolist()  # x towards y
        [[[0.0, 1.0, 0.0]]]
    """

    invertible = True
    num_auxiliary = 2
    coordinates = (
        Coordinate.linear(
            "rotation",
            "°",
            math.pi,
            180.0 / math.pi,
            "Turns about an axis that is uniform on the sphere.",
            distribution="haar",
        ),
    )

    def __init__(self, mask: int | None = None) -> None:
        super().__init__(mask)

    def matrix(self, t: Float[Tensor, "*orbit 3"]) -> Float[Tensor, "*orbit 3 3"]:
        """R(t) of an angle and two auxiliaries."""
        self.check_coordinates(t)
        return rotation_about(axis_from_auxiliaries(t[..., 1:]), t[..., 0])

    def affine(self, t: Float[Tensor, "*orbit 3"]) -> tuple[Float[Tensor, "*orbit 3 3"], Float[Tensor, "*orbit 3"]]:
        return self.matrix(t), t.new_zeros(3).expand(*t.shape[:-1], 3)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit 3"]) -> Float[Tensor, "*orbit 3"]:
        """(−θ, the same axis)."""
        self.check_coordinates(t)
        return torch.cat([-t[..., :1], t[..., 1:]], -1)

    def config(self) -> dict[str, Any]:
        return {"type": type(self).__name__, "mask": self.mask}

    def extra_repr(self) -> str:
        return f"mask={self.mask}"
