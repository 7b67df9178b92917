"""Weights and scales refitted at one value of the extents: against the evidence's own definition and closed forms."""

import copy

import pytest
import torch

import bayesinv
from bayesinv.data.streams.sources import stream_of
from bayesinv.inference import refits
from bayesinv.inference.refits import Examples, Refit, Still
from bayesinv.inference.training import Training


def model(likelihood="categorical", outputs=3, net=None, **options):
    torch.manual_seed(0)
    net = net or torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 5), torch.nn.Tanh(), torch.nn.Linear(5, outputs)
    )
    return bayesinv.InvarianceModel(
        bayesinv.NeuralNetwork(net), "rotation", likelihood=likelihood, num_orbit_samples=3, **options
    )


def data(n=12, likelihood="categorical", groups=None):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 1, 4, 4, generator=generator)
    if likelihood == "gaussian":
        return bayesinv.Data(x, torch.rand(n, 2, generator=generator))
    return bayesinv.Data(x, torch.arange(n) % 3, 3, groups)


def examples_of(own, train, **options):
    stream = stream_of(train, own.likelihood, own.transform, groups=own.groups)
    return Examples.of(own, stream, Training(**options), 0)


ETA = torch.tensor([0.8], dtype=torch.float64)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
@pytest.mark.parametrize("batch_size", [12, 4])
def test_without_steps_it_is_the_exact_evidence(likelihood, batch_size):
    own, train = model(likelihood, 3 if likelihood == "categorical" else 2), data(likelihood=likelihood)
    own.initialise(train)
    exact = copy.deepcopy(own)
    exact.evidence.num_outputs = None
    refit = Refit(own, ETA, examples_of(own, train, batch_size=batch_size))
    assert refit.examples.exact and refit.examples.num_batches == 12 // batch_size
    assert refit.log_evidence() == pytest.approx(float(exact.log_evidence(ETA, train).detach()), abs=1e-3)


def test_groups_see_their_own_extents():
    own = model(groups=["a", "b"])
    train = data(groups=torch.arange(12) % 2)
    own.initialise(train)
    exact = copy.deepcopy(own)
    exact.evidence.num_outputs = None
    values = []
    for last in (0.1, 2.0):
        eta = torch.tensor([0.8, 0.3, 0.5, last], dtype=torch.float64)
        refit = Refit(own, eta, examples_of(own, train))
        assert refit.log_evidence() == pytest.approx(float(exact.log_evidence(eta, train).detach()), abs=1e-3)
        values.append(refit.log_evidence())
    assert values[0] != values[1]


def test_random_rows_are_the_same_at_every_call(monkeypatch):
    monkeypatch.setattr(refits, "EXACT_WORK", 0)
    own, train = model(), data()
    own.initialise(train)
    examples = examples_of(own, train, batch_size=4, extent_batch_size=6)
    assert not examples.exact and [len(rows) for rows in examples.rows] == [6, 6]
    refit = Refit(own, ETA, examples)
    state = torch.get_rng_state()
    assert refit.log_evidence() == refit.log_evidence() == Refit(own, ETA, examples).log_evidence()
    assert torch.equal(state, torch.get_rng_state())
    assert refit.log_evidence() != Refit(own, ETA, Examples(**{**vars(examples), "seed": 5})).log_evidence()


def test_scales_and_noise_reach_the_maximum_of_the_marginal_likelihood():
    """A linear network with real targets: log N(y; 0, σ² I + Σ_l σ_l² Φ_l Φ_lᵀ) is the evidence itself."""
    n = 30
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, 1, 4, 4, generator=generator)
    y = x.flatten(1)[:, :3].sum(1, keepdim=True) + 0.5 * torch.randn(n, 1, generator=generator)
    own = model("gaussian", net=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1, bias=False)))
    own.initialise(bayesinv.Data(x, y))
    zero = torch.zeros(1, dtype=torch.float64)
    refit = Refit(own, zero, examples_of(own, bayesinv.Data(x, y)))
    # Outputs are standardised targets: y = m + s Φw + e.
    phi, y = float(own.network.output_unit) * x.flatten(1).double(), y.double() - own.network.output_mean
    weight = refit.network.weights()["1.weight"]
    for _ in range(60):
        variance = float(refit.network.prior_scales()["1.weight"].detach()) ** 2
        noise = float(refit.evidence.noise.detach())
        A = phi.T @ phi / noise + torch.eye(16, dtype=torch.float64) / variance
        with torch.no_grad():
            weight.copy_((torch.linalg.solve(A, phi.T @ y) / noise).T)
        refit.settle_scales()
    variance = refit.network.prior_scales()["1.weight"].detach().double().square().log().requires_grad_()
    noise = refit.evidence.log_noise.detach().clone().requires_grad_()
    covariance = noise.exp() * torch.eye(n, dtype=torch.float64) + variance.exp() * phi @ phi.T
    marginal = torch.distributions.MultivariateNormal(torch.zeros(n, dtype=torch.float64), covariance).log_prob(y[:, 0])
    slopes = torch.autograd.grad(marginal, [variance, noise])
    assert max(float(s.abs()) for s in slopes) < 0.02
    assert refit.log_evidence() == pytest.approx(float(marginal.detach()), abs=0.02)


def test_steps_and_scales_raise_the_evidence_and_leave_the_start_alone():
    own, train = model(), data()
    own.initialise(train)
    before = copy.deepcopy(own.state_dict())
    examples = examples_of(own, train)
    start = Refit(own, ETA, examples).log_evidence()
    weights = Refit(own, ETA, examples).fit(40, 0.01, 2, learn_scales=False).log_evidence()
    both = Refit(own, ETA, examples).fit(40, 0.01, 2).log_evidence()
    assert start < weights < both
    assert all(torch.equal(before[name], value) for name, value in own.state_dict().items())


def test_every_example_is_in_a_batch():
    own, train = model(), data(n=11)
    own.initialise(train)
    examples = examples_of(own, train, batch_size=4)
    seen = torch.cat([examples.batch(i).x for i in range(examples.num_batches)]).flatten(1)
    assert len(seen.unique(dim=0)) == 11 and len(seen) == 12


def test_copies_are_kept_for_the_inputs_they_are_of(monkeypatch):
    own, train = model(), data()
    own.initialise(train)
    refit = Refit(own, ETA, examples_of(own, train, batch_size=4))
    seen, batch = refit._seen(0)
    assert isinstance(seen, Still) and refit._seen(0)[0] is seen
    torch.testing.assert_close(seen.points(batch.x), own.at(ETA).points(batch.x))
    torch.testing.assert_close(seen.points(batch.x + 1), own.at(ETA).points(batch.x + 1))
    refit.model.memory_budget = 1
    assert not isinstance(refit._seen(1)[0], Still)
