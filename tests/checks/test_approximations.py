"""Verdicts on inducing values and on modes."""

import dataclasses
import math

import pytest
import torch
from gpytorch.kernels import MaternKernel, ScaleKernel

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel
from bayesinv.model.exact_evidence import inducing_gap
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from tests.fakes import make_posterior

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning"),
    # Of bounds by a handful of inducing values, which are what is tested here; the warning on them is of another class.
    pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning"),
]
ETA = torch.tensor([0.6], dtype=torch.float64)


@pytest.fixture(scope="module")
def train():
    return bayesinv.datasets.digits(math.radians(45), size=8, num_train=30, seed=0).train


def model_of(backbone, **options):
    return InvarianceModel(backbone, "rotation", **{"num_orbit_samples": 4, "evidence": "dirichlet"} | options)


def initialised(backbone, data, **options):
    model = model_of(backbone, **options)
    model.initialise(data)
    return model


def test_the_gap_is_that_of_a_model_with_the_exact_covariance(train):
    few = initialised(GaussianProcess(num_inducing=6), train, precision="double")
    exact = initialised(GaussianProcess(num_inducing=None), train, precision="double")
    exact.backbone.kernel.load_state_dict(few.backbone.kernel.state_dict())
    with torch.no_grad():
        expected = float(exact.log_evidence(ETA, train) - few.log_evidence(ETA, train))
    assert inducing_gap(few, train, ETA) == {"gap": pytest.approx(expected, abs=1e-6)}
    assert expected > 5.0
    assert few.backbone.space == "inducing"  # the fitted model is as it was


def test_without_memory_for_the_covariance_the_variance_left_is_what_counts(train):
    """Of inducing values at the inputs themselves, without a transform, nothing is left."""
    fixed = {"priors": {"rotation": None}, "memory_budget": 1000, "precision": "double"}
    all_of_them = initialised(GaussianProcess(num_inducing=30), train, **fixed)
    zero = torch.zeros(1, dtype=torch.float64)
    assert inducing_gap(all_of_them, train, zero)["share"] == pytest.approx(0.0, abs=1e-3)
    few = initialised(GaussianProcess(num_inducing=3), train, **fixed)
    prior = few.at(zero)
    with torch.no_grad():
        cross, variance = prior.statistics(train.x)
        explained = (cross * torch.linalg.solve(prior.inducing_covariance(), cross.T).T).sum(1)
    expected = float((variance - explained).sum() / variance.sum())
    assert inducing_gap(few, train, zero)["share"] == pytest.approx(expected, rel=1e-4)
    assert expected > 0.1


def test_groups_and_outputs_are_judged_by_the_variance_left(train):
    groups = torch.arange(30) % 2
    data = bayesinv.Data(train.x, train.y, 10, groups=groups)
    pooled = initialised(GaussianProcess(num_inducing=5), data, groups=["a", "b"])
    each = initialised(GaussianProcess(num_inducing=5), train, outputs=[str(c) for c in range(10)])
    for model, given in ((pooled, data), (each, train)):
        eta = model.extents.prior_quantile(0.5)
        assert 0.05 < inducing_gap(model, given, eta)["share"] < 1.0


def test_other_spaces_and_minibatches_have_no_gap(train):
    for backbone in (GaussianProcess(num_features=64), GaussianProcess(num_inducing=None)):
        assert inducing_gap(initialised(backbone, train), train, ETA) is None
    stochastic = initialised(GaussianProcess(num_inducing=5), train, evidence="stochastic")
    assert inducing_gap(stochastic, train, ETA) is None
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    assert inducing_gap(InvarianceModel(net, "rotation"), train, ETA) is None


def settled(**settings):
    return make_posterior(weighted=True, settings=settings).check()


@pytest.mark.parametrize(
    ("cost", "level"),
    [
        ({"gap": 0.9}, "ok"),
        ({"gap": 1.1}, "note"),
        ({"gap": -4.9}, "note"),  # EP with inducing values is no bound
        ({"gap": -5.1}, "serious"),
        ({"gap": 5.1}, "serious"),
        ({"share": 0.009}, "ok"),
        ({"share": 0.011}, "note"),
        ({"share": 0.099}, "note"),
        ({"share": 0.11}, "serious"),
    ],
)
def test_levels(cost, level):
    (verdict,) = settled(inducing=cost).named("inducing")
    assert verdict.level == level
    assert ("too large" in verdict.message) is ("share" in cost)
    assert bool(verdict.advice) is (level != "ok")


def test_a_fit_stores_what_its_inducing_values_cost_and_warns_where_it_chose_them(train, monkeypatch):
    options = {"seed": 0, "num_draws": 100, "hyperparameters": "optimised"}
    # A number that was asked for is not warned of (warnings are errors here), and said wherever the fit is shown.
    posterior = bayesinv.fit(model_of(GaussianProcess(num_inducing=5)), train, **options)
    cost = posterior.result.settings["inducing"]
    assert cost == inducing_gap(posterior.model, posterior.data, posterior.quantile(0.5))
    (verdict,) = posterior.check().named("inducing")
    assert verdict.level == "serious" and cost["gap"] > 5
    assert verdict.text in posterior.result.warnings and verdict.message in repr(posterior)
    assert 'num_inducing="auto"' in verdict.advice
    # Fits from before it was stored are measured when asked.
    kept = {k: v for k, v in posterior.result.settings.items() if k != "inducing"}
    old = InvariancePosterior(posterior.model, posterior.data, dataclasses.replace(posterior.result, settings=kept))
    assert old.check().named("inducing") == [verdict]
    monkeypatch.setattr(bayesinv.backbones.gp, "DEFAULT_INDUCING", 4)
    rough = GaussianProcess(ScaleKernel(MaternKernel(nu=0.5)))
    assert rough.space == "inducing"
    with pytest.warns(
        UserWarning, match="the evidence lies .* nats .* that of the exact covariance: the extents may be"
    ):
        bayesinv.fit(model_of(rough), train, **options)
    assert not bayesinv.fit(model_of(GaussianProcess(num_features=64)), train, **options).check().named("inducing")


def mode(value, rotation, merged=False, **changes):
    at = {"log_joint": value, "extents": [rotation, 0.05, 0.02], "merged": merged, "start": 0.1, "evaluations": 30}
    return at | {"decrement": 0.01} | changes


def test_modes():
    assert not settled().named("modes")
    assert not settled(modes=[mode(-100.0, 0.9), mode(-100.1, 0.91, merged=True)]).named("modes")
    (verdict,) = settled(modes=[mode(-100.0, 0.9), mode(-102.5, 2.0), mode(-100.1, 0.91, merged=True)]).named("modes")
    assert verdict.level == "note"
    assert "2.5 nats lower, at rotation ±114.6° in place of ±51.6°." in verdict.message
    assert "translate_x" not in verdict.message
    (same,) = settled(modes=[mode(-100.0, 0.9), mode(-102.5, 0.95)]).named("modes")
    assert "the same extents with other hyperparameters" in same.message
