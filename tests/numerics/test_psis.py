"""The limit of k̂, and what follows from it; pareto_smooth itself is tested with the weights of a guide."""

import math

import pytest
import torch

from bayesinv.inference import importance
from bayesinv.inference.importance import weigh
from bayesinv.numerics import psis


@pytest.mark.parametrize(
    ("num_draws", "limit"), [(1, 0.0), (10, 0.0), (100, 0.5), (1000, 2 / 3), (2200, 0.7), (10**6, 0.7)]
)
def test_the_limit_grows_with_the_draws(num_draws, limit):
    assert psis.pareto_limit(num_draws) == pytest.approx(limit, abs=1e-3)


def test_the_limit_is_where_the_draws_just_suffice():
    """10^(1 / (1 - k)) draws are what a tail of shape k asks for (Vehtari et al., 2024)."""
    for num_draws in (20, 300, 2000):
        assert 10 ** (1 / (1 - psis.pareto_limit(num_draws))) == pytest.approx(num_draws)


def test_no_draws_have_no_limit():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        psis.pareto_limit(0)


@pytest.mark.parametrize("k", [None, math.nan, math.inf, 0.6])
def test_what_is_no_good_for_300_draws(k):
    assert not psis.weights_are_good(k, 300)


def test_the_limit_itself_is_good():
    assert psis.weights_are_good(psis.pareto_limit(300), 300) and psis.weights_are_good(-0.1, 5)


@pytest.mark.parametrize(
    ("k", "num_draws", "finite", "words"),
    [
        (0.49, 300, True, ""),
        (0.5, 300, False, "variance of the weights is infinite"),
        (0.45, 50, False, "the limit for 50 draws"),
        (math.nan, 20, False, "could not be estimated"),
        (None, 20, False, "could not be estimated"),
    ],
)
def test_a_standard_error_needs_a_finite_variance(k, num_draws, finite, words):
    assert psis.variance_is_finite(k, num_draws) is finite
    reason = psis.why_no_standard_error(k, num_draws)
    assert words in reason and bool(reason) is not finite


def test_weights_of_infinite_variance_have_no_standard_error():
    """w = u^-k with u uniform has a Pareto tail of shape k: a standard error at 0.3 and none at 0.6."""
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for k, finite in ((0.3, True), (0.6, False)):
        drawn = weigh(torch.zeros(4000, 1, dtype=torch.float64), -k * u.log())
        assert drawn.pareto_k == pytest.approx(k, abs=0.08)
        assert (drawn.log_evidence_se is not None) is finite
        assert drawn.log_evidence == pytest.approx(-math.log(1 - k), abs=0.05)  # the mean is 1 / (1 - k)


def test_old_names_stay_importable():
    assert importance.pareto_smooth is psis.pareto_smooth and importance.NEARLY_EQUAL == psis.NEARLY_EQUAL
