"""Volumes and ranges with two ends, from data to files: processes, three-dimensional networks, maps of voxels."""

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import Data, InvarianceModel
from bayesinv.transforms import AffineVolume, Asymmetric, Colour, Compose, Flip


def conv(*last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.Tanh(), *last)


def volumes(n=16):
    x = torch.rand(n, 1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return Data(x, x.mean((1, 2, 3, 4))[:, None])


def transform():
    return AffineVolume(["rotation_z", "translate_z"], spacing=(4.0, 1.0, 1.0), largest_shift=6.0)


def test_a_process_on_volumes_is_saved_with_its_spacing(tmp_path):
    model = InvarianceModel(
        bayesinv.GaussianProcess(num_features=16), transform(), likelihood="gaussian", num_orbit_samples=3
    )
    with pytest.warns(UserWarning):  # few steps
        posterior = bayesinv.fit(model, volumes(), max_steps=4, num_draws=16)
    path = posterior.save(tmp_path / "scan.bayesinv")
    loaded = bayesinv.load(path)
    assert loaded.model.orbit.transform.spacing == (4.0, 1.0, 1.0)
    assert posterior.summary()["unit"].tolist() == ["°", "mm"]
    moved = loaded.augmentation(seed=0)(volumes().x)
    assert moved.shape == volumes().x.shape and not torch.equal(moved, volumes().x)


@pytest.mark.parametrize("evidence", ["laplace", "plugin"])
def test_gradients_reach_the_extents_of_a_three_dimensional_network(evidence):
    net = conv(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, 2)).double()
    data = volumes()
    data = Data(data.x.double(), torch.arange(16) % 2, 2)
    model = InvarianceModel(net, transform(), evidence=evidence, num_orbit_samples=2)
    model.initialise(data)
    eta = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.log_evidence(eta, data), eta)
    step = torch.tensor([1e-5, 0.0], dtype=torch.float64)
    with torch.no_grad():
        rise = model.log_evidence(eta + step, data) - model.log_evidence(eta - step, data)
    assert float(gradient[0]) == pytest.approx(float(rise) / 2e-5, rel=1e-3, abs=1e-4)
    assert bool((gradient != 0).all())


def test_maps_of_voxels_turn_with_the_volume():
    """Averaged over both elements of a flip, any network is equivariant to it, and to no other one."""
    net = conv(nn.Conv3d(3, 2, 1)).double()
    flips = Compose([Flip(-3, "flip_z"), Flip(-1)])
    model = InvarianceModel(net, flips, evidence="plugin", output_action="volume", num_orbit_samples=1)
    x = volumes(3).x.double()
    eta = torch.tensor([0.5, 0.5], dtype=torch.float64)
    data = Data(x, torch.zeros(3, 3, 5, 5, dtype=torch.long), 2)
    model.initialise(data)

    def f(inputs):
        return model.function_posterior(inputs, Data(inputs, inputs.new_zeros(len(inputs), 0)), eta)[0]

    assert f(x).shape == (3, 3, 5, 5, 2)
    assert torch.allclose(f(x.flip(2)), f(x).flip(1), atol=1e-12)
    assert not torch.allclose(f(x.flip(3)), f(x).flip(2), atol=1e-4)


def test_masks_of_volumes_are_learned():
    data = volumes()
    labels = (data.x[:, 0] > 0.5).long()
    model = InvarianceModel(
        conv(nn.Conv3d(3, 2, 1)), transform(), evidence="plugin", output_action="volume", num_orbit_samples=2
    )
    with pytest.warns(UserWarning):
        posterior = bayesinv.fit(model, Data(data.x, labels, 2), max_steps=4, num_draws=16)
    assert posterior.predict(data.x[:2]).probs.shape == (2, 3, 5, 5, 2)


def test_both_ends_of_a_range_have_gradients_and_their_own_priors():
    x = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = Data(x, x.mean((1, 2, 3))[:, None])
    model = InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=None),
        Asymmetric(Colour(["brightness", "contrast"], middle=0.0)),
        likelihood="gaussian",
        num_orbit_samples=5,
        priors={"brightness_down": None},
    )
    assert model.active == ("brightness_up", "contrast_down", "contrast_up")
    model.initialise(data)
    eta = torch.tensor([0.0, 0.2, 0.1, 0.4], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.log_evidence(eta, data), eta)
    step = torch.tensor([0.0, 0.0, 1e-5, 0.0], dtype=torch.float64)
    with torch.no_grad():
        rise = model.log_evidence(eta + step, data) - model.log_evidence(eta - step, data)
        mirrored = model.log_evidence(eta[[0, 1, 3, 2]], data)
    assert float(gradient[2]) == pytest.approx(float(rise) / 2e-5, rel=1e-3)
    assert abs(float(mirrored - model.log_evidence(eta, data).detach())) > 1e-3  # a factor is no shift


def test_a_stationary_process_sees_only_the_width_of_a_range_of_shifts():
    x = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = Data(x, x.mean((1, 2, 3))[:, None])
    process = bayesinv.GaussianProcess(num_inducing=None)
    model = InvarianceModel(process, Asymmetric(Colour(["brightness"])), likelihood="gaussian", num_orbit_samples=5)
    model.initialise(data)
    ends = torch.tensor([[0.1, 0.3], [0.3, 0.1], [0.0, 0.4], [0.0, 0.3]], dtype=torch.float64)
    with torch.no_grad():
        values = torch.stack([model.log_evidence(eta, data) for eta in ends])
    torch.testing.assert_close(values[1:3], values[:1].expand(2))
    assert abs(float(values[3] - values[0])) > 1e-4
