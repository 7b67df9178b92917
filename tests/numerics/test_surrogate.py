"""The regression of a log density: against brute force, and what it says of its own error."""

import dataclasses

import pytest
import torch

from bayesinv.numerics.surrogate import Surrogate


def points(A=2, num=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = 1.5 * torch.randn(num, A, generator=generator, dtype=torch.float64)
    return z, -0.7 * z.square().sum(1) + 0.5 * z[:, 0].sin() - 30.0


def test_mean_and_sd_are_those_of_the_joint_normal():
    z, values = points()
    f = Surrogate.of(z, values)
    new = torch.tensor([[0.2, -0.3], [0.5, 0.1]], dtype=torch.float64)
    both = torch.cat([z, new])
    joint = f._covariance(both, both)
    K, k = joint[:12, :12] + torch.diag(f.noise**2 + (0.05 * (values - values.max())) ** 2), joint[12:, :12]
    mean, sd = f(new)
    torch.testing.assert_close(mean, values.max() + k @ torch.linalg.solve(K, values - values.max()))
    torch.testing.assert_close(sd, (joint[12:, 12:] - k @ torch.linalg.solve(K, k.T)).diagonal().sqrt())


def test_leaving_out_is_that_of_fits_without_the_point():
    z, values = points()
    f = Surrogate.of(z, values)
    mean, sd = f.left_out()
    whole = f._matrix
    for i in (0, 5, 11):
        rest = torch.arange(12) != i
        solved = torch.linalg.solve(whole[rest][:, rest], whole[rest, i])
        torch.testing.assert_close(mean[i], values.max() + solved @ (values - values.max())[rest])
        torch.testing.assert_close(sd[i], (whole[i, i] - solved @ whole[rest, i]).sqrt())


def test_a_quadratic_is_found_from_a_central_composite_design_and_never_rises_outside_of_it():
    axis = torch.eye(2, dtype=torch.float64)
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    z = torch.cat([torch.zeros(1, 2, dtype=torch.float64), 1.5 * axis, -1.5 * axis, corners])
    curvature = torch.tensor([[3.0, -1.0], [-1.0, 2.0]], dtype=torch.float64)

    def true(z):
        return -(z @ curvature * z).sum(1) + z[:, 0]

    f = Surrogate.of(z, true(z))
    new = torch.tensor([[0.4, 0.3], [-0.8, 0.1], [0.0, -1.2]], dtype=torch.float64)
    torch.testing.assert_close(f(new)[0], true(new), atol=0.15, rtol=0)
    assert f(torch.tensor([[9.0, 0.0]], dtype=torch.float64))[0] < -100.0
    rising = Surrogate.of(z, -true(z))
    far = torch.tensor([[1.5, 0.0], [9.0, 0.0], [1.5, 1.5], [9.0, 9.0]], dtype=torch.float64)
    mean, sd = rising(far)
    assert mean[0] == mean[1] and mean[2] == mean[3] and sd[1] > 10 * sd[0]


def test_the_error_is_that_where_the_mass_is():
    z = torch.linspace(-2.5, 2.5, 9, dtype=torch.float64)[:, None]
    values = -3.0 * (z[:, 0] + 1.0) ** 2
    clean = Surrogate.of(z, values).error()
    far, near = values.clone(), values.clone()
    far[-1] += 5.0  # at 2.5, some 30 nats below
    near[3] -= 3.0  # at -0.6
    assert clean < 0.1
    assert Surrogate.of(z, near).error() > 1.0
    held = dataclasses.replace(Surrogate.of(z, values), values=far)
    assert held.error() < 0.5
    # A prior that puts the mass elsewhere asks for the error there.
    assert held.error(50.0 * z[:, 0]) > 1.0


def test_what_is_refused():
    z, values = points()
    with pytest.raises(ValueError, match="three points or more"):
        Surrogate.of(z[:2], values[:2])
    with pytest.raises(ValueError, match="finite"):
        Surrogate.of(z, values * torch.nan)
