"""The log density of a regression's targets: that of the likelihood itself, averaged over draws of the extents."""

import gpytorch
import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel
from bayesinv.data.container import Data
from bayesinv.evidence.prediction import Prediction


def data(n: int = 12) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 6, 6, generator=generator, dtype=torch.float64)
    return Data(x, 3.0 * torch.randn(n, 1, generator=generator, dtype=torch.float64))


def test_a_prediction_prints_its_shapes():
    prediction = Prediction(torch.zeros(1000, 3), probs=torch.zeros(1000, 3))
    assert repr(prediction) == "Prediction of 1,000 inputs: probs (1000, 3), variance (1000, 3)"
    assert "mean (1, 2)" in repr(Prediction(torch.zeros(1, 2), mean=torch.zeros(1, 2)))


def test_the_density_of_a_gaussian_process_is_the_mixture_over_the_extents():
    train = data()
    model = InvarianceModel(GaussianProcess(num_features=32), "rotation", likelihood="gaussian", num_orbit_samples=4)
    model.initialise(train)
    extents = torch.tensor([[0.1], [2.5]], dtype=torch.float64)
    shares = torch.tensor([0.25, 0.75], dtype=torch.float64)
    found = model.predict(train.x, train, extents, weights=shares, y=train.y)
    parts = []
    for eta, share in zip(extents, shares, strict=True):
        alone = model.predict(train.x, train, eta[None])
        normal = torch.distributions.Normal(alone.mean, alone.variance.sqrt())
        parts.append(normal.log_prob(train.y).sum(-1) + share.log())
    expected = torch.stack(parts).logsumexp(0)
    torch.testing.assert_close(found.log_density, expected)
    assert model.predict(train.x, train, extents).log_density is None
    of_moments = torch.distributions.Normal(found.mean, found.variance.sqrt()).log_prob(train.y).sum(-1)
    assert not torch.allclose(expected, of_moments, atol=1e-4)


def test_the_density_of_heavy_tails_is_not_that_of_a_normal():
    student = gpytorch.likelihoods.StudentTLikelihood().double()
    evidence = bayesinv.evidence.StochasticGPEvidence("gaussian", observation=student)
    evidence.initialise(data())
    average = evidence.average(2000, seed=0)
    mean, variance = torch.zeros(3, 1, dtype=torch.float64), torch.full((3, 1), 0.3, dtype=torch.float64)
    y = torch.tensor([[0.1], [2.0], [9.0]], dtype=torch.float64)
    found = average.log_density(mean, variance, y)
    grid = torch.linspace(-6.0, 6.0, 4001, dtype=torch.float64)
    weights = torch.distributions.Normal(0.0, 0.3**0.5).log_prob(grid)
    step = torch.tensor(12.0 / 4000.0, dtype=torch.float64).log()
    exact = torch.stack(
        [(evidence.conditional(grid[:, None]).log_prob(t)[:, 0] + weights + step).logsumexp(0) for t in y[:, 0]]
    )
    torch.testing.assert_close(found.detach(), exact.detach(), atol=0.03, rtol=0.0)


def test_compare_takes_the_density_of_the_likelihood():
    train = data()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 1)).double()
    model = InvarianceModel(net, "rotation", likelihood="gaussian", num_orbit_samples=4)
    with pytest.warns(bayesinv.errors.NotConvergedWarning):
        fit = bayesinv.fit(model, train, seed=0, training=bayesinv.Training(epochs=5, batch_size=6))
    table = bayesinv.compare({"fit": fit}, train, num_samples=8).table
    density = fit.predict(train.x, num_samples=8, y=train.y).log_density
    assert table.loc["fit", "elpd"] == pytest.approx(float(density.sum()))
    assert table.loc["fit", "log_loss"] == pytest.approx(-float(density.mean()))


def test_classes_have_probabilities_and_no_density():
    x = data().x
    train = Data(x, torch.arange(len(x)) % 2, num_classes=2)
    model = InvarianceModel(GaussianProcess(num_features=32), "rotation", num_orbit_samples=4)
    model.initialise(train)
    with pytest.raises(ValueError, match=r"in \.probs"):
        model.predict(x, train, torch.zeros(1, 1, dtype=torch.float64), y=train.y[:, None].double())
