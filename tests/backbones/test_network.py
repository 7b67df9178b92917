"""The prior over a network's weights, what is refused, and the averages over copies."""

import math

import pytest
import torch
from torch import nn

from bayesinv import DeepKernel, GaussianProcess, InvarianceModel, NeuralNetwork, Training, fit
from bayesinv.backbones import as_backbone
from bayesinv.backbones.invariant_network import average_copies
from bayesinv.data import Data
from bayesinv.errors import DataError


def conv_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(2 * 16, 3))


def data(n: int = 6, classes: int = 3) -> Data:
    return Data(torch.rand(n, 1, 6, 6), torch.arange(n) % classes, num_classes=classes)


def test_prior_scales_follow_fan_in_and_one_gain_per_layer():
    network = NeuralNetwork(conv_net(), start_gain=2.0)
    scales = {name: float(s.detach()) for name, s in network.prior_scales().items()}
    assert scales["0.weight"] == scales["0.bias"] == pytest.approx(2 / 3)  # fan-in 1·3·3
    assert scales["3.weight"] == pytest.approx(2 / math.sqrt(32))
    assert len(network.log_scales) == 2
    assert len(NeuralNetwork(conv_net(), prior="tensor").log_scales) == 4
    assert {float(s.detach()) for s in NeuralNetwork(conv_net(), prior="isotropic").prior_scales().values()} == {1.0}


def test_the_log_prior_is_the_exponent_of_the_normal_density():
    network = NeuralNetwork(conv_net())
    weights = network.weights()
    scales = network.prior_scales()
    by_hand = sum(
        torch.distributions.Normal(0.0, scales[k]).log_prob(w).sum()
        - torch.distributions.Normal(0.0, scales[k]).log_prob(torch.zeros_like(w)).sum()
        for k, w in weights.items()
    )
    assert float(network.log_prior(weights).detach()) == pytest.approx(float(by_hand.detach()), rel=1e-5)


def test_weights_drawn_from_the_prior_have_its_spread_and_leave_the_generator_alone():
    network = NeuralNetwork(nn.Linear(400, 300), start_gain=3.0)
    before = torch.random.get_rng_state()
    network.sample_weights(seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert float(network.net.weight.detach().std()) == pytest.approx(3 / 20, rel=0.02)
    first = network.net.weight.clone()
    network.sample_weights(seed=1)
    assert torch.equal(first, network.net.weight)


def test_the_callers_network_is_not_touched():
    net = conv_net()
    network = NeuralNetwork(net)
    with torch.no_grad():
        network.net[0].weight.zero_()
    assert float(net[0].weight.detach().abs().max()) > 0


@pytest.mark.parametrize(
    ("layer", "cure"),
    [
        (nn.BatchNorm2d(2), "GroupNorm"),
        (nn.Dropout(0.5), "p=0"),
        (nn.InstanceNorm2d(2), "GroupNorm"),
        (nn.RReLU(), "LeakyReLU"),
        (nn.Hardsigmoid(), "use Sigmoid"),
    ],
)
def test_layers_under_which_the_evidence_has_no_meaning_are_refused_with_a_cure(layer, cure):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), layer, nn.Flatten(), nn.Linear(32, 3))
    with pytest.raises(ValueError, match=cure):
        InvarianceModel(net, "rotation").initialise(data())
    InvarianceModel(net, "rotation", evidence="plugin").initialise(data())


def test_frozen_batch_statistics_and_dropout_of_zero_are_accepted():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.RReLU().eval(), nn.Dropout(0.0), nn.Flatten(), nn.Linear(32, 3)
    )
    InvarianceModel(net, "rotation").initialise(data())


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 3))

    def forward(self, x):
        return self.net(x.sub_(0.5).div_(0.3))


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
def test_a_network_that_works_in_place_leaves_the_callers_arrays_alone():
    given = data()
    x, before = given.x.numpy(), given.x.clone()  # one memory
    network = NeuralNetwork(InPlace())
    network(given.x)
    assert torch.equal(given.x, before)
    model = InvarianceModel(InPlace(), "rotation", num_orbit_samples=2, priors={"rotation": 0.0})  # copies are x itself
    posterior = fit(model, (x, given.y), max_steps=2, num_draws=5, training=Training(batch_size=6, extent_batch_size=6))
    posterior.predict(given.x)
    assert torch.equal(given.x, before)


def test_too_few_outputs_wrong_inputs_and_wrong_shapes_are_named():
    with pytest.raises(DataError, match="3 outputs for 5 classes"):
        InvarianceModel(conv_net(), "rotation").initialise(data(10, 5))
    with pytest.raises(DataError, match="the network failed on inputs of shape"):
        InvarianceModel(nn.Linear(5, 3), "rotation").initialise(data())
    with pytest.raises(DataError, match="has to return"):
        InvarianceModel(nn.Conv2d(1, 3, 3), "rotation").initialise(data())
    with pytest.raises(ValueError, match="at least one parameter"):
        NeuralNetwork(nn.ReLU())
    with pytest.raises(ValueError, match="prior: expected one of"):
        NeuralNetwork(conv_net(), prior="horseshoe")


def test_averages_over_copies():
    outputs = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]])
    p = outputs.softmax(-1)
    assert torch.equal(average_copies(outputs, "function", "categorical"), outputs.mean(0))
    assert torch.allclose(average_copies(outputs, "probabilities", "categorical").exp(), p.mean(0))
    assert torch.allclose(average_copies(outputs, "log_likelihood", "categorical"), p.log().mean(0))
    assert torch.equal(average_copies(outputs, "probabilities", "gaussian"), outputs.mean(0))


def test_a_class_without_brackets_is_told_so():
    with pytest.raises(TypeError, match=r"class Linear; give an object of it, Linear\(...\)"):
        as_backbone(nn.Linear)


def test_an_evidence_of_the_other_kind_of_backbone_is_refused():
    with pytest.raises(ValueError, match="is for a Gaussian process"):
        InvarianceModel(conv_net(), "rotation", evidence="dirichlet")
    with pytest.raises(ValueError, match=r"average: .*laplace.*log_likelihood"):
        InvarianceModel(conv_net(), "rotation", average="log_likelihood")


class Silent(nn.Module):
    def forward(self, x):
        raise AssertionError


@pytest.mark.parametrize(
    "backbone",
    [
        lambda: nn.Sequential(Silent(), conv_net()),
        lambda: DeepKernel(nn.Sequential(Silent(), conv_net()), num_inducing=3),
        lambda: GaussianProcess(num_inducing=3, features=Silent()),
    ],
)
def test_an_error_without_text_is_named_by_its_class(backbone):
    with pytest.raises(DataError, match=r"failed on inputs of shape .*: AssertionError"):
        InvarianceModel(backbone(), "rotation").initialise(data())


class HalfComplex(nn.Module):
    def __init__(self):
        super().__init__()
        self.spectrum = nn.Parameter(torch.randn(36, 3, dtype=torch.complex64))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return (x.flatten(1).to(torch.complex64) @ self.spectrum).abs() + self.bias


def test_complex_weights_are_refused_where_curvature_is_asked_for():
    with pytest.raises(ValueError, match="'spectrum' is complex"):
        InvarianceModel(HalfComplex(), "rotation").initialise(data())
    InvarianceModel(HalfComplex(), "rotation", evidence="plugin").initialise(data())
