"""Moves along the time axis: a shift, and a smooth warp."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.signals.base import SignalTransform, positive, time_unit

__all__ = ["TimeShift", "TimeWarp"]

PADDINGS = ("circular", "zeros")


@register
class TimeShift(SignalTransform):
    """x(τ) ↦ x(τ - t): later by t seconds, a fraction of a sample included.

        x̂(f) ↦ exp(-2πi f t) x̂(f)

    −t is the inverse of t: exact for circular signals of odd length, but for the highest frequency of an even one. With
    zeros what has left the signal does not come back.

    Args:
        sampling_rate: samples a second; at 1, the default, times are counted in samples.
        largest: the largest sensible shift, seconds; within half of a circular recording.
        padding: ``"circular"``, or ``"zeros"`` for silence before and after.

    Raises:
        ValueError: a rate or an extent that is not positive, or an unknown padding.
        DataError: when called on something else than batch × channels × time.

    Example:
        >>> TimeShift(sampling_rate=1.0, largest=2.0)(
        ...     torch.eye(4)[:1, None], torch.tensor([[1.0]])
        ... ).round().abs().tolist()
        [[[0.0, 1.0, 0.0, 0.0]]]
    """

    invertible = True

    def __init__(self, sampling_rate: float = 1.0, largest: float = 1.0, padding: str = "circular") -> None:
        self.sampling_rate, self.largest = positive("sampling_rate", sampling_rate), positive("largest", largest)
        if padding not in PADDINGS:
            raise ValueError(f"padding: expected one of {list(PADDINGS)}, got {padding!r}")
        self.padding = padding
        super().__init__(
            Coordinate.linear(
                "time_shift", time_unit(self.sampling_rate), self.largest, 1.0, "Moves the signal to later times."
            )
        )

    def transform(
        self, x: Float[Tensor, "batch channels time"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channels time"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        T = x.shape[-1]
        pad = T if self.padding == "zeros" else 0
        padded = F.pad(x, (0, pad))
        n = T + pad
        f = torch.fft.rfftfreq(n, 1.0 / self.sampling_rate, dtype=x.dtype, device=x.device)
        later = t[:, :1].to(x.dtype)
        if pad:
            # A whole length away all is silence; further on the padded signal would come round again.
            later = later.clamp(-T / self.sampling_rate, T / self.sampling_rate)
        angle = 2.0 * math.pi * later * f  # (batch, F)
        # At the highest frequency of an even length only the cosine is real.
        phase = torch.polar(torch.ones_like(angle), -angle)
        if n % 2 == 0:
            phase = torch.cat([phase[:, :-1], phase[:, -1:].real.to(phase.dtype)], -1)
        return torch.fft.irfft(torch.fft.rfft(padded) * phase[:, None], n)[..., :T]

    def inverse_coordinates(self, t: Float[Tensor, "*orbit K"]) -> Float[Tensor, "*orbit K"]:
        """−t."""
        self.check_coordinates(t)
        return -t

    def config(self) -> dict[str, Any]:
        options = {"sampling_rate": self.sampling_rate, "largest": self.largest, "padding": self.padding}
        return {**super().config(), **options}


@register
class TimeWarp(SignalTransform):
    """A smooth, monotone warp of the time axis that keeps both ends.

        x(s) ↦ x(s + t Σ_k a_k sin(πks) / (πkK)),    s in [0, 1], K = 3, a_k in [-1, 1] auxiliary

    t bounds the relative change of speed: at 0.5 parts are up to half as fast again. Linear interpolation.

    Args:
        largest: the largest sensible t, below 1, where time would stand still.

    Raises:
        ValueError: an extent that is not in (0, 1).
        DataError: when called on something else than batch × channels × time.

    Example:
        >>> TimeWarp()(torch.zeros(2, 1, 50), torch.rand(2, 4)).shape
        torch.Size([2, 1, 50])
    """

    num_auxiliary = 3

    def __init__(self, largest: float = 0.9) -> None:
        self.largest = positive("largest", largest)
        if self.largest >= 1:
            raise ValueError(f"largest: expected a change of speed below 1, got {largest!r}")
        super().__init__(
            Coordinate.linear("time_warp", "% of speed", self.largest, 100.0, "Runs parts faster and others slower.")
        )

    def transform(
        self, x: Float[Tensor, "batch channels time"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channels time"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        T, K = x.shape[-1], self.num_auxiliary
        s = torch.linspace(0.0, 1.0, T, dtype=t.dtype, device=t.device)
        k = torch.arange(1, K + 1, dtype=t.dtype, device=t.device)
        waves = torch.sin(math.pi * k[:, None] * s) / (math.pi * K * k[:, None])  # (K, T), of slopes at most 1/K
        places = (s + t[:, :1] * (t[:, 1:] @ waves)).clamp(0.0, 1.0) * (T - 1)  # (batch, T)
        low = places.detach().floor().clamp(0, max(T - 2, 0)).long()
        share = (places - low).to(x.dtype)[:, None]
        index = low[:, None].expand(-1, x.shape[1], -1)
        return torch.lerp(x.gather(-1, index), x.gather(-1, (index + 1).clamp_max(T - 1)), share)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "largest": self.largest}
