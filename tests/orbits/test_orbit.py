"""Base draws, the orbit and its averages."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesinv.orbits.averages import average_function, average_probabilities
from bayesinv.orbits.orbit import Orbit, base_draws
from bayesinv.testing.transforms import smooth_images
from bayesinv.transforms import Affine2d, Compose, from_config

KINDS = ["sobol", "monte_carlo"]


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(1, 12), st.sampled_from(KINDS), st.integers(0, 2**31))
def test_base_draws_fill_the_cube(num_samples, num_coordinates, kind, seed):
    eps = base_draws(num_samples, num_coordinates, kind, seed)
    assert eps.shape == (num_samples, num_coordinates)
    assert eps.dtype == torch.float64
    assert float(eps.abs().max()) <= 1.0
    assert torch.equal(eps, base_draws(num_samples, num_coordinates, kind, seed))


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_differ(kind):
    assert not torch.equal(base_draws(8, 2, kind, seed=0), base_draws(8, 2, kind, seed=1))


@pytest.mark.parametrize("kind", KINDS)
def test_global_generators_are_neither_used_nor_changed(kind):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = base_draws(8, 2, kind, seed=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    torch.manual_seed(99)
    assert torch.equal(first, base_draws(8, 2, kind, seed=3))


def test_monte_carlo_draws_are_uniform():
    """Moments of U[−1, 1] within four standard errors; 20,000 draws."""
    eps = base_draws(20_000, 3, "monte_carlo", seed=0)
    assert eps.mean(0).abs().max() < 4 * math.sqrt(1 / 3 / 20_000)
    variance_error = (eps**2).mean(0) - 1 / 3  # Var ε² = 1/5 − 1/9
    assert variance_error.abs().max() < 4 * math.sqrt((1 / 5 - 1 / 9) / 20_000)


def test_sobol_converges_faster_than_monte_carlo():
    """The error of the mean of a smooth function, over seeds: S^-1/2 against better."""

    def error(kind, num_samples):
        values = [(base_draws(num_samples, 2, kind, seed) + 1).prod(-1).mean() - 1 for seed in range(40)]
        return float(torch.stack(values).square().mean().sqrt())

    rate = {kind: math.log2(error(kind, 16) / error(kind, 256)) / 4 for kind in KINDS}
    assert rate["monte_carlo"] == pytest.approx(0.5, abs=0.2)
    assert rate["sobol"] > 0.8


def test_dtype_of_the_draws():
    single = base_draws(4, 2, dtype=torch.float32)
    assert single.dtype == torch.float32
    assert torch.equal(single, base_draws(4, 2).float())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2), "num_samples: expected an integer of at least 1, got 0"),
        ((4, -1), "num_coordinates: expected an integer of at least 1, got -1"),
        ((4, 2, "halton"), "unknown kind of base draws 'halton'; known are sobol, monte_carlo"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        base_draws(*arguments)


def test_an_orbit_is_the_transform_at_scaled_draws():
    x = smooth_images()
    orbit = Orbit(Affine2d(["rotation", "shear"]), num_samples=5, seed=2)
    extents = torch.tensor([0.7, 0.2], dtype=torch.float64)
    points = orbit(x, extents)
    assert points.shape == (5, *x.shape)
    t = extents * base_draws(5, 2, seed=2)
    assert torch.equal(orbit.coordinates(extents), t)
    for s in range(5):
        assert torch.allclose(points[s], orbit.transform(x, t[s].expand(3, 2)), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extents_of_zero_leave_the_images_alone(dtype):
    x = smooth_images().to(dtype)
    points = Orbit(Affine2d(), num_samples=1)(x, torch.zeros(6, dtype=torch.float64))
    assert points.shape == (1, *x.shape)
    assert points.dtype == dtype
    assert torch.allclose(points[0], x, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_gradients_reach_the_extents_and_the_images():
    x = smooth_images().requires_grad_()
    extents = torch.full((2,), 0.3, dtype=torch.float64, requires_grad=True)
    points = Orbit(Affine2d(["rotation", "shear"]), num_samples=4)(x, extents)
    points.square().sum().backward()
    assert bool((extents.grad != 0).all())
    assert bool((x.grad != 0).any())


def test_the_draws_are_saved_and_do_not_change_between_modes():
    orbit = Orbit(Affine2d(["rotation"]), num_samples=4, seed=5)
    other = Orbit(Affine2d(["rotation"]), num_samples=4, seed=6)
    other.load_state_dict(orbit.state_dict())
    assert torch.equal(other.base, base_draws(4, 1, seed=5))
    extents = torch.ones(1, dtype=torch.float64)
    x = smooth_images()
    assert torch.equal(orbit.train()(x, extents), orbit.eval()(x, extents))


def test_config_rebuilds_the_orbit():
    transform = Compose([Affine2d(["rotation"]), Affine2d(["shear"])])
    orbit = Orbit(transform, num_samples=7, draws="monte_carlo", seed=5)
    config = orbit.config()
    rebuilt = Orbit(from_config(config.pop("transform")), **config)
    assert torch.equal(rebuilt.base, orbit.base)
    assert rebuilt.config() == orbit.config()


def test_extents_that_do_not_fit():
    orbit = Orbit(Affine2d(["rotation", "shear"]))
    with pytest.raises(ValueError, match=r"rotation, shear, shape \(2,\), and shape \(3,\) came"):
        orbit(smooth_images(), torch.zeros(3, dtype=torch.float64))


def test_function_averages():
    points = torch.randn(6, 4, 2, 3)
    calls = []

    def h(x):
        calls.append(x.shape)
        return torch.stack([x.sum((1, 2)), x.exp().sum((1, 2))], -1)

    got = average_function(h, points)
    expected = torch.stack([h(points[s]) for s in range(6)]).mean(0)
    assert torch.allclose(got, expected)
    assert calls[0] == (24, 2, 3)  # one call on all points


def test_probability_averages_are_normalised_mixtures():
    points = 5 * torch.randn(6, 4, 3, dtype=torch.float64)
    got = average_probabilities(lambda x: x, points)
    assert torch.allclose(got.exp(), points.softmax(-1).mean(0))
    assert torch.allclose(got.logsumexp(-1), torch.zeros(4, dtype=torch.float64), atol=1e-12)


def test_the_two_averages_answer_different_questions():
    """Two confident, opposite points: functions cancel, and so do probabilities; three do not."""
    points = torch.tensor([[[9.0, 0.0]], [[9.0, 0.0]], [[0.0, 9.0]]], dtype=torch.float64)
    needed = average_function(lambda x: x, points).softmax(-1)
    permitted = average_probabilities(lambda x: x, points).exp()
    assert float(needed[0, 0]) == pytest.approx(1 / (1 + math.exp(-3.0)))
    assert float(permitted[0, 0]) == pytest.approx(2 / 3, abs=1e-3)


def test_probability_averages_do_not_underflow():
    points = torch.tensor([[[-4000.0, 0.0]], [[-4000.0, 0.0]]])
    assert average_probabilities(lambda x: x, points)[0, 0] == -4000.0


def test_an_average_needs_one_row_per_point():
    with pytest.raises(ValueError, match=r"one row per point, 24 here, and shape \(2,\) came"):
        average_function(lambda x: x.sum((0, 2)), torch.zeros(6, 4, 2, 3))


def test_the_average_over_the_full_circle_is_invariant():
    """The point of it all: more draws, less dependence on the orientation of the input."""
    generator = torch.Generator().manual_seed(0)
    x = smooth_images(height=24, width=24)
    weight = torch.randn(x[0].numel(), generator=generator, dtype=torch.float64)
    turned = Affine2d(["rotation"])(x, torch.full((3, 1), 0.8, dtype=torch.float64))
    extents = torch.tensor([math.pi], dtype=torch.float64)

    def gap(num_samples):
        orbit = Orbit(Affine2d(["rotation"]), num_samples)
        values = [average_function(lambda z: z.flatten(1) @ weight, orbit(z, extents)) for z in (x, turned)]
        return float((values[0] - values[1]).abs().mean())

    assert gap(128) < 0.1 * gap(1)


def test_an_augmentation_that_is_no_mapping_is_refused():
    with pytest.raises(TypeError, match="augmentation"):
        Orbit(Affine2d(["rotation"]), num_samples=4, augmentation="gaussian")
