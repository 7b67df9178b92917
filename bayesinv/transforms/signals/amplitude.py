"""The size and the sign of a signal."""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.discrete import FiniteGroup

# The unit of log factors is the same for atoms and signals.
from bayesinv.transforms.points.coordinates import factor_to_percent, percent_to_factor
from bayesinv.transforms.signals.base import SignalTransform, positive

__all__ = ["AmplitudeScale", "SignFlip"]


@register
class AmplitudeScale(SignalTransform):
    """x ↦ exp(t) x. −t is the inverse of t.

    Args:
        largest: the largest sensible |t|; log 4 is four times as loud.

    Raises:
        ValueError: an extent that is not positive.
        DataError: when called on something else than batch × channels × time.

    Example:
        >>> import torch
        >>> AmplitudeScale()(torch.ones(1, 1, 2), torch.tensor([[math.log(2.0)]])).tolist()
        [[[2.0, 2.0]]]
    """

    invertible = True

    def __init__(self, largest: float = math.log(4.0)) -> None:
        self.largest = positive("largest", largest)
        meaning = "Makes the signal larger, by a log factor."
        super().__init__(Coordinate("amplitude", "%", self.largest, factor_to_percent, percent_to_factor, meaning))

    def transform(
        self, x: Float[Tensor, "batch channels time"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channels time"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        return x * t[:, :, None].exp().to(x.dtype)

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t."""
        self.check_coordinates(t)
        return -t

    def config(self) -> dict[str, Any]:
        return {**super().config(), "largest": self.largest}


@register
class SignFlip(FiniteGroup):
    """x ↦ −x, a group of two: the polarity of an electrode. The reversal of time is ``Flip(-1, "time_reversal")``.

    Example:
        >>> import torch
        >>> SignFlip()(torch.ones(2, 1, 1), torch.tensor([[0.0], [1.0]])).flatten().tolist()
        [1.0, -1.0]
    """

    coordinates = (Coordinate.group("sign_flip", 2, "Changes the sign of the whole example."),)

    def act(self, x: Float[Tensor, "batch *event"], element: int) -> Float[Tensor, "batch *event"]:
        return -x if element else x

    def inverse(self, element: int) -> int:
        return element
