"""Colour of images: brightness, contrast, saturation and hue in one matrix."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.transforms.base import Coordinate, Transform, register, wrong_kind
from bayesinv.transforms.points.coordinates import factor_to_percent, percent_to_factor

__all__ = ["COLOUR_COORDINATES", "Colour"]

COLOUR_COORDINATES: dict[str, Coordinate] = {
    coordinate.name: coordinate
    for coordinate in (
        Coordinate.linear("brightness", "% of the range", 0.5, 100.0, "Adds light, the same to all channels."),
        Coordinate("contrast", "%", math.log(4.0), factor_to_percent, percent_to_factor, "Spreads about middle grey."),
        Coordinate(
            "saturation", "%", math.log(4.0), factor_to_percent, percent_to_factor, "Spreads colours about their grey."
        ),
        Coordinate.linear("hue", "°", math.pi, 180.0 / math.pi, "Turns colours about the grey axis."),
    )
}
"""The four coordinates by name, in the order in which they act backwards: hue first, brightness last."""

_GREY = 1.0 / math.sqrt(3.0)


@register
class Colour(Transform):
    """Brightness b, contrast c, saturation s and hue h, as one affine map of the channels of each pixel.

        p ↦ e^c (G + e^s R(h) (I - G)) (p - m) + m + b,    G the projection on grey, m middle grey

    R(h) turns colours by h about the grey axis of the RGB cube, so that the grey of a pixel (the mean of its channels)
    keeps its place under saturation and hue. Values are not clipped, which would leave no gradient and no inverse;
    they may leave [0, 1]. With brightness and contrast alone any number of channels will do. Inverses exist, but not
    in these coordinates unless brightness or contrast is alone.

    Args:
        names: which of the four; all by default.
        middle: m, middle grey of the data; 0.5 for images in [0, 1], 0 for standardised ones.

    Raises:
        ValueError: unknown or repeated names, or none.
        DataError: when called on images without three channels, with saturation or hue.

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
        >>> turned = Colour(["hue"])(red, torch.tensor([[2 * math.pi / 3]]))
        >>> turned.flatten().round().abs().tolist()  # green
        [0.0, 1.0, 0.0]
    """

    fixes_frame = True

    def __init__(self, names: Sequence[str] = tuple(COLOUR_COORDINATES), middle: float = 0.5) -> None:
        super().__init__()
        names = [names] if isinstance(names, str) else list(names)
        unknown = sorted(set(names) - set(COLOUR_COORDINATES))
        if not names or unknown or len(set(names)) < len(names):
            raise ValueError(f"names: expected some of {', '.join(COLOUR_COORDINATES)}, each once, got {names}")
        self._names = [name for name in COLOUR_COORDINATES if name in names]
        self.middle = float(middle)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return tuple(COLOUR_COORDINATES[name] for name in self._names)

    def transform(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        matrix, offset = self._map(t, x)
        if matrix is None:
            scale, shift = offset
            return x * scale[:, None, None, None] + shift[:, None, None, None]
        return torch.einsum("bij,bjhw->bihw", matrix, x) + offset[1][:, :, None, None]

    def orbit(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "*orbit K"]
    ) -> Float[Tensor, "*orbit batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t)
        matrix, offset = self._map(t, x)
        if matrix is None:
            scale, shift = (v[..., None, None, None, None] for v in offset)
            return x * scale + shift
        return torch.einsum("...ij,bjhw->...bihw", matrix, x) + offset[1][..., None, :, None, None]

    def check_input(self, x: object) -> None:
        super().check_input(x)
        if not isinstance(x, Tensor):
            return
        if x.ndim != 4:
            raise wrong_kind(self, "images, batch x channel x height x width", x)
        if x.shape[1] != 3 and self._has_colours:
            raise DataError(
                f"saturation and hue need the three channels of RGB, and images of {x.shape[1]} came; for those use "
                'Colour(["brightness", "contrast"])'
            )

    @property
    def _has_colours(self) -> bool:
        return "saturation" in self._names or "hue" in self._names

    def _map(self, t: Tensor, x: Tensor) -> tuple[Tensor | None, tuple[Tensor, Tensor]]:
        """The matrix (..., 3, 3), None without saturation and hue, and (scale, shift) of what comes after."""
        zero = torch.zeros_like(t[..., 0])
        by_name = {name: t[..., k] for k, name in enumerate(self._names)}
        brightness, contrast, saturation, hue = (by_name.get(name, zero).to(x.dtype) for name in COLOUR_COORDINATES)
        scale = contrast.exp()
        shift = self.middle * (1.0 - scale) + brightness
        if not self._has_colours:
            return None, (scale, shift)
        # Rodrigues about the grey axis u: R(h)(I - G) = cos(h) (I - G) + sin(h) [u]×.
        eye = torch.eye(3, dtype=x.dtype, device=x.device)
        grey = torch.full((3, 3), 1.0 / 3.0, dtype=x.dtype, device=x.device)
        cross = _GREY * torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=x.dtype, device=x.device)
        chroma = saturation.exp()[..., None, None]
        turned = hue.cos()[..., None, None] * (eye - grey) + hue.sin()[..., None, None] * cross
        matrix = scale[..., None, None] * (grey + chroma * turned)
        return matrix, (scale, shift[..., None].expand(*shift.shape, 3))

    def config(self) -> dict[str, Any]:
        return {**super().config(), "names": self._names, "middle": self.middle}
