"""The integral over one extent, against a density that is known."""

import math

import numpy as np
import pytest

from bayesinv.auditing.one_more import OneMore, integrated


def known(log_evidence, without, largest=2.0):
    """Hyperparameters stay as they are."""
    return integrated(log_evidence, lambda eta: log_evidence, largest, without)


def test_log_bayes_factor_and_quantiles_of_a_normal_density():
    mean, sd = 0.9, 0.15
    found = known(lambda eta: -0.5 * ((eta - mean) / sd) ** 2 + 20.0, without=3.0)
    exact = 20.0 - 3.0 + math.log(sd * math.sqrt(2 * math.pi) / 2.0)  # flat prior on [0, 2]
    assert found.log_bf == pytest.approx(exact, abs=0.2)
    low, middle, high = found.quantiles((0.05, 0.5, 0.95))
    assert middle == pytest.approx(mean, abs=0.05)
    assert (high - low) / 2 == pytest.approx(1.645 * sd, rel=0.25)


def test_an_operation_that_only_harms_has_evidence_against_it():
    found = known(lambda eta: -20.0 * eta, without=0.0)
    assert found.log_bf == pytest.approx(math.log(0.05 / 2.0), abs=0.3)  # ∫ exp(-20 η) dη / 2
    assert found.inclusion(0.5) < 0.05
    assert found.extents[0] == 0.0


def test_hyperparameters_are_fitted_where_an_extent_gains_and_nowhere_else():
    asked = []

    def refit(eta):
        asked.append(eta)
        return lambda eta: 7.0

    assert integrated(lambda eta: 5.0 + (eta == 0.4), refit, 2.0, without=4.0).log_bf == pytest.approx(3.0)
    assert asked == [0.4]
    assert integrated(lambda eta: 4.05, refit, 2.0, without=4.0).log_bf == pytest.approx(0.05, abs=0.01)
    assert asked == [0.4]


def test_extents_without_an_evidence_have_no_weight():
    found = known(lambda eta: 3.0 if eta < 0.5 else -math.inf, without=3.0)
    assert found.log_bf == pytest.approx(math.log(0.25), abs=0.8)
    assert known(lambda eta: -math.inf, without=3.0).inclusion(0.5) < 1e-9


def test_inclusion_follows_prior_odds():
    found = OneMore(math.log(3.0), np.zeros(1), np.zeros(1))
    assert found.inclusion(0.5) == pytest.approx(0.75)
    assert found.inclusion(0.1) == pytest.approx(0.25)
    assert OneMore(-math.inf, np.zeros(1), np.zeros(1)).inclusion(0.5) < 1e-200
