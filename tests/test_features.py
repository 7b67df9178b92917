"""Features against SciPy and brute force, and what they are for."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import periodogram

import bayesinv
from bayesinv.errors import DataError
from bayesinv.features import FLOOR, GridDensity, PowerSpectrum
from bayesinv.transforms import Scale3d


def signals(n=3, channels=2, time=60, seed=0):
    return torch.randn(n, channels, time, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("window", [True, False])
def test_spectrum_is_that_of_scipy(window):
    x = signals()
    found = PowerSpectrum(5, low=10.0, high=40.0, sampling_rate=100.0, window=window)(x).reshape(3, 2, 5)
    # "hann" of scipy.signal is periodic, as torch's is
    f, power = periodogram(x.numpy(), fs=1.0, window="hann" if window else "boxcar", detrend=False)
    f, power = 100 * f, 0.5 * power  # one-sided
    edges = np.linspace(10, 40, 6)
    means = [power[..., (f > a + 1e-6) & (f < b + 1e-6)].mean(-1) for a, b in itertools.pairwise(edges)]
    expected = np.stack(means, -1)
    expected = np.log(expected + FLOOR * expected.mean((1, 2), keepdims=True))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_loudness_moves_the_spectrum_by_a_constant_and_shifts_do_not():
    x = signals()
    spectrum = PowerSpectrum(6, window=False)
    torch.testing.assert_close(spectrum(3.0 * x) - spectrum(x), torch.full((3, 12), 2 * math.log(3.0)).double())
    torch.testing.assert_close(spectrum(x.roll(17, 2)), spectrum(x))
    torch.testing.assert_close(spectrum(x + 5.0), spectrum(x))  # the mean is no band
    assert torch.isfinite(spectrum(torch.zeros(1, 1, 60))).all()


def test_bands_of_the_spectrum_are_refused():
    with pytest.raises(ValueError, match="half the sampling rate"):
        PowerSpectrum(4, high=60.0, sampling_rate=100.0)
    with pytest.raises(DataError, match=r"30 frequencies.*set num_bands to 15"):
        PowerSpectrum(40)(signals())
    with pytest.raises(DataError, match="expected signals"):
        PowerSpectrum(4)(signals()[0])


def test_density_is_the_sum_over_points():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
    x[..., 3] = torch.randint(0, 3, (2, 7), generator=generator)
    grid = GridDensity(2.0, ticks=3, width=0.8, column=3, kinds=(1, 2))(x)
    expected = []
    for cloud in x.tolist():
        for kind in (1, 2):
            for g in [(a, b, c) for a in (-2, 0, 2) for b in (-2, 0, 2) for c in (-2, 0, 2)]:
                near = [math.dist(point[:3], g) for point in cloud if point[3] == kind]
                expected.append(sum(math.exp(-(r**2) / (2 * 0.8**2)) for r in near))
    np.testing.assert_allclose(grid.flatten().numpy(), expected, rtol=1e-10)


def test_rows_of_padding_do_not_count():
    x = torch.randn(2, 5, 4)
    x[..., 3] = 1.0
    padded = torch.cat([x, torch.zeros(2, 3, 4)], 1)
    density = GridDensity(column=3)
    torch.testing.assert_close(density(padded), density(x))
    assert not torch.allclose(GridDensity()(padded), GridDensity()(x))


def test_densities_are_refused():
    with pytest.raises(ValueError, match="kinds: expected column="):
        GridDensity(kinds=(1, 6))
    with pytest.raises(DataError, match="4 columns or more"):
        GridDensity(column=3)(torch.zeros(1, 5, 3))


def test_gradients_reach_the_points():
    x = signals(1, 1, 20).requires_grad_()
    points = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(PowerSpectrum(4), x)
    assert torch.autograd.gradcheck(GridDensity(ticks=3), points)


@pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning")
@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
def test_a_process_on_a_grid_density_sees_what_one_on_points_does_not():
    """Long and flat clouds of 20 points in random order: no row of one is where a row of another is."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(80) % 2
    shapes = torch.tensor([[1.0, 0.3, 0.3], [0.765, 0.765, 0.1]])
    x = shapes[y][:, None] * torch.randn(80, 20, 3, generator=generator)
    scores = {}
    for name, features in {"raw": None, "density": GridDensity(1.5)}.items():
        backbone = bayesinv.GaussianProcess(features=features, num_features=128)
        model = bayesinv.InvarianceModel(backbone, Scale3d(), priors={"scale": None}, num_orbit_samples=1)
        posterior = bayesinv.fit(model, (x[:40], y[:40]), seed=0, max_steps=20)
        scores[name] = float((posterior.predict(x[40:], num_samples=4).labels == y[40:]).double().mean())
    assert scores["density"] > 0.9
    assert scores["raw"] < 0.75


def test_the_example_of_the_docs_runs():
    text = (Path(__file__).parents[1] / "docs" / "points_and_tables.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict = {}
    exec(compile(block, "points_and_tables.md", "exec"), names)
    assert names["signals"].backbone.embed(torch.randn(1, 5, 2, 300)).shape == (1, 5, 48)
    assert names["clouds"].backbone.embed(torch.randn(1, 5, 30, 3)).shape == (1, 5, 64)
