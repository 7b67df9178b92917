"""What is missing: a stretch of time, a band of frequencies, channels."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.signals.base import SignalTransform, positive, soft_window, time_unit
from bayesinv.transforms.white_noise import white_noise

__all__ = ["BandStop", "ChannelDropout", "TimeMask"]


@register
class TimeMask(SignalTransform):
    """A stretch of t seconds is silent, wherever it lies; its edges are logistic, of ``edge`` seconds.

    t is drawn from [0, η]; one auxiliary column says where the middle lies.

    Args:
        sampling_rate: samples a second; at 1, the default, times are counted in samples.
        largest: the longest sensible stretch, seconds.
        edge: of the mask, seconds; a twentieth of ``largest`` if None.

    Raises:
        ValueError: a number that is not positive.
        DataError: when called on something else than batch × channels × time.

    Example:
        >>> mask = TimeMask(sampling_rate=10.0, largest=2.0, edge=0.01)
        >>> mask(torch.ones(1, 1, 50), torch.tensor([[1.0, 0.0]])).sum().round().item()  # 10 of 50 samples
        40.0
    """

    num_auxiliary = 1

    def __init__(self, sampling_rate: float = 1.0, largest: float = 1.0, edge: float | None = None) -> None:
        self.sampling_rate, self.largest = positive("sampling_rate", sampling_rate), positive("largest", largest)
        self.edge = 0.05 * self.largest if edge is None else positive("edge", edge)
        meaning = "Silences a stretch of this length."
        super().__init__(
            Coordinate.linear(
                "time_mask", time_unit(self.sampling_rate), self.largest, 1.0, meaning, distribution="one_sided"
            )
        )

    def transform(
        self, x: Float[Tensor, "batch channels time"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channels time"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        seconds = (torch.arange(x.shape[-1], dtype=t.dtype, device=t.device) + 0.5) / self.sampling_rate
        length = x.shape[-1] / self.sampling_rate
        window = soft_window(seconds, 0.5 * length * (1.0 + t[:, 1:]), t[:, :1], self.edge)  # (batch, time)
        return x * (1.0 - window).to(x.dtype)[:, None]

    def config(self) -> dict[str, Any]:
        options = {"sampling_rate": self.sampling_rate, "largest": self.largest, "edge": self.edge}
        return {**super().config(), **options}


@register
class BandStop(SignalTransform):
    """A band of t hertz is filtered out, wherever it lies below half the sampling rate; logistic edges.

    t is drawn from [0, η]; one auxiliary column says where the middle lies.

    Args:
        sampling_rate: samples a second, Hz.
        largest: the widest sensible band, Hz.
        edge: of the filter, Hz; a twentieth of ``largest`` if None.

    Raises:
        ValueError: a number that is not positive.
        DataError: when called on something else than batch × channels × time.

    Example:
        >>> BandStop(100.0, largest=2.0)(torch.ones(1, 1, 50), torch.tensor([[1.0, 0.5]])).shape
        torch.Size([1, 1, 50])
    """

    num_auxiliary = 1

    def __init__(self, sampling_rate: float = 1.0, largest: float = 0.1, edge: float | None = None) -> None:
        self.sampling_rate, self.largest = positive("sampling_rate", sampling_rate), positive("largest", largest)
        self.edge = 0.05 * self.largest if edge is None else positive("edge", edge)
        meaning = "Filters out a band of this width."
        super().__init__(Coordinate.linear("band_stop", "Hz", self.largest, 1.0, meaning, distribution="one_sided"))

    def transform(
        self, x: Float[Tensor, "batch channels time"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channels time"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        T = x.shape[-1]
        f = torch.fft.rfftfreq(T, 1.0 / self.sampling_rate, dtype=t.dtype, device=t.device)
        window = soft_window(f, 0.25 * self.sampling_rate * (1.0 + t[:, 1:]), t[:, :1], self.edge)  # (batch, F)
        return torch.fft.irfft(torch.fft.rfft(x) * (1.0 - window).to(x.dtype)[:, None], T)

    def config(self) -> dict[str, Any]:
        options = {"sampling_rate": self.sampling_rate, "largest": self.largest, "edge": self.edge}
        return {**super().config(), **options}


@register
class ChannelDropout(SignalTransform):
    """Channels are lost, each with probability t, by a gate that is logistic in t.

        x_c ↦ x_c (1 - σ((t - u_c)/w) + σ(-u_c/w)),    u_c on [0, 1] from four auxiliary columns, w = 0.02

    t is drawn from [0, η]. The gate has a slope in t, so that η has a gradient, where a coin would have none.

    Raises:
        DataError: when called on something else than batch × channels × time.

    Example:
        >>> ChannelDropout()(torch.ones(1, 3, 5), torch.tensor([[0.0, 0.3, 0.1, -0.7, 0.2]])).sum().item()
        15.0
    """

    num_auxiliary = 4
    _WIDTH = 0.02

    def __init__(self) -> None:
        meaning = "Loses every channel with this probability."
        coordinate = Coordinate.linear("channel_dropout", "% of channels", 1.0, 100.0, meaning, "one_sided")
        super().__init__(coordinate)

    def transform(
        self, x: Float[Tensor, "batch channels time"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channels time"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        u = torch.special.ndtr(white_noise(t[:, 1:], x.shape[1]))  # uniform on [0, 1] if it is normal
        lost = torch.sigmoid((t[:, :1] - u) / self._WIDTH) - torch.sigmoid(-u / self._WIDTH)
        return x * (1.0 - lost).to(x.dtype)[..., None]
