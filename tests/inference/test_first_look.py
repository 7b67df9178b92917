"""What a fit of a network refuses before its first step, and what it estimates."""

import contextlib
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bayesinv
from bayesinv import InvarianceModel, Training
from bayesinv.errors import DataError
from bayesinv.inference import cost as module
from bayesinv.inference.cost import Cost, warn_of_cost
from bayesinv.inference.first_look import check_examples_apart, differentiated


class Changed(nn.Module):
    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.change = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), change

    def forward(self, x):
        return self.change(self.net, x)


def fit(change, inference="vi", **options):
    torch.manual_seed(1)
    data = torch.rand(16, 1, 6, 6), torch.arange(16) % 2
    model = InvarianceModel(Changed(change), "rotation", num_orbit_samples=2)
    training = Training(epochs=2, batch_size=8)
    return bayesinv.fit(model, data, inference, training=training, num_draws=5, **options)


REFUSED = {
    "whole numbers": (lambda n, x: (10 * n(x)).long(), "floating-point outputs"),
    "detached": (lambda n, x: n(x).detach(), "in any of its weights"),
    "no_grad": (lambda n, x: torch.no_grad()(n)(x), "in any of its weights"),
    "detached inputs": (lambda n, x: n(x.detach()), "in its inputs"),
    "one tensor of several": (lambda n, x: (n(x),), "return one tensor"),
    "reentrant": (lambda n, x: torch.utils.checkpoint.checkpoint(n, x, use_reentrant=True), "cannot be computed"),
}


@pytest.mark.filterwarnings("ignore:None of the inputs:UserWarning")
@pytest.mark.parametrize("inference", ["vi", "augerino"])
@pytest.mark.parametrize("name", REFUSED)
def test_outputs_without_a_gradient_are_refused(name, inference):
    change, words = REFUSED[name]
    with pytest.raises(DataError, match=words):
        fit(change, inference)


def test_inputs_need_no_gradient_where_no_extent_is_learned():
    assert fit(lambda n, x: n(x.detach()), "none").result.num_steps == 4


MIXED = {
    "draws": (lambda n, x: F.dropout(n(x), 0.5, True), "second call"),
    "batch": (lambda n, x: n(x) - n(x).mean(0), "depends on the others"),
}


@pytest.mark.parametrize("name", MIXED)
def test_the_laplace_evidence_refuses_what_is_no_function_of_each_input(name):
    change, words = MIXED[name]
    with pytest.raises(ValueError, match=words):
        fit(change)
    assert fit(change, "none").result.num_steps == 4


class Stop(Exception):
    pass


def stop(step):
    raise Stop


def test_a_long_fit_warns_before_its_first_step(monkeypatch):
    monkeypatch.setattr(module, "LONG_SECONDS", 0.0)
    with pytest.warns(UserWarning, match=r"GaussianProcess\(features=net\)"), pytest.raises(Stop):
        fit(lambda n, x: n(x), callbacks=[stop])


def test_an_estimate_grows_with_steps_and_is_logged(caplog):
    texts = []
    for epochs in (10, 1000):
        with caplog.at_level(logging.INFO, "bayesinv"), pytest.raises(Stop):
            torch.manual_seed(1)
            data = torch.rand(16, 1, 6, 6), torch.arange(16) % 2
            model = InvarianceModel(Changed(lambda n, x: n(x)), "rotation", num_orbit_samples=2)
            bayesinv.fit(model, data, training=Training(epochs=epochs, batch_size=8), callbacks=[stop])
        texts.append(caplog.records[-1].args[0])
    assert texts[1].seconds > 20 * texts[0].seconds > 0
    assert texts[1].num_bytes == texts[0].num_bytes > 0


@pytest.mark.parametrize("cost", [Cost(1801.0, 0.0), Cost(0.0, 2.0**32 + 1)])
def test_limits_are_half_an_hour_and_four_gigabytes(cost):
    model = InvarianceModel(Changed(lambda n, x: n(x)), "rotation", num_orbit_samples=7)
    warn_of_cost(Cost(1800.0, 2.0**32), model)
    with pytest.warns(UserWarning, match="74 weights and 7 copies"):
        warn_of_cost(cost, model)


