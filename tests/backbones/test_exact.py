"""The exact covariance in place of inducing values."""

import warnings

import pytest
import torch
from torch.distributions import MultivariateNormal

import bayesinv
from bayesinv.data.container import Data
from bayesinv.errors import DataError


def make(num_inducing=None, evidence="gaussian", **options):
    return bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=num_inducing),
        ["rotation", "shear"],
        likelihood="gaussian" if evidence == "gaussian" else "categorical",
        evidence=evidence,
        **{"num_orbit_samples": 4, "precision": "double", **options},
    )


def images(evidence="gaussian", n=20):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    if evidence == "gaussian":
        return Data(x, torch.randn(n, 2, generator=generator, dtype=torch.float64))
    return Data(x, torch.arange(n) % 3, 3)


ETA = torch.tensor([0.7, 0.2], dtype=torch.float64)


@torch.no_grad()
def test_the_gaussian_evidence_is_that_of_the_dense_process():
    data, model = images(), make()
    model.initialise(data)
    K = model.at(ETA).covariance(data.x)
    K = K + model.evidence.offset_variance  # of the unknown mean
    noise = model.evidence.noise_model.noise.double().reshape(-1)[0]
    expected = sum(
        MultivariateNormal(m.expand(20), K + noise * torch.eye(20, dtype=torch.float64)).log_prob(y)
        for m, y in zip(model.evidence.constant_mean.expand(2), data.y.T, strict=True)
    )
    torch.testing.assert_close(model.log_evidence(ETA, data), expected, rtol=1e-4, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("evidence", ["gaussian", "dirichlet"])
def test_inducing_values_give_a_lower_bound(evidence):
    data = images(evidence)
    exact, sparse = make(evidence=evidence), make(10, evidence)
    sparse.initialise(data)
    exact.initialise(data)
    exact.backbone.kernel.load_state_dict(sparse.backbone.kernel.state_dict())
    exact.evidence.load_state_dict(sparse.evidence.state_dict())
    assert exact.log_evidence(ETA, data) > sparse.log_evidence(ETA, data)


@torch.no_grad()
def test_predictions_at_the_data_and_elsewhere():
    data, model = images(), make()
    model.initialise(data)
    new = torch.rand(7, 1, 8, 8, dtype=torch.float64)
    mean, variance = model.function_posterior(new, data, ETA)
    both = torch.cat([data.x, new])
    K = model.at(ETA).covariance(both) + model.evidence.offset_variance
    noise = model.evidence.noise_model.noise.double().reshape(-1)[0]
    A = K[:20, :20] + noise * torch.eye(20, dtype=torch.float64)
    expected = model.evidence.constant_mean + K[20:, :20] @ torch.linalg.solve(A, data.y - model.evidence.constant_mean)
    torch.testing.assert_close(mean, expected, rtol=1e-3, atol=1e-3)
    spread = K[20:, 20:].diagonal() - (K[20:, :20] * torch.linalg.solve(A, K[:20, 20:]).T).sum(1)
    torch.testing.assert_close(variance[:, 0], spread, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("evidence", ["gaussian", "dirichlet", "softmax"])
def test_many_features_approach_the_exact_evidence(evidence):
    data = images(evidence)
    exact = make(evidence=evidence)
    exact.initialise(data)
    errors = []
    for num_features in (64, 16_384):
        model = make(evidence=evidence)
        model.backbone = bayesinv.GaussianProcess(num_features=num_features)
        model.initialise(data)
        errors.append(abs(float(model.log_evidence(ETA, data) - exact.log_evidence(ETA, data))))
    assert errors[1] < 0.2
    assert errors[1] < errors[0] / 3


@torch.no_grad()
def test_training_inputs_that_come_as_a_copy_are_predicted_alike():
    data, model = images(), make()
    model.initialise(data)
    same, copy = (model.function_posterior(x, data, ETA) for x in (data.x, data.x.clone()))
    torch.testing.assert_close(same, copy, atol=1e-4, rtol=1e-4)


def test_gradient_in_the_extents():
    data, model = images(), make()
    model.initialise(data)
    assert torch.autograd.gradcheck(lambda eta: model.log_evidence(eta, data), ETA.clone().requires_grad_(), eps=1e-5)


def test_a_fit_and_its_file(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fitted = bayesinv.fit(make(), images(), seed=0, max_steps=10, num_draws=20)
    loaded = bayesinv.InvariancePosterior.load(fitted.save(tmp_path / "exact"))
    assert loaded.model.backbone.is_exact
    x = fitted.data.x[:3]
    torch.testing.assert_close(loaded.predict(x).mean, fitted.predict(x).mean)


def test_too_many_copies_are_refused_before_memory_is_taken():
    model = make(memory_budget=2**16)
    model.initialise(images())
    with pytest.raises(DataError, match="above the memory budget"):
        model.log_evidence(ETA, images())


def test_what_is_refused():
    with pytest.raises(ValueError, match="exact covariance goes with the collapsed"):
        make(evidence="stochastic")
    with pytest.raises(ValueError, match="extents in common"):
        make(outputs=["a", "b"])
    with pytest.raises(ValueError, match="no place for them"):
        bayesinv.GaussianProcess(num_inducing=None, inducing_points=torch.rand(3, 64))
    with pytest.raises(ValueError, match="or None for none"):
        bayesinv.GaussianProcess(num_inducing=0)
