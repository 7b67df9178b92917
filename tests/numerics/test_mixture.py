"""Mixtures of Student t distributions, and adaptive importance sampling on densities that are known."""

import dataclasses
import math

import pytest
import torch
from torch.distributions import MultivariateNormal, StudentT

from bayesinv.errors import NumericalError
from bayesinv.inference.vi import MOST_DRAWS
from bayesinv.numerics.bend import Bend
from bayesinv.numerics.mixture import DEGREES, Mixture, adapt, around_modes, bend_at


def two_parts(degrees=DEGREES):
    shares = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = torch.tensor([[0.0, 0.0, 1.0], [4.0, -2.0, 0.5]], dtype=torch.float64)
    scales = torch.tensor(
        [[[1.0, 0, 0], [0.5, 0.8, 0], [-0.2, 0.1, 0.4]], [[0.3, 0, 0], [0.1, 1.5, 0], [0.6, 0.0, 0.9]]],
        dtype=torch.float64,
    )
    return Mixture(shares, means, scales, degrees)


def single(mean, covariance, degrees=DEGREES):
    L = torch.linalg.cholesky(torch.as_tensor(covariance, dtype=torch.float64))
    one = torch.ones(1, dtype=torch.float64)
    return Mixture(one, torch.as_tensor(mean, dtype=torch.float64)[None], L[None], degrees)


def test_the_density_of_normal_components():
    q = two_parts(math.inf)
    theta = torch.randn(5, 4, 3, dtype=torch.float64) * 2
    parts = [MultivariateNormal(m, scale_tril=L).log_prob(theta) for m, L in zip(q.means, q.scales, strict=True)]
    expected = (torch.stack(parts, -1) + q.shares.log()).logsumexp(-1)
    torch.testing.assert_close(q.log_prob(theta), expected)


def test_the_density_of_student_components():
    theta = torch.linspace(-6, 6, 41, dtype=torch.float64)
    q = single([0.5], [[4.0]])
    torch.testing.assert_close(q.log_prob(theta[:, None]), StudentT(DEGREES, 0.5, 2.0).log_prob(theta))
    # A t of several dimensions is a normal whose covariance is divided by χ²_ν / ν.
    q = single([0.0, 1.0], [[2.0, 0.7], [0.7, 1.0]])
    at = torch.tensor([1.5, -0.5], dtype=torch.float64)
    mixing = torch.distributions.Chi2(torch.tensor(DEGREES, dtype=torch.float64)).sample((100_000,)) / DEGREES
    covariance = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64) / mixing[:, None, None]
    p = MultivariateNormal(torch.tensor([0.0, 1.0], dtype=torch.float64), covariance).log_prob(at).exp()
    assert float(q.log_prob(at).exp()) == pytest.approx(float(p.mean()), abs=4 * float(p.std()) / math.sqrt(1e5))


@pytest.mark.parametrize("degrees", [DEGREES, math.inf])
def test_draws_have_the_moments_of_the_density(degrees):
    q = two_parts(degrees)
    theta = q.sample(2**15, seed=3)
    mean = q.shares @ q.means
    inflation = 1.0 if math.isinf(degrees) else degrees / (degrees - 2.0)
    away = q.means - mean
    covariance = (
        torch.einsum("m,mij->ij", q.shares, inflation * q.scales @ q.scales.mT) + (q.shares[:, None] * away).T @ away
    )
    torch.testing.assert_close(theta.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(theta.T), covariance, atol=0.15 if inflation > 1 else 0.05, rtol=0)
    assert float((theta[:, 0] > 2.0).double().mean()) == pytest.approx(0.7, abs=0.03)
    # An expectation under the density by the draws: that of 1 / density over a box is its volume.
    inside = ((theta - q.means[1]).abs() < 0.4).all(1)
    volume = float((inside / q.log_prob(theta).exp()).mean())
    assert volume == pytest.approx(0.8**3, rel=0.05)


def test_the_same_seed_gives_the_same_draws():
    q = two_parts()
    assert torch.equal(q.sample(10, seed=4), q.sample(10, seed=4))
    assert not torch.equal(q.sample(10, seed=4), q.sample(10, seed=5))


