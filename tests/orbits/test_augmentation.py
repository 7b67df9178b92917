"""Augmentation distributions: moments against closed forms, quantiles against SciPy, gradients, and bad names."""

import math

import pytest
import torch
from scipy import stats

from bayesinv.orbits.augmentation import DISTRIBUTIONS, draw
from bayesinv.orbits.orbit import Orbit
from bayesinv.transforms import Affine2d, Compose, Coordinate, Flip, Transform


def angles(eta, distribution="von_mises", num=20_000):
    eps = (2.0 * (torch.arange(num, dtype=torch.float64) + 0.5) / num) - 1.0
    return draw(distribution, eps, torch.as_tensor(eta, dtype=torch.float64))


def test_uniform_is_the_product():
    assert draw("uniform", torch.tensor([-1.0, 0.5]), torch.tensor(2.0)).tolist() == [-2.0, 1.0]


def test_one_sided_starts_at_zero():
    t = angles(2.0, "one_sided")
    assert float(t.min()) > 0 and float(t.max()) < 2 and float(t.mean()) == pytest.approx(1.0)


def test_gaussian_has_the_variance_of_the_uniform():
    assert float(angles(1.5, "gaussian").var()) == pytest.approx(1.5**2 / 3, rel=1e-3)
    assert bool(draw("gaussian", torch.tensor([-1.0, 1.0]), torch.tensor(1.0)).isfinite().all())


@pytest.mark.parametrize("eta", [0.01, 0.05, 0.6, 1.5, 3.0, math.pi])
def test_von_mises_has_the_resultant_length_of_the_uniform(eta):
    assert float(angles(eta).cos().mean()) == pytest.approx(math.sin(eta) / eta, abs=1e-5)  # of the midpoint rule


def test_von_mises_quantiles_are_those_of_scipy():
    # SciPy has the quantile for a given concentration; that of η = 1 solves I1/I0 = sin(1).
    from scipy.optimize import brentq
    from scipy.special import i0e, i1e

    kappa = brentq(lambda k: i1e(k) / i0e(k) - math.sin(1.0), 0.1, 100.0, xtol=1e-13)
    eps = torch.tensor([-0.9, -0.2, 0.5, 0.99], dtype=torch.float64)
    expected = stats.vonmises.ppf(0.5 * (eps.numpy() + 1), kappa)
    torch.testing.assert_close(draw("von_mises", eps, torch.tensor(1.0, dtype=torch.float64)), torch.tensor(expected))


def test_von_mises_is_uniform_on_the_circle_at_pi():
    eps = torch.linspace(-0.99, 0.99, 7, dtype=torch.float64)
    torch.testing.assert_close(draw("von_mises", eps, torch.tensor(math.pi, dtype=torch.float64)), math.pi * eps)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.01, 0.3, 1.4, 3.1])
def test_gradient_in_the_extent(distribution, eta):
    eps = torch.tensor([-1.0, -0.8, -0.1, 0.0, 0.4, 0.95], dtype=torch.float64)
    leaf = torch.tensor(eta, dtype=torch.float64, requires_grad=True)
    weight = torch.arange(1.0, 7.0, dtype=torch.float64)
    value = (weight * draw(distribution, eps, leaf)).sum()
    (slope,) = torch.autograd.grad(value, leaf)
    step = 1e-6
    low, high = (
        (weight * draw(distribution, eps, torch.tensor(v, dtype=torch.float64))).sum()
        for v in (max(eta - step, 0.0), eta + step)
    )
    assert float(slope) == pytest.approx(float(high - low) / (eta + step - max(eta - step, 0.0)), rel=1e-4, abs=1e-6)


def test_small_angles_join_the_normal_smoothly():
    below, above = angles(0.0149999), angles(0.0150001)
    assert float((above - below).abs().max()) < 2e-5 * 0.015 * 20


class Level(Transform):
    coordinates = (Coordinate("level", "", 1.0, distribution="one_sided"),)
    num_auxiliary = 2

    def transform(self, x, t):
        return x + t[:, :1] * t[:, 1:2] * t[:, 2:]