def test_the_memory_of_a_large_network_stays_near_its_budget():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 300), nn.Tanh(), nn.Linear(300, 10))
    few = bayesinv.Data(torch.rand(8, 3, 32, 32), torch.arange(8), 10)
    sizes = []
    for budget in (2**26, 2**34):
        model = InvarianceModel(net, "rotation", num_orbit_samples=24, memory_budget=budget)
        model.initialise(few)
        objective = module.Phase(
            "any", [], lambda data, n: torch.zeros((), requires_grad=True), 128, takes_evidence=True
        )
        sizes.append(module._bytes(model, [objective], few, 1000))
    assert sizes[0] < 0.5 * sizes[1]


def test_a_network_that_float32_rounds_is_not_taken_for_one_that_mixes():
    """A single row and a batch of rows may sum in another order; float64 tells that from a layer over the batch."""
    offset = 1e6

    def rounded(net, x):
        return (net(x) + offset + 1e-2 * (len(x) - 1) * (x.dtype == torch.float32)) - offset

    fit(rounded)


def test_a_loader_that_gives_nothing_is_named():
    model = InvarianceModel(nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), "rotation", num_orbit_samples=2)
    data = torch.utils.data.TensorDataset(torch.zeros(4, 1, 6, 6), torch.arange(4) % 2)
    with pytest.raises(DataError, match="empty"):
        bayesinv.fit(model, torch.utils.data.DataLoader(data, batch_sampler=[[], []]), max_steps=1)


@pytest.mark.parametrize(("budget", "plain", "gram"), [(2**34, 1.0, 1.0), (2**20, 4 / 3, None)])
def test_parts_that_are_computed_again_count_again(budget, plain, gram):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 300), nn.Tanh(), nn.Linear(300, 10))
    few = bayesinv.Data(torch.rand(8, 3, 32, 32), torch.arange(8), 10)
    model = InvarianceModel(net, "rotation", num_orbit_samples=24, memory_budget=budget)
    model.initialise(few)
    for evidence, expected in ((False, plain), (True, gram)):
        phase = module.Phase("any", [], lambda data, n: torch.zeros(()), 128, takes_evidence=evidence)
        found = module._again(model, phase, few, 128)
        assert found == expected if expected is not None else found >= 2.5


def test_equal_examples_do_not_hide_what_mixes():
    x = torch.rand(8, 1, 6, 6)
    x[1] = x[0]
    model = InvarianceModel(Changed(lambda n, x: n(x) - n(x).mean(0)), "rotation", num_orbit_samples=2)
    data = bayesinv.Data(x, torch.arange(8) % 2, 2)
    model.initialise(data)
    with pytest.raises(ValueError, match="depends on the others"):
        check_examples_apart(model, data)


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        raise RuntimeError("no derivative here")


def raised(message, kind=RuntimeError):
    raise kind(message)


@pytest.mark.parametrize(
    ("compute", "kind", "words", "advice"),
    [
        (lambda: raised("shapes differ"), DataError, "failed on a few examples: shapes differ", None),
        (
            lambda: NoGradient.apply(torch.ones(1, requires_grad=True)).backward(),
            DataError,
            "no derivative here",
            "plugin",
        ),
        (lambda: raised("CUDA out of memory", torch.OutOfMemoryError), torch.OutOfMemoryError, "CUDA", "memory_budget"),
        (lambda: raised("can't allocate memory: 1 TB"), torch.OutOfMemoryError, "1 TB", "memory_budget"),
    ],
)
def test_advice_fits_the_failure(compute, kind, words, advice):
    with pytest.raises(kind, match=words) as caught, differentiated():
        compute()
    assert [word for word in ("plugin", "memory_budget") if word in str(caught.value) and word == advice] == (
        [] if advice is None else [advice]
    )
    assert advice is not None or "evidence" not in str(caught.value)


def test_an_estimate_passes_on_what_is_wrong_with_the_data():
    few = bayesinv.Data(torch.rand(8, 1, 6, 6), torch.arange(8) % 2, 2)
    model = InvarianceModel(Changed(lambda n, x: n(x)), "rotation", num_orbit_samples=2)
    model.initialise(few)
    for kind, expected in ((DataError, pytest.raises(DataError)), (ValueError, contextlib.nullcontext())):
        phase = module.Phase("any", [], lambda data, n, kind=kind: raised("not usable", kind), 4)
        with expected:
            module.estimate_cost(model, [phase], Training(), few, 8, 2)