@pytest.mark.parametrize("degrees", [DEGREES, math.inf])
def test_marginals_are_densities_of_the_same_draws(degrees):
    q = two_parts(degrees)
    marginal = q.marginal([2, 0])
    assert (marginal.degrees, marginal.means.shape) == (degrees, (2, 2))
    grid = torch.linspace(-25, 25, 2001, dtype=torch.float64)
    points = torch.tensor([0.4, 0.0, -0.3], dtype=torch.float64).repeat(2001, 1)
    points[:, 1] = grid
    integral = float(torch.trapezoid(q.log_prob(points).exp(), grid))
    got = float(marginal.log_prob(torch.tensor([-0.3, 0.4], dtype=torch.float64)).exp())
    assert got == pytest.approx(integral, rel=1e-3)


def test_nothing_latent_has_density_one():
    q = two_parts().marginal([])
    assert q.log_prob(torch.zeros(3, 0, dtype=torch.float64)).tolist() == [0.0, 0.0, 0.0]
    assert q.sample(3).shape == (3, 0)


def test_pooled_mixtures_are_mixtures_of_mixtures():
    a, b = two_parts(), single([1.0, 1.0, 1.0], torch.eye(3))
    pooled = Mixture.pooled([(1.0, a), (3.0, b)])
    theta = torch.randn(6, 3, dtype=torch.float64)
    expected = 0.25 * a.log_prob(theta).exp() + 0.75 * b.log_prob(theta).exp()
    torch.testing.assert_close(pooled.log_prob(theta).exp(), expected)
    torch.testing.assert_close(pooled.shares.sum(), torch.ones((), dtype=torch.float64))


COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=torch.float64)


def each(log_density):
    """Of one θ, at many; minus infinity where it fails."""

    def values(thetas):
        found = []
        for theta in thetas:
            try:
                found.append(float(log_density(theta)))
            except NumericalError:
                found.append(-math.inf)
        return torch.tensor(found, dtype=torch.float64)

    return values


