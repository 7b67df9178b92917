"""log E softmax(f) by one integral: the mixture, quadrature, Monte Carlo, derivatives, and far corners."""

import math

import numpy as np
import pytest
import torch

from bayesinv.evidence.expected_softmax import MEANS, SCALES, WEIGHTS, expected_softmax


def problem(n, C, spread=2.0, seed=0, shared=True):
    generator = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(n, C, generator=generator, dtype=torch.float64)
    variance = torch.randn(n, 1 if shared else C, generator=generator, dtype=torch.float64).exp()
    return mean, variance, torch.randint(C, (n,), generator=generator)


def test_three_normals_have_the_distribution_function_of_the_gumbel():
    u = torch.linspace(-6.0, 20.0, 20_001, dtype=torch.float64)
    mixture = sum(w * torch.special.ndtr((u - m) / s) for w, m, s in zip(WEIGHTS, MEANS, SCALES, strict=True))
    assert float((mixture - torch.exp(-torch.exp(-u))).abs().max()) <= 0.006
    assert sum(WEIGHTS) == pytest.approx(1.0, abs=1e-12)
    mean = sum(w * m for w, m in zip(WEIGHTS, MEANS, strict=True))
    assert mean == pytest.approx(0.5772156649, abs=0.01)  # Euler's constant


@pytest.mark.parametrize("difference", [-6.0, -1.5, 0.0, 0.4, 3.0])
@pytest.mark.parametrize("variance", [1e-4, 0.3, 4.0, 60.0])
def test_two_classes_agree_with_quadrature_of_the_logistic(difference, variance):
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    f = difference + math.sqrt(2.0 * variance) * nodes
    expected = math.log(weights @ np.exp(-np.logaddexp(0.0, -f)) / math.sqrt(2.0 * math.pi))
    mean = torch.tensor([[difference, 0.0]], dtype=torch.float64) + 5.0  # a common shift changes nothing
    got, _, _ = expected_softmax(mean, torch.tensor([[variance]], dtype=torch.float64), torch.tensor([0]))
    # The mixture is no Gumbel: in probabilities up to 0.005, relatively more in the far tail of a sure contrast.
    assert math.exp(float(got)) == pytest.approx(math.exp(expected), abs=0.006)
    if difference > -2 or variance > 1:
        assert float(got) == pytest.approx(expected, abs=0.025)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("C", [3, 10])
def test_many_classes_agree_with_draws(C, shared):
    mean, variance, y = problem(6, C, shared=shared)
    got, _, _ = expected_softmax(mean, variance, y)
    z = torch.randn(200_000, 6, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = (mean + variance.sqrt() * z).softmax(-1)[:, torch.arange(6), y]
    error = p.std(0) / math.sqrt(len(p))
    assert bool(((got.exp() - p.mean(0)).abs() < 4.0 * error + 0.006).all())
    assert float(p.mean(0).max() - p.mean(0).min()) > 0.1  # the labels differ in how likely they are


@pytest.mark.parametrize("C", [2, 3, 10])
def test_probabilities_sum_to_one(C):
    mean, variance, _ = problem(8, C)
    total = sum(expected_softmax(mean, variance, torch.full((8,), c))[0].exp() for c in range(C))
    torch.testing.assert_close(total, torch.ones(8, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("C", [2, 4, 10])
def test_derivatives_against_finite_differences(C, shared):
    mean, variance, y = problem(5, C, seed=2, shared=shared)
    # The nodes move with mean and variance, and what lies outside of them is 1e-7: that bounds the quotients.
    _, d_mean, d_variance = expected_softmax(mean, variance, y, num_nodes=100)

    def value(m, v):
        return expected_softmax(m, v, y, num_nodes=100)[0]

    step = 1e-3
    for c in range(C):
        shift = torch.zeros_like(mean)
        shift[:, c] = step
        numeric = (value(mean + shift, variance) - value(mean - shift, variance)) / (2 * step)
        torch.testing.assert_close(d_mean[:, c], numeric, atol=1e-5, rtol=1e-4)
    assert d_variance.shape == variance.shape
    for g in range(variance.shape[1]):
        shift = torch.zeros_like(variance)
        shift[:, g] = step
        numeric = (value(mean, variance + shift) - value(mean, variance - shift)) / (2 * step)
        torch.testing.assert_close(d_variance[:, g], numeric, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(d_mean.sum(1), torch.zeros(5, dtype=torch.float64), atol=1e-5, rtol=0)
    assert bool((d_mean[torch.arange(5), y] > 0).all())


@pytest.mark.parametrize("C", [2, 4, 10])
def test_the_number_of_nodes_is_enough(C):
    mean, variance, y = problem(50, C, spread=3.0, seed=5)
    usual, many = expected_softmax(mean, variance, y), expected_softmax(mean, variance, y, num_nodes=400)
    for a, b in zip(usual, many, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)


def test_variances_of_every_class_that_are_equal_are_shared_ones():
    mean, variance, y = problem(7, 4, seed=3)
    value, d_mean, d_variance = expected_softmax(mean, variance, y)
    each = expected_softmax(mean, variance.expand(-1, 4).contiguous(), y)
    torch.testing.assert_close(each[0], value)
    torch.testing.assert_close(each[1], d_mean)
    torch.testing.assert_close(each[2].sum(1, keepdim=True), d_variance)


def test_blocks_of_rows_change_nothing(monkeypatch):
    mean, variance, y = problem(9, 5)
    whole = expected_softmax(mean, variance, y)
    monkeypatch.setattr("bayesinv.evidence.expected_softmax.BLOCK", 1)  # one row at a time
    for a, b in zip(expected_softmax(mean, variance, y), whole, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("gap", [30.0, 300.0])
@pytest.mark.parametrize("variance", [0.01, 1.0, 1e4])
def test_certain_labels_right_and_wrong_stay_finite(gap, variance):
    mean = torch.tensor([[gap, 0.0, 0.0], [0.0, gap, 0.0]], dtype=torch.float64)
    value, d_mean, d_variance = expected_softmax(
        mean, torch.full((2, 1), variance, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    )
    assert all(bool(torch.isfinite(part).all()) for part in (value, d_mean, d_variance))
    assert float(value[0]) > float(value[1])
    if variance < 10:
        assert float(value[0]) == pytest.approx(0.0, abs=1e-3)
        assert float(value[1]) < -10.0


@pytest.mark.parametrize("C", [2, 5])
def test_single_precision_has_four_digits(C):
    mean, variance, y = problem(30, C, seed=4)
    double, single = expected_softmax(mean, variance, y), expected_softmax(mean.float(), variance.float(), y)
    for a, b in zip(double, single, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(b.double(), a, atol=1e-4, rtol=1e-3)
