"""Transforms of signals: conformance, and what they do to sinusoids."""

import math

import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.testing.transforms import TransformConformance
from bayesinv.transforms import (
    AmplitudeScale,
    BandStop,
    ChannelDropout,
    Flip,
    FourierSurrogate,
    FrequencyShift,
    SignFlip,
    TimeMask,
    TimeShift,
    TimeWarp,
)

RATE = 50.0


def signals(length=64):
    """Smooth signals of three channels, float64, (4, 3, length)."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(length, dtype=torch.float64) / RATE
    frequency = 1.0 + 5.0 * torch.rand(4, 3, 1, generator=generator, dtype=torch.float64)
    return torch.cos(2 * math.pi * frequency * time + frequency)


class SignalConformance(TransformConformance):
    def make_input(self):
        return signals()


class TestTimeShift(SignalConformance):
    def make_transform(self):
        return TimeShift(RATE, 0.4)

    def make_input(self):
        return signals(63)


class TestTimeShiftEvenLength(SignalConformance):
    inverse_tolerance = 0.02  # the highest frequency has no sine

    def make_transform(self):
        return TimeShift(RATE, 0.4)


class TestTimeShiftZeros(SignalConformance):
    inverse_tolerance = 0.9  # what has left the frame is gone

    def make_transform(self):
        return TimeShift(RATE, 0.2, padding="zeros")


class TestTimeWarp(SignalConformance):
    def make_transform(self):
        return TimeWarp()


class TestAmplitude(SignalConformance):
    def make_transform(self):
        return AmplitudeScale()


class TestSignFlip(SignalConformance):
    def make_transform(self):
        return SignFlip()


class TestTimeReversal(SignalConformance):
    def make_transform(self):
        return Flip(-1, "time_reversal")


class TestFrequencyShift(SignalConformance):
    def make_transform(self):
        return FrequencyShift(RATE, 3.0)


class TestFrequencyShiftOddLength(TestFrequencyShift):
    def make_input(self):
        return signals(63)


class TestSurrogate(SignalConformance):
    def make_transform(self):
        return FourierSurrogate()


class TestSurrogateByChannel(SignalConformance):
    def make_transform(self):
        return FourierSurrogate(shared=False)


class TestTimeMask(SignalConformance):
    def make_transform(self):
        return TimeMask(RATE, 0.5)


class TestBandStop(SignalConformance):
    def make_transform(self):
        return BandStop(RATE, 6.0)


class TestChannelDropout(SignalConformance):
    reach = 0.9  # so that a gate opens

    def make_transform(self):
        return ChannelDropout()


def wave(frequency, length=100, phase=0.3):
    time = torch.arange(length, dtype=torch.float64) / RATE
    return torch.cos(2 * math.pi * frequency * time + phase)[None, None]


def column(*values):
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize("length", [100, 101])
def test_time_shift_moves_a_sinusoid(length):
    frequency = 3 * RATE / length  # whole periods
    moved = TimeShift(RATE)(wave(frequency, length), column(0.123))
    torch.testing.assert_close(moved, wave(frequency, length, 0.3 - 2 * math.pi * frequency * 0.123))


def test_time_shift_with_silence_loses_what_leaves():
    moved = TimeShift(1.0, 10.0, "zeros")(torch.ones(1, 1, 8, dtype=torch.float64), column(3.0))
    torch.testing.assert_close(moved[0, 0], torch.tensor([0.0] * 3 + [1.0] * 5, dtype=torch.float64))


@pytest.mark.parametrize("shift", [-1.5, 0.7, 2.0])
def test_frequency_shift_raises_a_sinusoid(shift):
    torch.testing.assert_close(FrequencyShift(RATE)(wave(5.0), column(shift)), wave(5.0 + shift))


def test_surrogates_keep_the_amplitude_spectrum_and_channel_differences():
    x, t = signals(), column(3.0, 0.2, -0.6, 0.9, 0.1).expand(4, 5)
    before = torch.fft.rfft(x)
    together, apart = torch.fft.rfft(FourierSurrogate()(x, t)), torch.fft.rfft(FourierSurrogate(False)(x, t))
    torch.testing.assert_close(together.abs(), before.abs())
    torch.testing.assert_close(apart.abs(), before.abs())
    torch.testing.assert_close(together[:, 0] * together[:, 1].conj(), before[:, 0] * before[:, 1].conj())
    assert not torch.allclose(apart[:, 0] * apart[:, 1].conj(), before[:, 0] * before[:, 1].conj())


def test_surrogate_phases_are_spread_over_the_circle_at_pi():
    generator = torch.Generator().manual_seed(0)
    t = torch.cat([torch.full((2000, 1), math.pi), 2 * torch.rand(2000, 4, generator=generator) - 1], 1).double()
    x = torch.zeros(2000, 1, 16, dtype=torch.float64)
    x[..., 0] = 1.0  # all phases are zero
    phases = torch.fft.rfft(FourierSurrogate()(x, t))[:, 0, 1:-1].angle()
    mean = torch.exp(1j * phases).mean(0).abs()
    assert float(mean.max()) < 0.09  # 4 / √2000; what is left of normality's lack adds less


def test_masks_remove_what_they_say():
    x = torch.ones(1, 2, 200, dtype=torch.float64)
    masked = TimeMask(100.0, 1.0, edge=0.005)(x, column(0.5, -0.5))  # around 0.5 s
    assert float(masked[0, 0, 50]) == pytest.approx(0.0, abs=1e-6)
    assert float(masked[0, 0, 150]) == pytest.approx(1.0, abs=1e-6)
    assert float(masked.sum()) / 2 == pytest.approx(150, abs=0.5)
    stopped = BandStop(RATE, 4.0, edge=0.05)(wave(5.0) + wave(20.0), column(4.0, 2 * 5 / 25 - 1))
    torch.testing.assert_close(stopped, wave(20.0), atol=1e-6, rtol=0)


def test_dropout_loses_the_share_it_says():
    generator = torch.Generator().manual_seed(0)
    auxiliary = 2 * torch.rand(500, 4, generator=generator, dtype=torch.float64) - 1
    t = torch.cat([torch.full((500, 1), 0.3, dtype=torch.float64), auxiliary], 1)
    kept = ChannelDropout()(torch.ones(500, 20, 1, dtype=torch.float64), t)
    assert float(kept.mean()) == pytest.approx(0.7, abs=0.02)


def test_warp_keeps_the_ends_and_the_order():
    x = torch.linspace(0, 1, 64, dtype=torch.float64).expand(2, 1, 64)
    warped = TimeWarp()(x, torch.tensor([[0.9, 1.0, -1.0, 1.0], [-0.9, 1.0, 1.0, 1.0]], dtype=torch.float64))
    assert bool((warped.diff(dim=-1) > 0).all())
    torch.testing.assert_close(warped[..., [0, -1]], x[..., [0, -1]])


def test_errors_say_what_to_do():
    with pytest.raises(DataError, match="batch x channels x time"):
        TimeShift().check_input(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="padding"):
        TimeShift(padding="reflect")
    with pytest.raises(ValueError, match="sampling_rate"):
        FrequencyShift(0.0)
    with pytest.raises(ValueError, match="below 1"):
        TimeWarp(1.0)


def test_with_zeros_nothing_comes_round_again():
    x = signals(16)
    shift = TimeShift(1.0, largest=40.0, padding="zeros")
    for samples in (16.0, 20.0, 32.0, 40.0):
        for sign in (1.0, -1.0):
            moved = shift(x, torch.full((4, 1), sign * samples, dtype=torch.float64))
            assert moved.abs().max() < 1e-12, (samples, sign)
    later = shift(x, torch.full((4, 1), 5.0, dtype=torch.float64))
    assert torch.allclose(later[..., 5:], x[..., :-5], atol=1e-12)
    assert later[..., :5].abs().max() < 1e-12


def test_times_without_a_sampling_rate_are_counted_in_samples():
    assert TimeShift(largest=3.0).coordinates[0].words(2.0) == "±2.0 samples"
    assert TimeMask().coordinates[0].unit == "samples"
    assert TimeShift(RATE).coordinates[0].unit == TimeMask(RATE).coordinates[0].unit == "s"
