"""Additive white noise on examples of any shape."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, Transform, register
from bayesinv.transforms.white_noise import white_noise

__all__ = ["GaussianNoise"]


@register
class GaussianNoise(Transform):
    """White noise of standard deviation t in the units of the data, on every entry of an example.

        x_e ↦ x_e + t z_e,    z a function of four auxiliary columns (`bayesinv.transforms.white_noise`)

    t is drawn from [0, η]. One draw puts the same field on every example of a shared orbit. There is no inverse.

    Args:
        largest: the largest sensible standard deviation, in the units of the data.
        unit: its name.
        name: of the symmetry.

    Raises:
        ValueError: an extent that is not positive.

    Example:
        >>> import torch
        >>> noise = GaussianNoise(largest=2.0, unit="µV")
        >>> noise(torch.zeros(1, 2, 50), torch.tensor([[0.5, 0.1, -0.7, 0.3, 0.9]])).std().round(decimals=1).item()
        0.5
    """

    num_auxiliary = 4
    fixes_frame = True

    def __init__(self, largest: float = 1.0, unit: str = "units of the data", name: str = "noise") -> None:
        super().__init__()
        self.largest, self.unit, self.name = float(largest), unit, name
        meaning = "Adds white noise of this standard deviation."
        self._coordinates = (Coordinate.linear(name, unit, self.largest, 1.0, meaning, distribution="one_sided"),)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def transform(self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch K"]) -> Float[Tensor, "batch *event"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        z = white_noise(t[:, 1:], x[0].numel())  # (batch, entries)
        return x + (t[:, :1] * z).to(x.dtype).reshape(x.shape)

    def orbit(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "*orbit K"]
    ) -> Float[Tensor, "*orbit_batch_event"]:
        self.check_input(x)
        self.check_coordinates(t)
        z = white_noise(t[..., 1:], x[0].numel())  # one field a draw, for the whole batch
        field = (t[..., :1] * z).to(x.dtype).reshape(*t.shape[:-1], 1, *x.shape[1:])
        return x + field

    def config(self) -> dict[str, Any]:
        return {**super().config(), "largest": self.largest, "unit": self.unit, "name": self.name}
