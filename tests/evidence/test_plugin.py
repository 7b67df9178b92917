"""The plug-in likelihood's three averages, and the prior that goes with it."""

import math

import pytest
import torch
from torch import nn

from bayesinv import InvarianceModel, NeuralNetwork, Outward
from bayesinv.data.container import Data
from bayesinv.errors import ExtentError
from bayesinv.evidence import PlugInEvidence
from bayesinv.extents.families import Extents, priors_from_config
from bayesinv.transforms import Affine2d

ETA = torch.tensor([0.7], dtype=torch.float64)


def make_model(average: str, likelihood: str = "categorical") -> tuple[InvarianceModel, Data]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, 1, 6, 6, generator=generator, dtype=torch.float64)
    y = torch.arange(5) % 3 if likelihood == "categorical" else torch.randn(5, 3, generator=generator).double()
    data = Data(x, y, 3 if likelihood == "categorical" else None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    model = InvarianceModel(
        net, "rotation", likelihood=likelihood, evidence="plugin", average=average, num_orbit_samples=6
    )
    model.initialise(data)
    return model, data


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_the_three_averages_by_hand(likelihood):
    values = {}
    for average in ("function", "probabilities", "log_likelihood"):
        model, data = make_model(average, likelihood)
        outputs = model.network.in_unit(model.at(ETA).outputs(data.x)).detach()  # (S, n, C)

        def log_p(f, data=data, model=model):
            if data.num_classes is None:
                return torch.distributions.Normal(f, model.evidence.noise.sqrt().detach()).log_prob(data.y).sum(-1)
            return torch.stack([f.log_softmax(-1)[..., i, data.y[i]] for i in range(5)], dim=-1)

        by_hand = {
            "function": log_p(outputs.mean(0)),
            "probabilities": torch.stack([log_p(f).exp() for f in outputs]).mean(0).log(),
            "log_likelihood": torch.stack([log_p(f) for f in outputs]).mean(0),
        }[average].sum()
        values[average] = float(model.log_evidence(ETA, data).detach())
        assert values[average] == pytest.approx(float(by_hand), abs=1e-9)
    # Jensen, twice: the mean of the log is below the log of the mean; and a concave log p of the mean is above it
    assert values["log_likelihood"] < values["probabilities"]
    assert values["log_likelihood"] < values["function"]


def test_a_minibatch_stands_for_all_examples():
    model, data = make_model("log_likelihood")
    torch.manual_seed(0)
    part = float(model.log_evidence(ETA, data, 50).detach())
    torch.manual_seed(0)
    loss = float(model.evidence.weight_loss(model.at(ETA, fresh=True), data, 50).detach())
    assert part == pytest.approx(-50 * loss)


def test_predictions_average_the_same_thing():
    for average in ("function", "probabilities", "log_likelihood"):
        model, data = make_model(average)
        outputs = model.at(ETA).outputs(data.x).detach()
        expected = {
            "function": outputs.mean(0).softmax(-1),
            "probabilities": outputs.softmax(-1).mean(0),
            "log_likelihood": outputs.log_softmax(-1).mean(0).softmax(-1),
        }[average]
        got = model.predict(data.x, data, ETA[None])
        assert torch.allclose(got.probs, expected, atol=1e-12)
        assert float(got.variance.max()) < 1e-12


def test_the_variance_of_a_mixture_over_copies_counts_in_a_regression():
    model, data = make_model("probabilities", "gaussian")
    outputs = model.network.in_unit(model.at(ETA).outputs(data.x)).detach()
    got = model.predict(data.x, data, ETA[None])
    assert torch.allclose(got.variance, outputs.var(0, correction=0) + model.evidence.noise.detach())
    assert torch.allclose(got.mean, outputs.mean(0))


def test_the_outward_prior_is_an_exponential_that_grows_with_the_data():
    prior = Outward(0.2, high=math.pi, num_total=50)
    grid = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    density = prior.log_prob(grid).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=1e-5)
    assert float(prior.log_prob(grid[-1]) - prior.log_prob(grid[0])) == pytest.approx(0.2 * 50)
    for p in (0.05, 0.5, 0.95):
        below = grid <= prior.icdf(torch.tensor(p, dtype=torch.float64))
        assert float(torch.trapezoid(density[below], grid[below])) == pytest.approx(p, abs=2e-3)
    assert float(prior.log_prob(torch.tensor(4.0))) == -math.inf
    assert math.isfinite(float(Outward(5.0, high=1.0, num_total=100_000).log_prob(torch.tensor(1.0))))


def test_the_models_extents_learn_the_number_of_examples_and_it_is_saved():
    extents = Extents(Affine2d(["rotation", "shear"]).coordinates, {"rotation": Outward(0.3)})
    assert float(extents.priors["rotation"].high) == pytest.approx(math.pi)
    extents.resolve(400)
    assert float(extents.priors["rotation"].rate) == pytest.approx(0.3 * 400 / math.pi)
    rebuilt = priors_from_config(extents.config())["rotation"]
    assert float(rebuilt.rate) == pytest.approx(0.3 * 400 / math.pi)
    with pytest.raises(ExtentError, match="flat prior"):
        Outward(0.0)


def test_evidence_objects_are_taken_for_the_likelihood_they_were_made_for():
    with pytest.raises(ValueError, match="likelihood='gaussian', not 'categorical'"):
        InvarianceModel(NeuralNetwork(nn.Linear(2, 2)), "rotation", evidence=PlugInEvidence("gaussian"))