def test_orbit_draws_by_coordinate_and_leaves_auxiliaries():
    orbit = Orbit(Compose([Affine2d(["rotation"]), Level(), Flip()]), 16, augmentation={"rotation": "gaussian"})
    eta = torch.tensor([0.5, 0.3, 0.5], dtype=torch.float64)
    t = orbit.coordinates(eta)
    assert t.shape == (32, 5)
    assert orbit.transform.columns == (0, 1, None, None, 2)
    torch.testing.assert_close(t[:16, 0], draw("gaussian", orbit.base[:, 0], eta[0]))
    assert float(t[:, 1].min()) >= 0 and float(t[:, 1].max()) <= 0.3
    torch.testing.assert_close(t[:16, 2:4], orbit.base[:, 2:4])
    assert t[:, 4].tolist() == [0.0] * 16 + [1.0] * 16


def test_fresh_draws_keep_the_elements():
    orbit = Orbit(Compose([Affine2d(["rotation"]), Flip()]), 4)
    torch.manual_seed(0)
    fresh = orbit.fresh_base()
    assert bool((fresh[:, 0] != orbit.base[:, 0]).all()) and bool((fresh[:, 1] == 0).all())


def test_config_holds_what_was_asked_for():
    orbit = Orbit(Affine2d(["rotation"]), 4, augmentation={"rotation": "von_mises"})
    assert orbit.config()["augmentation"] == {"rotation": "von_mises"}
    assert "augmentation" not in Orbit(Affine2d(["rotation"]), 4).config()


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="unknown symmetries"):
        Orbit(Affine2d(["rotation"]), 4, augmentation={"shear": "uniform"})
    with pytest.raises(ValueError, match="is for angles"):
        Orbit(Affine2d(["shear"]), 4, augmentation={"shear": "von_mises"})
    with pytest.raises(ValueError, match="expected one of"):
        Orbit(Affine2d(["shear"]), 4, augmentation={"shear": "cauchy"})
    with pytest.raises(ValueError, match="amount without a sign"):
        Orbit(Level(), 4, augmentation={"level": "uniform"})
    with pytest.raises(ValueError, match="averaged over exactly"):
        Orbit(Flip(), 4, augmentation={"flip_x": "gaussian"})
    with pytest.raises(ValueError, match="order of 'mirror'"):
        Coordinate("mirror", "", 0.5, order=1)


@pytest.mark.parametrize("eta", [1e-13, 1e-4, 0.01, 0.5, 2.0, math.pi])
def test_haar_quantiles_solve_their_equation(eta):
    """(t − sin t) / (η − sin η) = |ε|, with the sign of ε, and the gradient in η by differences."""
    eps = torch.tensor([-1.0, -0.6, -1e-4, 1e-6, 0.01, 0.3, 1.0], dtype=torch.float64)
    extent = torch.tensor(eta, dtype=torch.float64, requires_grad=True)
    t = draw("haar", eps, extent)

    def volume(angle):  # t − sin t without cancellation
        small = angle**3 / 6 * (1 - angle**2 / 20 * (1 - angle**2 / 42))
        return torch.where(angle.abs() < 0.05, small, angle - angle.sin())

    share = volume(t.detach()) / volume(extent.detach())
    assert torch.allclose(share, eps, rtol=1e-6, atol=1e-13)
    assert torch.equal(t.sign(), eps.sign())
    for k in range(len(eps)):
        (slope,) = torch.autograd.grad(t[k], extent, retain_graph=True)
        step = 1e-5 * eta
        rise = draw("haar", eps[k], extent.detach() + step) - draw("haar", eps[k], extent.detach() - step)
        assert float(slope) == pytest.approx(float(rise) / (2 * step), rel=1e-4, abs=1e-9)


def test_an_extent_of_zero_does_not_turn():
    extent = torch.zeros((), dtype=torch.float64, requires_grad=True)
    t = draw("haar", torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64), extent)
    assert t.tolist() == [0.0, 0.0, 0.0]
    (slope,) = torch.autograd.grad(t[2], extent)
    assert float(slope) == pytest.approx(0.5 ** (1 / 3))
