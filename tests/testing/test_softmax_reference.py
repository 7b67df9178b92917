"""The referee of softmax evidences against quadrature, plain Monte Carlo, closed forms, and itself by another path."""

import math

import numpy as np
import pytest
import torch

from bayesinv.errors import NumericalError
from bayesinv.testing.softmax_reference import reference_function_moments, reference_log_evidence

T = torch.float64
FROM_PRIOR = {"path": "prior", "num_temperatures": 24, "num_chains": 8, "num_steps": 1200, "seed": 1}
WIDE = {"num_chains": 300, "num_steps": 50}  # small problems: many chains cost little more than few


def smooth(n, scale=1.0, lengthscale=1.5):
    """A squared exponential on the integers."""
    t = torch.arange(n, dtype=T)
    return scale * torch.exp(-0.5 * ((t[:, None] - t) / lengthscale).square())


def prior_draws(K, num_classes, num_draws, seed):
    L = torch.linalg.cholesky(K + 1e-12 * torch.eye(len(K), dtype=T))
    z = torch.randn(num_draws, num_classes, len(K), generator=torch.Generator().manual_seed(seed), dtype=T)
    return z @ L.T  # (draws, C, n)


def two_by_two(K0, K1, y, mean):
    """n = 2, C = 2 by Gauss-Hermite in d = f_1 - f_0: the evidence, and E[d | y]."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    L = np.linalg.cholesky((K0 + K1).numpy())
    a, b = np.meshgrid(nodes, nodes, indexing="ij")
    shift = (mean[..., 1] - mean[..., 0]) * torch.ones(2, dtype=T)
    d = np.stack([L[0, 0] * a, L[1, 0] * a + L[1, 1] * b]) + shift.numpy()[:, None, None]
    sign = np.where(y.numpy() == 1, 1.0, -1.0)[:, None, None]
    joint = np.exp(-np.logaddexp(0, -sign * d).sum(0)) * np.outer(weights, weights) / (2 * math.pi)
    return math.log(joint.sum()), (joint * d).sum((1, 2)) / joint.sum()


@pytest.mark.parametrize("path", ["laplace", "prior"])
@pytest.mark.parametrize("labels", [[0, 0], [0, 1]])
def test_two_inputs_of_two_classes_against_quadrature(path, labels):
    y, mean = torch.tensor(labels), torch.tensor([0.3, -0.4], dtype=T)
    K = torch.tensor([[2.0, 1.2], [1.2, 1.5]], dtype=T)
    per_class = torch.stack([K, 3 * smooth(2)])
    for given, K0, K1 in ((K, K, K), (per_class, *per_class)):
        exact, _ = two_by_two(K0, K1, y, mean)
        value, error = reference_log_evidence(
            given, y, 2, mean, path=path, num_temperatures=16 if path == "prior" else 8, **WIDE
        )
        assert error < 0.01
        assert abs(value - exact) < max(1e-3, 4 * error)


def test_small_problem_to_a_thousandth():
    y, mean = torch.tensor([0, 1]), torch.tensor([[0.0, 0.5], [1.0, 0.0]], dtype=T)
    exact, _ = two_by_two(smooth(2), smooth(2), y, mean)
    value, error = reference_log_evidence(smooth(2), y, 2, mean, num_chains=1000, num_steps=50)
    assert error < 3e-4 and abs(value - exact) < 1e-3


@pytest.mark.parametrize("scale", [1.0, 9.0])
def test_six_inputs_against_draws_from_the_prior(scale):
    K, y, mean = smooth(6, scale), torch.tensor([0, 0, 1, 2, 1, 0]), torch.tensor([0.5, 0.0, -0.5], dtype=T)
    log_p = (prior_draws(K, 3, 100_000, 0) + mean[:, None]).log_softmax(1)[:, y, torch.arange(6)].sum(1)
    p = log_p.exp()
    plain, plain_error = math.log(p.mean()), float(p.std() / p.mean()) / math.sqrt(len(p))
    value, error = reference_log_evidence(K, y, 3, mean, **WIDE)
    assert math.hypot(error, plain_error) < 0.03
    assert abs(value - plain) < 4 * math.hypot(error, plain_error)


def test_functions_without_variance_leave_the_means():
    y, mean = torch.tensor([2, 0, 1, 1]), torch.tensor([0.2, -1.0, 0.7], dtype=T)
    limit = float(mean.log_softmax(0)[y].sum())
    for path in ("laplace", "prior"):
        value, error = reference_log_evidence(torch.zeros(4, 4, dtype=T), y, 3, mean, num_steps=5, path=path)
        assert value == pytest.approx(limit, abs=1e-10) and error < 1e-10
    assert reference_log_evidence(1e-8 * smooth(4), y, 3, mean, num_steps=5)[0] == pytest.approx(limit, abs=1e-5)


def test_one_function_value_for_all_inputs():
    """K = s² 11ᵀ is singular; two classes leave a one-dimensional integral."""
    s2, y = 4.0, torch.tensor([0, 0, 0, 1])
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    d = math.sqrt(2 * s2) * nodes
    exact = math.log(np.exp(-3 * np.logaddexp(0, d) - np.logaddexp(0, -d)) @ weights / math.sqrt(2 * math.pi))
    value, error = reference_log_evidence(torch.full((4, 4), s2, dtype=T), y, 2, **WIDE)
    assert error < 0.01 and abs(value - exact) < max(1e-3, 4 * error)


def test_the_two_paths_agree():
    K, y = smooth(15, 6.0), torch.arange(15) * 7 % 4
    one, one_error = reference_log_evidence(K, y, 4, num_chains=40, num_steps=100)
    prior = {"path": "prior", "num_temperatures": 24, "num_chains": 30, "num_steps": 300, "seed": 1}
    other, other_error = reference_log_evidence(K, y, 4, **prior)
    assert one_error < other_error < 0.3
    assert abs(one - other) < 4 * math.hypot(one_error, other_error)


def test_the_standard_error_is_the_spread_of_repetitions():
    K, y = smooth(8, 4.0), torch.arange(8) % 3
    runs = [reference_log_evidence(K, y, 3, num_steps=20, num_chains=6, seed=s) for s in range(40)]
    values, errors = np.array(runs).T
    # The standard deviation of 40 values is known to 11 %; taking the larger of two errors adds 20 % to them.
    assert 0.6 < values.std(ddof=1) / np.sqrt(np.square(errors).mean()) < 1.5


def test_chains_that_are_too_short_say_so():
    """From the prior the chains travel far: after 12 moves they are nats away, and agree with each other."""
    K, y = smooth(15, 16.0), torch.arange(15) * 7 % 4
    true, true_error = reference_log_evidence(K, y, 4, num_chains=40, num_steps=200)
    short, error = reference_log_evidence(K, y, 4, path="prior", num_temperatures=24, num_chains=40, num_steps=12)
    assert true_error < 0.2
    assert abs(short - true) > 1.0 and error > 1.0


def test_more_temperatures_change_nothing():
    K, y = smooth(12, 16.0), torch.arange(12) % 4
    runs = [reference_log_evidence(K, y, 4, num_temperatures=t, num_chains=60, num_steps=50, seed=t) for t in (8, 16)]
    assert abs(runs[0][0] - runs[1][0]) < 4 * math.hypot(runs[0][1], runs[1][1])


def test_moments_against_quadrature():
    y, mean = torch.tensor([0, 1]), torch.tensor([0.3, -0.4], dtype=T)
    K = torch.tensor([[2.0, 1.2], [1.2, 1.5]], dtype=T)
    _, d = two_by_two(K, K, y, mean)
    moments = reference_function_moments(K, y, 2, mean, num_chains=600, num_steps=100)
    assert float(moments.standard_error.max()) < 0.02
    assert np.abs(moments.mean[:, 1].numpy() - d / 2).max() < 4 * float(moments.standard_error.max())


def test_moments_against_weighted_draws_from_the_prior():
    K, y = smooth(5, 2.0), torch.tensor([0, 0, 1, 2, 2])
    f = prior_draws(K, 3, 100_000, 0)
    w = f.log_softmax(1)[:, y, torch.arange(5)].sum(1).softmax(0)
    contrast = f - f.mean(1, keepdim=True)
    mean = torch.einsum("s,scn->nc", w, contrast)
    variance = torch.einsum("s,scn->nc", w, contrast.square()) - mean.square()
    moments = reference_function_moments(K, y, 3, num_chains=400, num_steps=80)
    assert float(moments.standard_error.max()) < 0.03
    assert float((moments.mean - mean).abs().max()) < 0.05
    assert float((moments.variance / variance - 1).abs().max()) < 0.06
    assert float(moments.mean.sum(1).abs().max()) < 1e-10


def test_seeds():
    K, y = smooth(4), torch.tensor([0, 1, 1, 0])
    before = torch.random.get_rng_state()
    first, second, other = (reference_log_evidence(K, y, 2, num_steps=20, seed=s) for s in (3, 3, 4))
    assert first == second != other
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("changed", "error", "name"),
    [
        ({"K": torch.eye(3)}, TypeError, "K"),
        ({"K": torch.eye(4, dtype=T)}, ValueError, "K"),
        ({"K": torch.eye(3, dtype=T).expand(3, 3, 3)}, ValueError, "K"),
        ({"K": -torch.eye(3, dtype=T)}, NumericalError, "K"),
        ({"K": torch.full((3, 3), math.nan, dtype=T)}, NumericalError, "K"),
        ({"y": torch.tensor([0, 1, 2])}, ValueError, "y"),
        ({"y": torch.tensor([0, -1, 1])}, ValueError, "y"),
        ({"y": torch.tensor([0.0, 1.0, 1.0])}, TypeError, "y"),
        ({"mean": torch.zeros(3)}, ValueError, "mean"),
        ({"num_classes": 1}, ValueError, "num_classes"),
        ({"num_steps": 2}, ValueError, "num_steps"),
        ({"num_chains": 1}, ValueError, "num_chains"),
        ({"num_temperatures": 0}, ValueError, "num_temperatures"),
    ],
)
def test_bad_arguments_are_named(changed, error, name):
    given = {"K": torch.eye(3, dtype=T), "y": torch.tensor([0, 1, 1]), "num_classes": 2} | changed
    # Where shapes are checked as types, that check comes first for some.
    with pytest.raises(error, match=rf"^{name}\b|parameter '{name}'"):
        reference_log_evidence(**given)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_eighty_inputs_of_four_classes(scale):
    """The size that the evidences are judged at: small errors, and the same value from the prior."""
    K = smooth(80, scale, lengthscale=4.0)
    y = torch.distributions.Categorical(logits=prior_draws(K, 4, 1, 5)[0].T).probs.argmax(1)
    value, error = reference_log_evidence(K, y, 4)
    other, other_error = reference_log_evidence(K, y, 4, **FROM_PRIOR)
    assert error < 0.3 and other_error < 0.8
    assert abs(value - other) < 4 * math.hypot(error, other_error)
