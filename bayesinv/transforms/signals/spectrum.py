"""Which frequencies a signal holds, and how they are aligned."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, register
from bayesinv.transforms.signals.base import SignalTransform, positive
from bayesinv.transforms.white_noise import white_noise

__all__ = ["FourierSurrogate", "FrequencyShift"]


@register
class FrequencyShift(SignalTransform):
    """All frequencies raised by t hertz, through the analytic signal.

        x ↦ Re[ z(τ) exp(2πi t τ) ],    z = x + i H[x], H the Hilbert transform

    What passes 0 or half the sampling rate comes back from there. The transform has no exact inverse: −t undoes it but
    for what has passed.

    Args:
        sampling_rate: samples a second, Hz.
        largest: the largest sensible shift, Hz; None is 2 % of the sampling rate.

    Raises:
        ValueError: a rate or an extent that is not positive.
        DataError: when called on something else than batch × channels × time.

    Reference:
        C. Rommel, T. Moreau, J. Paillard, A. Gramfort (2022). CADDA: class-wise automatic differentiable data
        augmentation for EEG signals. arXiv:2106.13695.

    Example:
        >>> time = torch.arange(100) / 100
        >>> wave = torch.cos(2 * math.pi * 5 * time)[None, None]
        >>> raised = FrequencyShift(100.0)(wave, torch.tensor([[2.0]]))
        >>> bool(torch.allclose(raised[0, 0], torch.cos(2 * math.pi * 7 * time), atol=1e-4))
        True
    """

    def __init__(self, sampling_rate: float = 1.0, largest: float | None = None) -> None:
        self.sampling_rate = positive("sampling_rate", sampling_rate)
        self.largest = positive("largest", 0.02 * self.sampling_rate if largest is None else largest)
        super().__init__(Coordinate.linear("frequency_shift", "Hz", self.largest, 1.0, "Raises all frequencies."))

    def transform(
        self, x: Float[Tensor, "batch channels time"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channels time"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        T = x.shape[-1]
        spectrum = torch.fft.fft(x)
        # Positive frequencies twice, negative ones not at all; the mean and the highest of an even length once.
        gain = torch.zeros(T, dtype=x.dtype, device=x.device)
        gain[0] = 1.0
        gain[1 : (T + 1) // 2] = 2.0
        if T % 2 == 0:
            gain[T // 2] = 1.0
        analytic = torch.fft.ifft(spectrum * gain)
        seconds = torch.arange(T, dtype=x.dtype, device=x.device) / self.sampling_rate
        angle = 2.0 * math.pi * t[:, :, None].to(x.dtype) * seconds  # (batch, 1, time)
        return analytic.real * angle.cos() - analytic.imag * angle.sin()

    def config(self) -> dict[str, Any]:
        return {**super().config(), "sampling_rate": self.sampling_rate, "largest": self.largest}


@register
class FourierSurrogate(SignalTransform):
    """Random phases: the amplitude spectrum stays, and when things happen is lost by degrees.

        x̂(f) ↦ x̂(f) exp(i t φ_f),    φ_f uniform on [-1, 1], from four auxiliary columns

    At t = π phases are uniform on the circle. Mean and highest frequency keep theirs.

    Args:
        shared: whether channels share φ, which keeps their phase differences.

    Raises:
        DataError: when called on something else than batch × channels × time.

    Reference:
        J. T. C. Schwabedal, J. C. Snyder, A. Cakmak, S. Nemati, G. D. Clifford (2018). Addressing class imbalance in
        classification problems of noisy signals by using Fourier transform surrogates. arXiv:1806.08675.

    Example:
        >>> x = torch.randn(1, 1, 64)
        >>> y = FourierSurrogate()(x, torch.tensor([[3.0, 0.1, -0.4, 0.6, 0.2]]))
        >>> bool(torch.allclose(torch.fft.rfft(y).abs(), torch.fft.rfft(x).abs(), atol=1e-4))
        True
    """

    num_auxiliary = 4

    def __init__(self, shared: bool = True) -> None:
        self.shared = shared
        meaning = "Turns the phase of every frequency by an amount of its own."
        super().__init__(Coordinate.linear("surrogate_phase", "°", math.pi, 180.0 / math.pi, meaning))

    def transform(
        self, x: Float[Tensor, "batch channels time"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channels time"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        T, C = x.shape[-1], x.shape[1]
        spectrum = torch.fft.rfft(x)  # (batch, C, F)
        num = spectrum.shape[-1]
        rows = 1 if self.shared else C
        normal = white_noise(t[:, 1:], rows * num).unflatten(-1, (rows, num))
        phi = torch.erf(normal / math.sqrt(2.0))  # uniform on [-1, 1] if it is normal
        keep = torch.ones(num, dtype=phi.dtype, device=phi.device)
        keep[0] = 0.0
        if T % 2 == 0:
            keep[-1] = 0.0
        angle = (t[:, :1, None] * phi * keep).to(x.dtype)
        return torch.fft.irfft(spectrum * torch.polar(torch.ones_like(angle), angle), T)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "shared": self.shared}