def test_the_bend_at_a_normal_is_the_normal():
    mode = torch.tensor([0.5, -1.0], dtype=torch.float64)
    normal = MultivariateNormal(mode, COVARIANCE)
    arguments = (mode, torch.linalg.inv(COVARIANCE), float(normal.log_prob(mode)), normal.log_prob)
    bend, correlation, mass = bend_at(*arguments, False)
    torch.testing.assert_close(bend.below, torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(bend.width, COVARIANCE.diagonal().sqrt())
    assert mass == pytest.approx(0.0, abs=1e-9)  # the log of its integral
    q = dataclasses.replace(around_modes(bend, correlation, mass), degrees=math.inf)
    q = dataclasses.replace(q, scales=torch.linalg.cholesky(correlation)[None])  # without the widening
    theta = torch.randn(20, 2, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(theta), normal.log_prob(theta))
    assert float(bend_at(*arguments, True)[1][0, 1]) == 0.0


def test_the_bend_at_a_split_normal_is_that_density():
    """Scale 0.5 below, 2 above."""

    def log_density(theta):
        t = float(theta[0])
        return -0.5 * (t / (0.5 if t < 0 else 2.0)) ** 2

    one = torch.ones(1, dtype=torch.float64)
    bend, _, mass = bend_at(0 * one, one[None], 0.0, each(log_density), False)
    q = Mixture(one, 0 * one[None], one[None, None], math.inf, bend)
    t = torch.linspace(-5, 20, 100_001, dtype=torch.float64)
    p = torch.exp(-0.5 * (t / torch.where(t < 0, 0.5, 2.0)).square())
    total = torch.trapezoid(p, t)
    assert mass == pytest.approx(float(total.log()), abs=1e-4)
    torch.testing.assert_close(q.log_prob(t[:, None]), p.log() - total.log(), atol=1e-4, rtol=1e-6)
    draws = q.sample(4000, seed=0)
    assert float(draws.mean()) == pytest.approx(float(torch.trapezoid(t * p, t) / total), abs=0.02)


def test_a_bend_goes_there_and_back():
    bend = Bend(*(torch.tensor(v, dtype=torch.float64) for v in ([1.0, -2.0], [0.5, 3.0], [2.0, 0.6], [0.4, 1.0])))
    epsilon = torch.linspace(-6, 6, 49, dtype=torch.float64)[:, None].expand(-1, 2)
    theta = bend(epsilon)
    torch.testing.assert_close(bend.straighten(theta), epsilon, atol=1e-6, rtol=1e-6)
    step = 1e-5
    slope = (bend.straighten(theta + step) - bend.straighten(theta - step)) / (2 * step)
    inner = epsilon.abs().amax(1) < 4
    torch.testing.assert_close(bend.log_slopes(theta)[inner], slope.log()[inner], atol=1e-4, rtol=1e-4)


def test_the_end_of_a_density_is_a_short_side():
    def log_density(theta):
        if float(theta[0]) > 0.5:
            raise NumericalError("no further")
        return -0.5 * float(theta[0]) ** 2

    one = torch.ones(1, dtype=torch.float64)
    bend, _, _ = bend_at(0 * one, one[None], 0.0, each(log_density), False)
    assert float(bend.above) < 0.5 * float(bend.below)


def test_modes_get_shares_of_their_mass():
    one = torch.ones(1, dtype=torch.float64)
    others = [(5 * one, one[None], 2.0 + math.log(3.0)), (9 * one, one[None], -20.0)]
    q = around_modes(Bend(0 * one, one, one, one), one[None], 2.0, others)
    torch.testing.assert_close(q.shares, torch.tensor([0.25, 0.75], dtype=torch.float64))
    torch.testing.assert_close(q.means.flatten(), torch.tensor([0.0, 5.0], dtype=torch.float64))  # the third gets none


def skewed(theta):
    """A banana: θ_1 ~ N(0, 1), θ_2 | θ_1 ~ N(0.4 θ_1², 0.5²), times e³."""
    a, b = theta[..., 0], theta[..., 1]
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(a)
    return log_p + torch.distributions.Normal(0.4 * a.square(), 0.5).log_prob(b) + 3.0


def moments(found):
    w = found.log_weights.softmax(0)
    mean = w @ found.theta
    away = found.theta - mean
    return mean, (w[:, None] * away).T @ away, float(w.square().sum().reciprocal())


def test_adaptation_finds_the_moments_of_a_skewed_density():
    covariance = torch.tensor([[1.0, 0.0], [0.0, 0.25]], dtype=torch.float64)  # Laplace's, at the mode 0
    start = single([0.0, 0.0], covariance)
    found = adapt(start, skewed, 2000, seed=0)
    mean, cov, effective = moments(found)
    assert effective > 200
    error = 4.0 / math.sqrt(effective)
    torch.testing.assert_close(mean, torch.tensor([0.0, 0.4], dtype=torch.float64), atol=error, rtol=0)
    # var θ_2 = 0.16 var(θ_1²) + 0.25 = 0.57
    expected = torch.tensor([[1.0, 0.0], [0.0, 0.57]], dtype=torch.float64)
    torch.testing.assert_close(cov, expected, atol=1.5 * error, rtol=0)
    log_evidence = float(found.log_weights.logsumexp(0)) - math.log(2000)
    assert log_evidence == pytest.approx(3.0, abs=error)
    torch.testing.assert_close(found.log_weights, skewed(found.theta) - found.guide.log_prob(found.theta))


def test_adaptation_mends_a_bad_start():
    """Too narrow and off by a standard deviation: later rounds lie where the mass is."""
    start = single([1.0, 1.2], 0.1 * torch.eye(2))
    adapted = adapt(start, skewed, 1500, seed=1)
    mean, _, effective = moments(adapted)
    plain = start.sample(1500, seed=1)
    w = (skewed(plain) - start.log_prob(plain)).softmax(0)
    assert effective > 3 * float(w.square().sum().reciprocal())
    torch.testing.assert_close(mean, torch.tensor([0.0, 0.4], dtype=torch.float64), atol=0.3, rtol=0)


def test_two_modes_get_their_shares():
    high, low = (
        MultivariateNormal(torch.tensor(m).double(), 0.2 * torch.eye(2).double()) for m in ([0.0, 0], [4.0, 4])
    )

    def log_density(theta):
        return float(torch.logaddexp(math.log(0.8) + high.log_prob(theta), math.log(0.2) + low.log_prob(theta)))

    one = torch.ones(2, dtype=torch.float64)
    bend = Bend(0 * one, 0.2**0.5 * one, one, one)
    other = (4 * one, 5 * torch.eye(2, dtype=torch.float64), 0.0)  # as if they held the same
    start = around_modes(bend, torch.eye(2, dtype=torch.float64), 0.0, [other])
    found = adapt(start, each(log_density), 1000, seed=0)
    w = found.log_weights.softmax(0)
    assert float(w[found.theta[:, 0] > 2.0].sum()) == pytest.approx(0.2, abs=0.03)
    assert float(found.log_weights.logsumexp(0)) - math.log(1000) == pytest.approx(0.0, abs=0.05)
    last = found.guide.shares[-2:] / found.guide.shares[-2:].sum()
    assert float(last[1]) == pytest.approx(0.2, abs=0.05)  # half equal shares at the start


def test_a_mean_field_guide_keeps_its_axes():
    normal = MultivariateNormal(torch.zeros(2).double(), COVARIANCE)
    for diagonal in (True, False):
        found = adapt(single([0.0, 0.0], torch.eye(2)), normal.log_prob, 400, 0, diagonal)
        off = float(found.guide.scales[-1, 1, 0])
        assert (off == 0.0) if diagonal else (off > 0.2)


def test_draws_without_a_density_have_no_weight():
    def log_density(theta):
        if float(theta[0]) > 0:
            raise NumericalError("not here")
        return -0.5 * float(theta @ theta)

    found = adapt(single([0.0], [[1.0]]), each(log_density), 100, seed=0)
    assert len(found.theta) == 100
    assert bool((found.log_weights.isinf() == (found.theta[:, 0] > 0)).all())

    def nowhere(theta):
        raise NumericalError("nowhere")

    with pytest.raises(NumericalError, match="could not be computed at any of 20 draws"):
        adapt(single([0.0], [[1.0]]), each(nowhere), 20, seed=0)


@pytest.mark.parametrize("num_draws", [1, 5, 7, 160])
def test_the_number_of_draws_is_what_was_asked_for(num_draws):
    found = adapt(single([0.0, 0.0], torch.eye(2)), skewed, num_draws, seed=0)
    assert found.theta.shape == (num_draws, 2)
    assert found.log_weights.shape == (num_draws,)
    torch.testing.assert_close(found.guide.shares.sum(), torch.ones((), dtype=torch.float64))


def test_rounds_end_where_the_weights_are_enough():
    start = single([1.0, 1.0], 0.5 * torch.eye(2))
    asked = []

    def enough(log_w):
        asked.append(len(log_w))
        return len(asked) == 3

    found = adapt(start, skewed, 400, 0, enough=enough)
    assert asked == [160, 200, 250]  # after four rounds of 40, and then a quarter more each time
    assert len(found.theta) == 250
    whole = adapt(start, skewed, 400, 0)
    torch.testing.assert_close(found.theta, whole.theta[:250])
    assert len(adapt(start, skewed, 400, 0, enough=lambda log_w: False).theta) == 400


def test_the_number_that_it_took_gives_the_same_draws():
    """So that the call on a report's page, which names it, gives the same posterior."""
    start = single([1.0, 1.0], 0.5 * torch.eye(2))
    whole = adapt(start, skewed, MOST_DRAWS, 0, enough=lambda log_w: False).theta
    for ended in (160, 200, 250, 313, 392, 480):  # rounds of 40, and then a quarter more each time
        torch.testing.assert_close(adapt(start, skewed, ended, 0).theta, whole[:ended])


def test_many_rounds_are_worth_more_than_few(monkeypatch):
    start = single([3.0, 3.0], 0.05 * torch.eye(2))  # misses nearly all of the density
    many = moments(adapt(start, skewed, 400, 0))[2]
    monkeypatch.setattr("bayesinv.numerics.mixture._round_sizes", lambda num: [num // 2, num - num // 2])
    assert many > 2 * moments(adapt(start, skewed, 400, 0))[2]


def test_a_needle_next_to_a_wide_mode_gets_a_component():
    """Also where its covariance is too narrow for the coordinates of the wide one."""
    one = torch.ones(2, dtype=torch.float64)
    bend = Bend(0 * one, one, one, one)
    needle = (0.5 * one, 1e20 * torch.eye(2, dtype=torch.float64), 1.0)
    q = around_modes(bend, torch.eye(2, dtype=torch.float64), 0.0, [needle])
    assert len(q.shares) == 2
    assert bool(torch.isfinite(q.log_prob(q.sample(50))).all())
    nowhere = (0.5 * one, torch.full((2, 2), math.nan, dtype=torch.float64), 1.0)
    q = around_modes(bend, torch.eye(2, dtype=torch.float64), 0.0, [nowhere])
    assert bool(torch.isfinite(q.log_prob(q.sample(50))).all())
