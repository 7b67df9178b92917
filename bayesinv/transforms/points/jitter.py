"""Independent displacements of points."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.points.base import NUM_SPATIAL, PointTransform
from bayesinv.transforms.white_noise import white_noise

__all__ = ["Jitter3d"]


@register
class Jitter3d(PointTransform):
    """Every point moves on its own, r_a ↦ r_a + t z_a, with z a field of white noise.

    z has mean 0 and variance 1, uncorrelated between points and axes, and is a function of four auxiliary columns of t
    (`bayesinv.transforms.white_noise`): the same draw moves the same rows in the same way. t, drawn from [0, η], is the
    standard deviation of the displacement along each axis. There is no inverse.

    Args:
        mask: the column that is zero in padded rows, which stay at the origin.
        largest: the largest sensible standard deviation, in the unit of the coordinates (ångström).

    Raises:
        ValueError: a mask among the coordinates, or an extent that is not positive.
        DataError: when called on something else than batch × atoms × (3 + F) floating point numbers.

    Example:
        >>> import torch
        >>> t = torch.tensor([[0.1, 0.3, -0.2, 0.7, 0.5]])  # 0.1 Å, and the auxiliaries
        >>> Jitter3d()(torch.zeros(1, 5, 3), t).shape
        torch.Size([1, 5, 3])
    """

    num_auxiliary = 4
    fixes_frame = True

    def __init__(self, mask: int | None = None, largest: float = 0.5) -> None:
        super().__init__(mask)
        self.largest = float(largest)
        meaning = "Standard deviation of the displacement of each point along each axis."
        self._coordinates = (Coordinate.linear("jitter", "Å", self.largest, 1.0, meaning, distribution="one_sided"),)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def transform(
        self, x: Float[Tensor, "batch atoms columns"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch atoms columns"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        z = white_noise(t[:, 1:], x.shape[1] * NUM_SPATIAL).unflatten(-1, (x.shape[1], NUM_SPATIAL))
        moved = x[..., :NUM_SPATIAL] + self.present(x) * (t[:, :1, None] * z).to(x.dtype)
        return torch.cat([moved, x[..., NUM_SPATIAL:]], -1)

    def config(self) -> dict[str, Any]:
        return {"type": type(self).__name__, "mask": self.mask, "largest": self.largest}

    def extra_repr(self) -> str:
        return f"mask={self.mask}, largest={self.largest:g}"
