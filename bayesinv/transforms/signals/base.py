"""What transforms of signals share: the layout batch × channels × time, and a sampling rate."""

import math

import torch
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.transforms.base import Coordinate, Transform

__all__ = ["SignalTransform", "positive", "soft_window"]


class SignalTransform(Transform):
    """A transform of signals with one coordinate."""

    def __init__(self, coordinate: Coordinate) -> None:
        super().__init__()
        self._coordinates = (coordinate,)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def check_input(self, x: object) -> None:
        super().check_input(x)
        if isinstance(x, Tensor) and x.ndim != 3:
            raise DataError(
                f"{type(self).__name__} expects signals, batch x channels x time, and shape {tuple(x.shape)} came; "
                "one channel is x[:, None]"
            )


def positive(name: str, value: float) -> float:
    """The value, if it is a positive finite number.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive finite number, got {value!r}")
    return float(value)


def soft_window(places: Tensor, centre: Tensor, width: Tensor, edge: float) -> Tensor:
    """1 inside centre ± width/2 and 0 outside, with logistic edges; exactly 0 everywhere at width 0."""
    above = torch.sigmoid((places - centre + 0.5 * width) / edge)
    return above - torch.sigmoid((places - centre - 0.5 * width) / edge)
