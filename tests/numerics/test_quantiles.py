"""Weighted quantiles and systematic resampling against cases that can be counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesinv.numerics.quantiles import systematic_resample, weighted_quantile


def test_counted_by_hand():
    draws = np.array([3.0, 1.0, 2.0, 4.0])
    weights = np.array([0.5, 0.1, 0.2, 0.2])  # F(1) = .1, F(2) = .3, F(3) = .8, F(4) = 1
    levels = np.array([0.0, 0.05, 0.1, 0.11, 0.3, 0.31, 0.8, 0.81, 1.0])
    expected = [1, 1, 1, 2, 2, 3, 3, 4, 4]
    assert weighted_quantile(draws, levels, np.log(weights)).tolist() == expected


def test_equal_weights_reach_every_decile_in_spite_of_rounding():
    draws = np.arange(1.0, 11.0)  # ten sums of 0.1 fall short of 0.3, 0.6, ... in floating point
    assert weighted_quantile(draws, np.arange(1, 11) / 10).tolist() == draws.tolist()


@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 5)), min_size=1, max_size=30),
    st.floats(0.001, 0.999),
)
def test_whole_weights_are_repeated_draws(pairs, p):
    draws, counts = np.array(pairs, dtype=float).T
    if counts.sum() == 0:
        return
    # At a step of F the two codes may round to either side of it: keep away from the steps.
    p = (np.floor(p * counts.sum()) + 0.5) / counts.sum()
    with np.errstate(divide="ignore"):
        log_weights = np.log(counts)
    repeated = np.repeat(draws, counts.astype(int))
    expected = np.quantile(repeated, p, method="inverted_cdf")
    assert weighted_quantile(draws, np.array([p]), log_weights) == expected


def test_columns_are_treated_alone_and_monotone_maps_commute():
    rng = np.random.default_rng(0)
    draws, log_weights = rng.random((50, 3)), rng.normal(size=50)
    levels = np.array([0.05, 0.5, 0.95])
    together = weighted_quantile(draws, levels, log_weights)
    assert together.shape == (3, 3)
    for k in range(3):
        alone = weighted_quantile(draws[:, k], levels, log_weights)
        assert together[:, k].tolist() == alone.tolist()
    mapped = weighted_quantile(np.expm1(draws), levels, log_weights)
    assert mapped.tolist() == np.expm1(together).tolist()


def test_weights_turn_one_distribution_into_another():
    # Draws from U(0, 1) weighted by the density of a Beta(2, 1), 2x: quantile(p) = sqrt(p).
    draws = (np.arange(20_000) + 0.5) / 20_000
    got = weighted_quantile(draws, np.array([0.05, 0.5, 0.95]), np.log(2 * draws))
    np.testing.assert_allclose(got, np.sqrt([0.05, 0.5, 0.95]), atol=1e-4)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_bad_levels(p):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        weighted_quantile(np.ones(3), np.array([0.5, p]))


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [-np.inf, -np.inf], [np.inf, 0.0]])
def test_bad_weights(bad):
    with pytest.raises(ValueError, match="log_weights"):
        weighted_quantile(np.ones(2), np.array([0.5]), np.array(bad))


def test_no_draws():
    with pytest.raises(ValueError, match="at least one draw"):
        weighted_quantile(np.ones(0), np.array([0.5]))


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12), st.integers(1, 40), st.integers(0, 99))
def test_each_draw_is_taken_floor_or_ceil_of_its_share(log_weights, num, seed):
    log_weights = np.array(log_weights)
    share = num * np.exp(log_weights) / np.exp(log_weights).sum()
    taken = np.bincount(systematic_resample(num, len(share), log_weights, seed), minlength=len(share))
    assert taken.sum() == num
    assert np.all(np.abs(taken - share) < 1 + 1e-9)


def test_resampling_is_unbiased():
    weights = np.array([0.05, 0.6, 0.35])
    taken = np.zeros(3)
    for seed in range(2000):
        taken += np.bincount(systematic_resample(2, 3, np.log(weights), seed), minlength=3)
    # each count is a mean of 2000 numbers that vary by less than one: s.e. < 0.5 / sqrt(2000) =
    # 0.011
    np.testing.assert_allclose(taken / 4000, weights, atol=0.02)


def test_resampling_depends_on_its_seed_alone():
    first = systematic_resample(7, 50, seed=3)
    assert first.tolist() == systematic_resample(7, 50, seed=3).tolist()
    assert first.tolist() != systematic_resample(7, 50, seed=4).tolist()


def test_a_draw_without_weight_is_never_taken():
    with np.errstate(divide="ignore"):
        log_weights = np.log(np.array([0.0, 1.0, 0.0]))
    assert set(systematic_resample(20, 3, log_weights).tolist()) == {1}


def test_no_samples():
    with pytest.raises(ValueError, match="at least 1"):
        systematic_resample(0, 3)
