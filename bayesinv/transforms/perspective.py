"""Perspective: images seen from the side, by a homography with two coordinates."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.affine2d import MatrixWarp
from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.warp import INTERPOLATIONS, PADDINGS

__all__ = ["PERSPECTIVE_COORDINATES", "Perspective"]

# At 0.4 along both axes the far corner of a square image is 1.8 times as far away as the middle, the near one a fifth.
_LARGEST = 0.4

PERSPECTIVE_COORDINATES: dict[str, Coordinate] = {
    coordinate.name: coordinate
    for coordinate in (
        Coordinate.linear("perspective_x", "% of distance", _LARGEST, 100.0, "Moves the right edge away."),
        Coordinate.linear("perspective_y", "% of distance", _LARGEST, 100.0, "Moves the lower edge away."),
    )
}
"""The two coordinates by name: how much further away the edge is than the middle, which stays where it is."""


@register
class Perspective(MatrixWarp):
    """Perspective: the plane of the image is tilted, and what is further away is smaller.

        (T_t x)(p) = x(H(t)⁻¹ p),    H(t) p = p / (1 + t_x p_x + t_y p_y)

    in isotropic coordinates, 1 being half the width. With the six of `Affine2d` these two generate all eight
    parameters of a plane homography; next to one in a `Compose`, both are sampled once. H(−t) H(t) = 1. What lies
    behind the viewer is outside the image.

    Args:
        names: which coordinates, in which order; the default is both.
        padding: what lies outside the image: ``"zeros"``, ``"border"`` or ``"reflection"``.
        interpolation: ``"bilinear"`` or ``"bicubic"``.

    Raises:
        ValueError: an unknown or repeated name, none, or an unknown padding or interpolation.
        DataError: when called on something else than floating point images, batch × channel × height × width.

    Reference:
        R. Hartley, A. Zisserman (2004). Multiple view geometry in computer vision, section 2.4. Cambridge.

    Example:
        >>> t = torch.tensor([[0.25, 0.0]])
        >>> right_edge = Perspective().matrix(t) @ torch.tensor([1.0, 0.0, 1.0])
        >>> (right_edge[:, 0] / right_edge[:, 2]).tolist()  # 25 % further away
        [0.800000011920929]
    """

    invertible = True
    projective = True

    def __init__(
        self,
        names: Sequence[str] = tuple(PERSPECTIVE_COORDINATES),
        padding: str = "zeros",
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__()
        names = [names] if isinstance(names, str) else list(names)
        if not names or set(names) - set(PERSPECTIVE_COORDINATES) or len(set(names)) < len(names):
            raise ValueError(f"names: expected some of {', '.join(PERSPECTIVE_COORDINATES)}, each once, got {names}")
        if padding not in PADDINGS:
            raise ValueError(f"unknown padding {padding!r}; known are {', '.join(PADDINGS)}")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"unknown interpolation {interpolation!r}; known are {', '.join(INTERPOLATIONS)}")
        self._coordinates = tuple(PERSPECTIVE_COORDINATES[name] for name in names)
        self.padding, self.interpolation = padding, interpolation
        self._axes = [0 if name == "perspective_x" else 1 for name in names]

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def matrix(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        """H(t), acting on columns (x, y, 1) of isotropic coordinates."""
        self.check_coordinates(t)
        place = torch.zeros(len(self._axes), 9, dtype=t.dtype, device=t.device)
        place[range(len(self._axes)), [6 + axis for axis in self._axes]] = 1.0
        eye = torch.eye(3, dtype=t.dtype, device=t.device)
        return eye + (t @ place).reshape(*t.shape[:-1], 3, 3)

    def pullback(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit 3 3"]:
        """H(−t), which is H(t)⁻¹: the generators annihilate each other."""
        return self.matrix(-t)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t."""
        self.check_coordinates(t)
        return -t

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " K"]:
        """The extents at which nothing inside the inscribed circle moves by more than half a pixel, to first order.

        At a distance of r half widths points move by t r² half widths; r = m / width, m the shorter side.
        """
        height, width = event_shape[-2:]
        value = min(width / min(height, width) ** 2, 0.5 * _LARGEST)
        return torch.full((len(self._axes),), value, dtype=torch.float64)

    def config(self) -> dict[str, Any]:
        return {
            **super().config(),
            "names": list(self.names),
            "padding": self.padding,
            "interpolation": self.interpolation,
        }

    def extra_repr(self) -> str:
        return f"{list(self.names)}, padding={self.padding!r}, interpolation={self.interpolation!r}"
