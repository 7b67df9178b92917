"""The linearised predictive against Laplace's posterior written out in weight space."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

import bayesinv
from bayesinv import InvarianceModel, Linearised, Training
from bayesinv.data.container import Data
from bayesinv.model.linearised import _WeightPosterior

SHARES = torch.ones(1, dtype=torch.float64)


def posterior_of(likelihood: str = "categorical", second: bool = False) -> bayesinv.InvariancePosterior:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(30, 1, 6, 6, generator=generator)
    y = torch.arange(30) % 3 if likelihood == "categorical" else x.mean((1, 2, 3))
    y = (x.mean((1, 2, 3)) > 0.5).long() if likelihood == "bernoulli" else y
    outputs = 3 if likelihood == "categorical" else 1
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), nn.Linear(4, outputs))
    model = InvarianceModel(net, "rotation", likelihood, num_orbit_samples=3)
    stage = bayesinv.SecondStage() if second else None
    data = Data(x, y[:, None] if likelihood == "gaussian" else y, 3 if likelihood == "categorical" else None)
    with pytest.warns(bayesinv.errors.NotConvergedWarning):
        return bayesinv.fit(model, data, training=Training(epochs=4, batch_size=10, second_stage=stage), num_draws=5)


def by_hand(posterior, eta, x, names):
    """Mean and covariance of f, with the inverse of the whole precision matrix."""
    model, data = posterior.model, posterior.data
    predicting = model.predictive or model
    net, theta = predicting.network.net, predicting.network.weights()
    sizes = {name: theta[name].numel() for name in names}
    scale = torch.cat([model.network.prior_scales()[n].detach().expand(sizes[n]) for n in names]).double()

    def jacobian(inputs):
        points = predicting.at(eta).points(inputs)  # (S, n, ...)

        def mean(some):
            outputs = functional_call(net, some, (points.flatten(0, 1),)).unflatten(0, points.shape[:2])
            return predicting.network.in_unit(outputs).mean(0)  # of a regression, those of the targets

        J = jacrev(mean)({n: theta[n].detach() for n in names})
        f = mean({}).detach().double()
        return f, torch.cat([J[n].reshape(*f.shape, -1) for n in names], -1).detach().double()

    f, J = jacobian(data.x)
    if model.likelihood == "categorical":
        p = f.softmax(-1)
        hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    elif model.likelihood == "bernoulli":
        hessian = (f.sigmoid() * (-f).sigmoid())[..., None]
    else:
        hessian = torch.eye(1).double().expand(len(f), 1, 1) / float(predicting.evidence.noise.detach())
    precision = torch.diag(scale**-2) + torch.einsum("ncp,ncd,ndq->pq", J, hessian, J)
    mean, J = jacobian(x)
    return mean, J @ torch.linalg.inv(precision) @ J.mT


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli", "gaussian"])
@pytest.mark.parametrize("which", ["last", "all"])
def test_function_variances_are_those_of_the_inverse_precision_matrix(likelihood, which):
    posterior = posterior_of(likelihood)
    model, x = posterior.model, torch.rand(5, 1, 6, 6)
    eta = torch.tensor([0.4], dtype=torch.float64)
    names = [name for name in model.network.weights() if which == "all" or name.startswith("3.")]
    with torch.no_grad():
        found = _WeightPosterior(model, Linearised(which), posterior.data, 30, eta[None], SHARES)
        mean, covariance = found.of_function(model.at(eta), x, None)
    assert (found.phi is None) == (which == "last")  # 15 weights, and 163 or more
    wanted_mean, wanted = by_hand(posterior, eta, x, names)
    assert torch.allclose(mean, wanted_mean, atol=1e-5)
    assert torch.allclose(covariance, wanted, rtol=1e-3, atol=1e-5 * float(wanted.diagonal(dim1=1, dim2=2).max()))


def test_fewer_examples_count_for_all_and_small_budgets_change_nothing():
    posterior = posterior_of()
    model, x = posterior.model, torch.rand(5, 1, 6, 6)
    eta = torch.tensor([0.4], dtype=torch.float64)

    def covariance(options, data, num_total):
        with torch.no_grad():
            found = _WeightPosterior(model, options, data, num_total, eta[None], SHARES)
            return found.of_function(model.at(eta), x, None)[1]

    whole = covariance(Linearised("all"), posterior.data, 30)
    twice = Data(posterior.data.x.repeat(2, 1, 1, 1), posterior.data.y.repeat(2), 3)
    assert torch.allclose(covariance(Linearised("all"), twice, 60), covariance(Linearised("all"), posterior.data, 60))
    few = covariance(Linearised("all", num_examples=10), posterior.data, 30)
    assert not torch.allclose(few, whole)
    model.memory_budget = 3 * 2 * 4 * 3 * 163  # three examples of 163 weights
    assert torch.allclose(covariance(Linearised("all", num_examples=30), posterior.data, 30), whole, rtol=1e-4)


@pytest.mark.parametrize("second", [False, True])
def test_predictions_average_over_weights_and_outputs_vary_together(second):
    posterior = posterior_of(second=second)
    x = torch.rand(4, 1, 6, 6)
    plain = posterior.predict(x, num_samples=2)
    found = posterior.predict(x, num_samples=2, prediction=Linearised("all", num_function_samples=2000))
    again = posterior.predict(x, num_samples=2, prediction=Linearised("all", num_function_samples=2000))
    assert torch.equal(found.probs, again.probs)
    assert torch.allclose(found.probs.sum(1), torch.ones(4).double())
    assert float(found.variance.mean()) > float(plain.variance.mean())
    rows, shares = posterior.distinct_draws(2)
    wanted = torch.zeros(4, 3).double()
    names = list(posterior.model.network.weights())
    for eta, share in zip(posterior.result.draws[rows], shares.tolist(), strict=True):
        # The curvature is at one of the draws, and they lie close together here.
        mean, covariance = by_hand(posterior, eta, x, names)
        f = torch.distributions.MultivariateNormal(mean, covariance + 1e-6 * torch.eye(3)).sample((20000,))
        wanted += share * f.softmax(-1).mean(0)
    assert torch.allclose(found.probs, wanted, atol=0.02)


def test_variances_of_a_regression_hold_those_of_the_function():
    posterior = posterior_of("gaussian")
    x = torch.rand(3, 1, 6, 6)
    plain, found = (posterior.predict(x, prediction=kind) for kind in ("plugin", "linearised"))
    assert torch.allclose(plain.mean, found.mean, atol=1e-5)
    assert bool((found.variance > plain.variance).all())


def test_what_has_no_posterior_of_weights_says_so():
    posterior = posterior_of()
    with pytest.raises(ValueError, match='expected "plugin", "linearised" or'):
        posterior.predict(posterior.data.x, prediction="glm")
    point = bayesinv.fit(posterior.model, posterior.data, "none", training=Training(epochs=1))
    with pytest.raises(ValueError, match='evidence="laplace"'):
        point.predict(posterior.data.x, prediction="linearised")
    with pytest.raises(ValueError, match="num_examples"):
        Linearised(num_examples=0)
