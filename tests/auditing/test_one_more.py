"""The integral over one extent, against a density that is known."""

import math

import numpy as np
import pytest
import torch

from bayesinv.auditing import one_more as module
from bayesinv.auditing.one_more import OneMore, one_more


class Known:
    """A model whose log evidence is a function of one extent."""

    def __init__(self, log_evidence, largest=2.0):
        self.function = log_evidence
        self.coordinates = (type("Coordinate", (), {"largest": largest})(),)

    def log_evidence(self, eta, data):
        return torch.tensor(self.function(float(eta[0])))


@pytest.fixture(autouse=True)
def hyperparameters_as_they_are(monkeypatch):
    monkeypatch.setattr(module, "refitted_model", lambda *arguments: None)


def test_log_bayes_factor_and_quantiles_of_a_normal_density():
    mean, sd = 0.9, 0.15
    found = one_more(Known(lambda eta: -0.5 * ((eta - mean) / sd) ** 2 + 20.0), None, torch.zeros(1).double(), 0, 3.0)
    exact = 20.0 - 3.0 + math.log(sd * math.sqrt(2 * math.pi) / 2.0)  # flat prior on [0, 2]
    assert found.log_bf == pytest.approx(exact, abs=0.2)
    low, middle, high = found.quantiles((0.05, 0.5, 0.95))
    assert middle == pytest.approx(mean, abs=0.05)
    assert (high - low) / 2 == pytest.approx(1.645 * sd, rel=0.25)


def test_an_operation_that_only_harms_has_evidence_against_it():
    found = one_more(Known(lambda eta: -20.0 * eta), None, torch.zeros(1).double(), 0, 0.0)
    assert found.log_bf == pytest.approx(math.log(0.05 / 2.0), abs=0.3)  # ∫ exp(-20 η) dη / 2
    assert found.inclusion(0.5) < 0.05
    assert found.extents[0] == 0.0


def test_the_side_without_is_at_its_own_hyperparameters():
    flat = Known(lambda eta: 5.0)
    assert one_more(flat, None, torch.zeros(1).double(), 0, 4.0).log_bf == pytest.approx(1.0)
    assert one_more(flat, None, torch.zeros(1).double(), 0, 4.95).log_bf == pytest.approx(0.05)


def test_inclusion_follows_prior_odds():
    found = OneMore(math.log(3.0), np.zeros(1), np.zeros(1))
    assert found.inclusion(0.5) == pytest.approx(0.75)
    assert found.inclusion(0.1) == pytest.approx(0.25)
    assert OneMore(-math.inf, np.zeros(1), np.zeros(1)).inclusion(0.5) < 1e-200
