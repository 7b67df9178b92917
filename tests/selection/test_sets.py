"""Sets of symmetries and their prior probabilities."""

import pytest
import torch

from bayesinv.selection.sets import all_sets, inclusion_probabilities, log_prior_of_sets, set_name

NAMES = ("a", "b", "c", "d")


def test_every_set_once_and_by_size():
    sets = all_sets(4)
    assert len(torch.unique(sets, dim=0)) == 16
    assert sets.sum(1).tolist() == sorted(sets.sum(1).tolist())
    assert not sets[0].any() and sets[-1].all()


@pytest.mark.parametrize("prior", [0.5, 0.1, {"b": 0.9}, "beta_binomial"])
def test_prior_sums_to_one(prior):
    assert float(log_prior_of_sets(all_sets(4), prior, NAMES).logsumexp(0)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("prior", [0.2, {"b": 0.9, "d": 0.3}, "beta_binomial"])
def test_marginals_are_the_inclusion_probabilities(prior):
    sets = all_sets(4)
    marginal = log_prior_of_sets(sets, prior, NAMES).exp() @ sets.double()
    torch.testing.assert_close(marginal, inclusion_probabilities(prior, NAMES))


def test_beta_binomial_gives_every_size_the_same_probability():
    sets = all_sets(4)
    p = log_prior_of_sets(sets, "beta_binomial", NAMES).exp()
    by_size = torch.stack([p[sets.sum(1) == size].sum() for size in range(5)])
    torch.testing.assert_close(by_size, torch.full((5,), 0.2, dtype=torch.float64))


@pytest.mark.parametrize("prior", [0.0, 1.0, True, {"a": 1.5}, {"nothing": 0.5}, "binomial"])
def test_refuses_what_is_no_prior(prior):
    with pytest.raises(ValueError, match="prior_inclusion"):
        inclusion_probabilities(prior, NAMES)


def test_names():
    assert set_name([]) == "none" and set_name(["a", "c"]) == "a + c"
