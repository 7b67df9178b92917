"""The prior over a network's weights, what is refused, and the averages over copies."""

import math

import pytest
import torch
from torch import nn

from bayesinv import DeepKernel, GaussianProcess, InvarianceModel, NeuralNetwork, Training, fit
from bayesinv.backbones import as_backbone
from bayesinv.backbones.invariant_network import average_copies
from bayesinv.data.container import Data
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


@pytest.mark.parametrize(
    ("layer", "names", "fan_in"),
    [
        (nn.ConvTranspose2d(64, 2, 2, stride=2), ["weight", "bias"], 64),  # each output meets one place of the kernel
        (nn.ConvTranspose2d(8, 4, 3, stride=1, groups=2), ["weight", "bias"], 8 / 2 * 9),
        (nn.ConvTranspose1d(6, 5, 3, stride=2), ["weight"], 6 * 1.5),
        (nn.ConvTranspose1d(6, 5, 1, stride=2), ["weight"], 6),
        (nn.MultiheadAttention(12, 3), ["in_proj_weight", "in_proj_bias", "out_proj.bias"], 12),
        (nn.MultiheadAttention(12, 3, kdim=5, vdim=7), ["q_proj_weight", "in_proj_bias"], 12),
        (nn.MultiheadAttention(12, 3, kdim=5, vdim=7), ["k_proj_weight"], 5),
        (nn.LSTM(7, 3), ["weight_ih_l0", "bias_ih_l0"], 7),
        (nn.LSTM(7, 3), ["weight_hh_l0", "bias_hh_l0"], 3),
        (nn.LayerNorm(5), ["weight", "bias"], 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_biases_and_transposed_layers_take_the_fan_in_of_what_they_sum_over(layer, names, fan_in):
    network = NeuralNetwork(layer, start_gain=4.0)
    scales = network.prior_scales()
    for name in names:
        assert float(scales[name].detach()) == pytest.approx(4.0 / math.sqrt(fan_in)), name


def test_outputs_of_a_transposed_layer_at_its_prior_have_the_variance_of_the_gain():
    network = NeuralNetwork(nn.ConvTranspose2d(64, 200, 3, stride=2, bias=False), start_gain=2.0)
    network.sample_weights(seed=0)
    with torch.no_grad():
        outputs = network(torch.ones(1, 64, 9, 9))[..., 2:-2, 2:-2]  # where the border is not felt
    assert float(outputs.square().mean()) == pytest.approx(4.0, rel=0.1)


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
        (nn.BatchNorm2d(2, track_running_stats=False), "track_running_stats=True"),
        (nn.Hardsigmoid(), "use Sigmoid"),
    ],
)
def test_layers_under_which_the_evidence_has_no_meaning_are_refused_with_a_cure(layer, cure):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), layer, nn.Flatten(), nn.Linear(32, 3))
    with pytest.raises(ValueError, match=cure):
        InvarianceModel(net, "rotation").initialise(data())
    InvarianceModel(net, "rotation", evidence="plugin").initialise(data())


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(2), nn.BatchNorm2d(2).eval(), nn.RReLU(), nn.Dropout(0.5), nn.InstanceNorm2d(2)]
)
def test_the_evidence_sees_layers_in_evaluation_mode_and_changes_nothing_in_them(layer):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), layer, nn.Flatten(), nn.Linear(32, 3))
    with torch.no_grad():  # statistics that are not those of any batch
        for name, buffer in layer.named_buffers():
            buffer.fill_(0.3 if name == "running_mean" else 2)
    model, frozen = (InvarianceModel(part, "rotation", num_orbit_samples=3) for part in (net, net))
    modes = [module.training for module in model.network.net.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch, values, slopes = data(), [], []
    model.initialise(batch)
    frozen.network.net.eval()
    for which in (model, frozen):
        eta = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
        torch.manual_seed(0)  # of the random outputs
        value = which.log_evidence(eta, batch)
        values.append(float(value.detach()))
        slopes.append(float(torch.autograd.grad(value, eta)[0]))
    assert values[0] == values[1] and slopes[0] == slopes[1] != 0
    assert [module.training for module in model.network.net.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_evaluated_network_shares_every_tensor_with_the_trained_one():
    network = NeuralNetwork(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    seen = network.evaluated()
    assert all(a is b for a, b in zip(network.parameters(), seen.parameters(), strict=True))
    network(torch.rand(5, 4))  # a step in training mode
    assert torch.equal(seen.net[1].running_mean, network.net[1].running_mean)
    assert network.training and not seen.net.training


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
