"""Options of variational inference and NUTS, as objects and beside a name."""

import pytest
import torch

import bayesinv
from bayesinv import NUTS, VI, GaussianProcess, InvarianceModel
from bayesinv.inference.options import as_method
from bayesinv.inference.point import Augerino

GIVEN = {
    "guide": "full_rank",
    "max_steps": None,
    "hyperparameters": "latent",
    "learning_rate": 0.05,
    "num_draws": None,
    "num_chains": 2,
    "num_warmup": 150,
}


@pytest.fixture(scope="module")
def problem():
    train = bayesinv.datasets.digits(0.8, size=8, num_train=30, seed=0).train
    return InvarianceModel(GaussianProcess(num_features=32), "rotation", num_orbit_samples=4), train


def test_names_and_objects_mean_the_same():
    method, options = as_method("vi", {**GIVEN, "guide": "mean_field", "num_draws": 30})
    assert method is options and method == VI(guide="mean_field", num_draws=30)
    assert as_method("nuts", {**GIVEN, "num_chains": 3})[0] == NUTS(num_chains=3)
    assert as_method(NUTS(num_warmup=20), GIVEN)[0] == NUTS(num_warmup=20)
    assert as_method(Augerino(), {**GIVEN, "max_steps": 7}) == (Augerino(), NUTS(max_steps=7))


@pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning")
def test_a_fit_by_an_object_is_the_fit_by_its_name(problem):
    model, train = problem
    one = bayesinv.fit(model, train, VI(num_draws=20, max_steps=90, hyperparameters="optimised"), seed=0)
    other = bayesinv.fit(model, train, "vi", num_draws=20, max_steps=90, hyperparameters="optimised", seed=0)
    assert torch.equal(one.result.extents, other.result.extents)
    assert one.result.settings["max_steps"] == 90


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
def test_nuts_as_an_object_samples(problem):
    model, train = problem
    sampled = bayesinv.fit(
        model, train, NUTS(num_draws=20, num_chains=1, num_warmup=30, hyperparameters="optimised"), seed=0
    )
    assert sampled.result.inference == "nuts" and sampled.result.extents.shape == (1, 20, 1)
    assert sampled.result.settings["num_warmup"] == 30


@pytest.mark.parametrize(
    ("inference", "options", "message"),
    [
        ("vi", {"num_chains": 3}, "num_chains: expected nothing, since inference='vi'"),
        ("vi", {"num_chains": 3, "num_warmup": 7}, "does not use them"),
        (VI(), {"guide": "mean_field"}, r"guide: expected among the options of VI, .*VI\(guide='mean_field'\)"),
        (NUTS(), {"num_draws": 50}, r"NUTS\(num_draws=50\)"),
        ("gibbs", {}, "expected one of"),
        ("vi", {"num_draws": 4}, "num_draws: expected"),
        ("vi", {"hyperparameters": "known"}, "hyperparameters: expected one of"),
    ],
)
def test_options_that_do_nothing_are_refused(problem, inference, options, message):
    model, train = problem
    with pytest.raises(ValueError, match=message):
        bayesinv.fit(model, train, inference, **options)


def test_other_kinds_are_refused():
    with pytest.raises(TypeError, match=r"got the class NUTS: NUTS\(\.\.\.\)"):
        as_method(NUTS, GIVEN)
    with pytest.raises(TypeError, match="num_chains"):
        VI(num_chains=2)
    for bad in ({"max_steps": 0}, {"learning_rate": -1.0}, {"guide": "banana"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            VI(**bad)


def test_a_network_refuses_what_minibatches_do_not_use():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    train = bayesinv.datasets.digits(0.8, size=8, num_train=30, seed=0).train
    model = InvarianceModel(net, "rotation", num_orbit_samples=4)
    with pytest.raises(ValueError, match="hyperparameters, learning_rate: expected nothing"):
        bayesinv.fit(model, train, VI(hyperparameters="optimised", learning_rate=0.1))
