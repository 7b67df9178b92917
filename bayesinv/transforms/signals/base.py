"""What transforms of signals share: the layout batch × channels × time, and a sampling rate."""

import math

import torch
from torch import Tensor

from bayesinv.transforms.base import Coordinate, Transform, wrong_kind

__all__ = ["SignalTransform", "positive", "soft_window", "time_unit"]


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
            single = "signals of one channel get its axis with x[:, None]"
            raise wrong_kind(self, "signals, batch x channels x time", x, cure=single if x.ndim == 2 else "")


def positive(name: str, value: float) -> float:
    """The value, if it is a positive finite number.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive finite number, got {value!r}")
    return float(value)


def time_unit(sampling_rate: float) -> str:
    """What times are in: seconds, or samples where one comes a second, as without a sampling rate."""
    return "s" if sampling_rate != 1.0 else "samples"


def soft_window(places: Tensor, centre: Tensor, width: Tensor, edge: float) -> Tensor:
    """1 inside centre ± width/2 and 0 outside, with logistic edges; exactly 0 everywhere at width 0."""
    above = torch.sigmoid((places - centre + 0.5 * width) / edge)
    return above - torch.sigmoid((places - centre - 0.5 * width) / edge)
