"""Noisy sinusoids, four classes of frequency: is a frequency shift needed, and how far is it permitted?

    python models/sinusoids.py --question permitted --out run
    python models/sinusoids.py --question needed --layers 2 --units 3 --out run
    python models/sinusoids.py --inference none --layers 1 --units 1

The frequency of a class lies within ±0.5 Hz of 2, 4, 6 or 8 Hz, so that a shift by 0.5 Hz changes no label. Candidates
beside the shift are random phases (Fourier surrogates), which the input of the network makes harmless, and noise.

Permitted: the likelihood of shifted signals, with a prior that pushes the extent of the frequency shift outwards, λ
nats a signal over its whole range (--strength). Needed: the evidence, in which the weights are integrated out.

The network sees power spectra from 0 to 12 Hz; its size is hidden layers × units. The first layer starts smooth in
frequency, since a network of one unit otherwise rarely finds an order of the classes.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: the folder to import from is the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from jaxtyping import Float
from torch import Tensor, nn

import bayesinv
from bayesinv.data import Data
from bayesinv.inference import Augerino, AugNet
from bayesinv.numerics.randomness import seeded
from bayesinv.posterior import InvariancePosterior
from bayesinv.transforms import FourierSurrogate, FrequencyShift, GaussianNoise
from models import common
from models.report import extents_figure, report

SAMPLING_RATE = 100.0
HALF_WIDTH = 0.5  # Hz, of the data, and the answer to "permitted"
HIGHEST = 12.0  # Hz, of the spectra that the network sees: the highest class, shifted by the most, and some room
CANDIDATES = ("frequency_shift", "surrogate_phase", "noise")
SIZES = ((1, 1), (2, 1), (2, 2), (2, 3))
"""Of the capacity study: hidden layers × units."""

# By question: the evidence, and what is averaged over copies.
QUESTIONS = {"permitted": ("plugin", "log_likelihood"), "needed": ("laplace", "function")}
# λ, nats a signal over an extent's whole range, AugNet's regulariser for this problem: .2 and .8 are published. With .2
# the extent stops short of the boundary in some seeds (docs/signals.md).
STRENGTH = 0.8
METHODS = {"augerino": Augerino(regularisation=0.2), "augnet": AugNet(rate=5e-3)}
WEIGHT_RATE = 0.05
EPOCHS = 150.0
SCALE = 20.0  # of the spectra: shares of 121 bins are small numbers for a network


class SpectrumMLP(nn.Sequential):
    """Hidden layers of leaky rectifiers on the power spectrum of a single channel.

    Args:
        layers, units: how many hidden layers, of how many units each.
        num_times: samples of a signal.
        num_classes: outputs.
        seed: of the initial weights.
        sampling_rate, highest: Hz; the spectrum ends at ``highest``.

    Raises:
        ValueError: no layer or unit.

    Example:
        >>> SpectrumMLP(2, 3)(torch.randn(5, 1, 1000)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        layers: int = 2,
        units: int = 1,
        num_times: int = 1000,
        num_classes: int = 4,
        seed: int = 0,
        sampling_rate: float = SAMPLING_RATE,
        highest: float = HIGHEST,
    ) -> None:
        for name, value in (("layers", layers), ("units", units)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        num_bins = min(num_times // 2, int(highest * num_times / sampling_rate)) + 1
        widths = [num_bins, *[units] * layers]
        with seeded(seed):
            linear = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(widths)]
            hidden = [module for each in linear for module in (each, nn.LeakyReLU(0.1))]
            super().__init__(PowerSpectrum(num_bins), *hidden, nn.Linear(units, num_classes))
            _start_smooth(linear)


def _start_smooth(linear: Sequence[nn.Linear]) -> None:
    """First weights that rise or fall with frequency, about a random centre; one unit passes on what it is given."""
    first = linear[0]
    units, num_bins = first.weight.shape
    frequency = torch.linspace(-1.0, 1.0, num_bins)
    sign = 2.0 * torch.randint(0, 2, (units, 1)) - 1.0
    centre = torch.rand(units, 1) - 0.5 if units > 1 else torch.zeros(1, 1)
    with torch.no_grad():
        # Shares of SCALE in all: a unit starts as twice the mean frequency, whose range is [-1, 1].
        first.weight.copy_((sign if units > 1 else 1.0) * (frequency - centre) * 2.0 / SCALE)
        first.bias.zero_()
        for later in linear[1:] if units == 1 else ():
            later.weight.fill_(1.0)
            later.bias.zero_()


class PowerSpectrum(nn.Module):
    """Shares of the power in the lowest ``num_bins`` frequencies of a single channel, times 20.

    Loudness and phases drop out.

    Example:
        >>> PowerSpectrum(3)(torch.ones(1, 1, 8)).tolist()
        [[20.0, 0.0, 0.0]]
    """

    def __init__(self, num_bins: int) -> None:
        super().__init__()
        self.num_bins = num_bins

    def forward(self, x: Float[Tensor, "batch 1 time"]) -> Float[Tensor, "batch bins"]:
        spectrum = torch.fft.rfft(x[:, 0])[:, : self.num_bins]
        power = spectrum.real.square() + spectrum.imag.square()  # the modulus has no second derivative at zero
        return SCALE * power / power.sum(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def build(
    question: str = "permitted",
    layers: int = 2,
    units: int = 1,
    num_train: int = 400,
    num_test: int = 200,
    num_orbit_samples: int = 4,
    seed: int = 0,
    strength: float = STRENGTH,
    duration: float = 10.0,
) -> tuple[bayesinv.InvarianceModel, Data, Data]:
    """The model with all three extents latent, training and test signals.

    Args:
        question: "permitted" (plug-in likelihood, `Outward` prior on the frequency shift) or "needed" (Laplace
            evidence, flat priors).
        layers, units: size of the network.
        num_train, num_test: signals.
        num_orbit_samples: S, copies of each signal.
        seed: of the signals and the network's initial weights.
        strength: λ of the outward prior; 0 leaves it flat.
        duration: of a signal, seconds.

    Raises:
        ValueError: an argument out of its range.
    """
    if question not in QUESTIONS:
        raise ValueError(f"question: expected one of {', '.join(QUESTIONS)}, got {question!r}")
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(f"strength: expected a number of at least 0, got {strength!r}")
    train, test = bayesinv.datasets.sinusoids(
        num_train, num_test, seed, HALF_WIDTH, duration=duration, sampling_rate=SAMPLING_RATE
    )
    evidence, average = QUESTIONS[question]
    outward = question == "permitted" and strength > 0
    model = bayesinv.InvarianceModel(
        SpectrumMLP(layers, units, num_times=train.x.shape[-1], seed=seed),
        [FrequencyShift(SAMPLING_RATE, largest=2.0), FourierSurrogate(), GaussianNoise(largest=1.0)],
        likelihood="categorical",
        evidence=evidence,
        priors={"frequency_shift": bayesinv.Outward(strength)} if outward else None,
        num_orbit_samples=num_orbit_samples,
        average=average,
    )
    return model, train, test


def shift_invariance(posterior: InvariancePosterior, test: Data, seed: int = 0) -> float:
    """AugNet's invariance of the class probabilities of test signals under shifts within ±0.5 Hz; 1 is invariant."""
    shift = FrequencyShift(SAMPLING_RATE, largest=2.0)
    extents = {"frequency_shift": HALF_WIDTH}
    return bayesinv.metrics.invariance_score(posterior, test.x, shift, extents, seed=seed)["frequency_shift"]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = common.make_parser(__doc__ or "")
    count = common.positive(int)
    made.add_argument("--question", choices=list(QUESTIONS), default="permitted", help="default: %(default)s")
    made.add_argument("--layers", type=count, default=2, help="hidden ones (default: %(default)s)")
    made.add_argument("--units", type=count, default=1, help="of a hidden layer (default: %(default)s)")
    made.add_argument(
        "--strength",
        type=common.in_range(0, 100),
        default=STRENGTH,
        help="λ of the outward prior (default: %(default)g)",
    )
    made.add_argument("--num-train", type=count, default=400, help="default: %(default)s")
    made.add_argument("--num-test", type=count, default=200, help="default: %(default)s")
    made.add_argument("--duration", type=common.positive(float), default=10.0, help="seconds (default: %(default)g)")
    common.add_fit_options(made, epochs=EPOCHS, num_orbit_samples=4)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, print, and write what was asked for."""
    made = parser()
    options = common.checked(made, made.parse_args(argv))
    options.truth = {"frequency_shift": HALF_WIDTH}
    try:
        model, train, test = build(
            options.question,
            options.layers,
            options.units,
            options.num_train,
            options.num_test,
            options.num_orbit_samples,
            options.seed,
            options.strength,
            options.duration,
        )
    except ValueError as error:
        common.stop(made, error)
    posterior = common.fit_options(options, model, train, METHODS, weight_rate=WEIGHT_RATE)
    what = options.question if options.inference == "vi" else options.inference
    title = f"Sinusoids, {what}, {options.layers}×{options.units} network, {len(train)} signals"
    facts = [f"invariance under shifts within ±{HALF_WIDTH:g} Hz: {shift_invariance(posterior, test):.3f}"]
    report(posterior, test, options, {"extents.png": extents_figure(posterior, title, options.truth)}, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
