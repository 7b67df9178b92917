"""A fit that knows no more than a constant is called serious; one that does is not."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.special import gammaln

import bayesinv
from bayesinv.checks.baseline import best_constant, constant_log_evidence
from bayesinv.errors import DataWarning
from bayesinv.transforms import ColumnShift


def fitted(y, likelihood, seed=0, **options):
    """A process on two columns, of which the first may tell the targets; the first 60 rows of 160."""
    x = torch.randn(160, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = y(x) if callable(y) else y
    backbone = bayesinv.GaussianProcess(num_features=64)
    model = bayesinv.InvarianceModel(
        backbone, ColumnShift([1]), likelihood, priors={"shift_1": None}, num_orbit_samples=1, **options
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        posterior = bayesinv.fit(model, (x[:60], y[:60]), seed=0)
    return posterior, (x[60:], y[60:]), [w.category for w in seen]


def coins(num_classes=3):
    return torch.randint(0, num_classes, (160,), generator=torch.Generator().manual_seed(1))


def noise():
    return 5.0 + torch.randn(160, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


INFORMED = {
    "categorical": lambda x: (x[:, 0] > 0).long(),
    "gaussian": lambda x: torch.sin(2 * x[:, 0]),
}


@pytest.mark.parametrize(
    ("likelihood", "y"), [("categorical", coins()), ("categorical", coins(10)), ("gaussian", noise())]
)
def test_targets_that_inputs_do_not_tell_are_serious(likelihood, y):
    posterior, test, seen = fitted(y, likelihood)
    (verdict,) = posterior.check().named("baseline")
    assert verdict.level == "serious"
    assert DataWarning in seen
    assert [v.level for v in posterior.check(test=test).named("baseline")] == ["serious", "serious"]


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_targets_that_inputs_tell_are_not(likelihood):
    posterior, test, seen = fitted(INFORMED[likelihood], likelihood)
    assert [v.level for v in posterior.check(test=test).named("baseline")] == ["ok", "ok"]
    assert DataWarning not in seen


def test_test_data_of_another_kind_are_no_better_than_a_constant():
    """The evidence cannot know: the fit is good, and the new targets are not those that it learned."""
    posterior, (x, y), _ = fitted(INFORMED["categorical"], "categorical")
    assert [v.level for v in posterior.check(test=(x, y.flip(0))).named("baseline")] == ["ok", "serious"]


def test_an_evidence_of_other_numbers_is_left_to_test_data():
    posterior, test, seen = fitted(coins(), "categorical", evidence="dirichlet")
    assert posterior.check().named("baseline") == []
    assert DataWarning not in seen
    assert [v.level for v in posterior.check(test=test).named("baseline")] == ["serious"]


def test_equal_classes_are_a_constant_without_free_numbers():
    balanced, rare = torch.arange(10).repeat(20), torch.tensor([0] * 90 + [1] * 10)
    assert best_constant(balanced, 10) == pytest.approx(-200 * math.log(10))
    assert best_constant(rare, 2) == pytest.approx(float(constant_log_evidence(rare, 2)))


def test_a_constant_of_classes_is_close_to_its_marginal_likelihood():
    """The Dirichlet-multinomial with Jeffreys' prior: within a nat and a half, whatever n."""
    for counts in ([40, 20], [300, 500, 200], [5, 9, 6, 10]):
        c, n = len(counts), sum(counts)
        y = torch.arange(c).repeat_interleave(torch.tensor(counts))
        a = np.full(c, 0.5)
        exact = gammaln(a.sum()) - gammaln(n + a.sum()) + (gammaln(counts + a) - gammaln(a)).sum()
        assert abs(float(constant_log_evidence(y, c)) - exact) < 1.5


def test_a_constant_of_real_targets_by_hand():
    y = torch.tensor([[0.0], [2.0]])
    normal = torch.distributions.Normal(1.0, 1.0).log_prob(y).sum()
    torch.testing.assert_close(constant_log_evidence(y, None), (normal - math.log(2)).double())
