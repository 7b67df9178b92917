"""Extents without bounds, and q as a density over the extents."""

import math

import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from bayesinv.extents.families import Extents
from bayesinv.extents.priors import Truncated, UniformExtent
from bayesinv.extents.unconstrained import FURTHEST, ExtentGuide, Unconstrained
from bayesinv.numerics.mixture import Mixture
from bayesinv.transforms import Affine2d


def space(**priors):
    return Unconstrained(Extents(Affine2d(["rotation", "scale_x", "shear"]).coordinates, {"shear": 0.2} | priors))


def normal(mean, covariance):
    scale = torch.linalg.cholesky(torch.tensor(covariance, dtype=torch.float64))
    return Mixture(torch.ones(1, dtype=torch.float64), torch.tensor([mean], dtype=torch.float64), scale[None], math.inf)


def test_extents_go_there_and_back_and_fixed_ones_stay():
    both = space(scale_x=Truncated(dist.HalfNormal(0.2), high=0.5))
    z = torch.randn(7, 2, dtype=torch.float64)
    eta = both.extents(z)
    assert both.columns == [0, 1] and eta.shape == (7, 3)
    assert bool((eta[:, 2] == 0.2).all())
    torch.testing.assert_close(eta[:, 0], math.pi * torch.special.ndtr(z[:, 0]))
    torch.testing.assert_close(both.to_z(eta), z)
    ends = torch.tensor([[0.0, 0.5, 0.2]], dtype=torch.float64)
    assert both.to_z(ends).tolist() == [[-FURTHEST, FURTHEST]]


def test_jacobian_is_the_derivative():
    change = space()
    z = torch.tensor([0.3, -1.1], dtype=torch.float64)
    derivative = torch.autograd.functional.jacobian(lambda v: change.extents(v)[:2], z)
    assert float(change.log_jacobian(z)) == pytest.approx(float(torch.logdet(derivative)))


def test_held_extents_leave_nothing_free():
    held = Unconstrained(Extents(Affine2d(["rotation"]).coordinates), torch.tensor([0.7]))
    assert held.columns == []
    assert held.extents(torch.zeros(4, 0, dtype=torch.float64))[:, 0].tolist() == pytest.approx([0.7] * 4)


def test_density_is_that_of_a_transformed_normal():
    """η = π Φ(z) with z ~ N(m, s²): the density by SciPy, and its integral."""
    q = ExtentGuide(space(scale_x=0.1), normal([-0.4], [[0.49]]))
    eta = torch.linspace(0.0, math.pi, 20001, dtype=torch.float64)
    log_q = q.log_prob(torch.stack([eta, torch.full_like(eta, 0.1), torch.full_like(eta, 0.2)], -1))
    z = stats.norm.ppf(eta[1:-1].numpy() / math.pi)
    expected = stats.norm.logpdf(z, -0.4, 0.7) - stats.norm.logpdf(z) - math.log(math.pi)
    torch.testing.assert_close(log_q[1:-1], torch.from_numpy(expected), atol=1e-6, rtol=1e-6)
    assert float(torch.trapezoid(log_q.exp(), eta)) == pytest.approx(1.0, abs=1e-3)


def test_log_prob_takes_any_leading_shape_and_is_nothing_outside():
    q = ExtentGuide(space(), normal([0.0, 0.5], [[1.0, 0.6], [0.6, 1.0]]))
    draws = q.sample(6)
    grid = q.log_prob(draws.reshape(2, 3, 3))
    torch.testing.assert_close(grid.flatten(), q.log_prob(draws))
    assert q.log_prob(draws[0]).shape == ()
    outside = draws.clone()
    outside[0, 0], outside[1, 1], outside[2, 2] = 3.3, -0.01, 9.0  # the last one is fixed, and no part of q
    found = q.log_prob(outside)
    assert found[:2].tolist() == [-math.inf, -math.inf]
    assert torch.equal(found[2:], q.log_prob(draws)[2:])
    with pytest.raises(
        ValueError, match=r"expected shape \(\.\.\., 3\), one column for each of rotation, scale_x, shear"
    ):
        q.log_prob(draws[:, :2])


def test_draws_follow_q_and_their_seed():
    q = ExtentGuide(space(), normal([0.3, -0.5], [[0.25, 0.1], [0.1, 0.16]]))
    draws = q.sample(4096, seed=1)
    z = q.space.to_z(draws)
    torch.testing.assert_close(z.mean(0), torch.tensor([0.3, -0.5], dtype=torch.float64), atol=0.01, rtol=0.0)
    torch.testing.assert_close(torch.cov(z.T), q.density.scales[0] @ q.density.scales[0].T, atol=0.01, rtol=0.0)
    assert torch.equal(q.sample(9, seed=3), q.sample(9, seed=3))
    assert not torch.equal(q.sample(9, seed=3), q.sample(9, seed=4))
    with pytest.raises(ValueError, match="num: expected at least 1"):
        q.sample(0)


def test_a_flat_prior_is_a_standard_normal():
    change = Unconstrained(Extents(Affine2d(["rotation"]).coordinates, {"rotation": UniformExtent(0.0, 2.0)}))
    q = ExtentGuide(change, normal([0.0], [[1.0]]))
    assert q.log_prob(torch.tensor([[0.3], [1.9]])).exp().tolist() == pytest.approx([0.5, 0.5])
