"""The first stage on networks with BatchNorm, dropout and frozen backbones, and what it refuses."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesinv
from bayesinv import InvarianceModel, Training
from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.inference.first_look import check_examples_apart

QUICK = Training(epochs=3, batch_size=20, extent_batch_size=16, extent_every=2)


@pytest.fixture(scope="module")
def data() -> Data:
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Data(x, torch.arange(40) % 2, num_classes=2)


def fitted(net: nn.Module, data: Data) -> bayesinv.InvariancePosterior:
    model = InvarianceModel(net, "rotation", num_orbit_samples=3)
    with pytest.warns(bayesinv.errors.NotConvergedWarning):
        return bayesinv.fit(model, data, training=QUICK, num_draws=5)


def test_running_statistics_move_in_steps_of_the_weights_and_in_no_step_of_the_evidence(data):
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(72, 2)
    )
    posterior = fitted(net, data)
    norm = posterior.model.network.net[1]
    assert norm.training and int(norm.num_batches_tracked) == posterior.result.num_steps
    assert not torch.equal(norm.running_mean, torch.zeros(2))
    before = norm.running_mean.clone()
    profile = [posterior.evidence_profile("rotation", num_points=4)["log_evidence"].tolist() for _ in range(2)]
    assert profile[0] == profile[1]  # without dropout
    assert torch.equal(before, norm.running_mean)


def test_a_frozen_backbone_with_a_trained_head_learns_extents(data):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten())
    net.requires_grad_(False).eval()
    net = nn.Sequential(net, nn.Linear(72, 2))
    posterior = fitted(net, data)
    own = posterior.model.network
    assert sorted(own.weights()) == ["1.bias", "1.weight"]
    assert all(
        torch.equal(a, b) for a, b in zip(own.net[0].state_dict().values(), net[0].state_dict().values(), strict=True)
    )
    assert float(posterior["rotation"].std()) > 0
    assert posterior.predict(data.x, num_samples=2, prediction="linearised").probs.shape == (40, 2)


class Noisy(nn.Module):
    """Draws in evaluation too."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 2)

    def forward(self, x):
        return self.head(F.dropout(x.flatten(1), 0.5))


class Mixed(Noisy):
    def forward(self, x):
        return self.head((x - x.mean(0)).flatten(1))


def initialised(net: nn.Module, data: Data) -> InvarianceModel:
    model = InvarianceModel(net, "rotation", num_orbit_samples=3)
    model.initialise(data)
    return model


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Noisy(), r"also in evaluation mode: .* F.dropout\(x, p, training=self.training\)"),
        (Mixed(), "depends on the others in its batch"),
    ],
)
def test_networks_that_draw_or_mix_in_evaluation_mode_are_found_by_what_they_return(net, message, data):
    with pytest.raises(ValueError, match=message + r".*GaussianProcess\(features=net\)"):
        check_examples_apart(initialised(net, data), data)
    check_examples_apart(initialised(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2)), data), data)


class Once(Noisy):
    """PyTorch has no second derivative of a hard sigmoid."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64)

    def forward(self, x):
        return self.head(F.hardsigmoid(self.first(x.flatten(1))))


def test_what_cannot_be_differentiated_twice_says_so_and_offers_a_gaussian_process(data):
    model = InvarianceModel(Once(), "rotation", num_orbit_samples=3)
    with pytest.raises(DataError, match=r"without a second derivative .*GaussianProcess\(features=net\)"):
        bayesinv.fit(model, data, training=QUICK, num_draws=5)
