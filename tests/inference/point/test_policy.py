"""Policies on images: what they keep, the range of the bytes, and what they refuse."""

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import InvarianceModel, Training
from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.inference.point import Policy
from bayesinv.inference.point.policy import POLICIES, PixelRange
from tests.inference.point.plane import QUICK, plane_model, sectors


def images(n: int = 12, channels: int = 1, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return low + (high - low) * torch.rand(n, channels, 16, 16, generator=generator)


def objective_of(name: str, channels: int = 1, num_copies: int = 1):
    net = nn.Sequential(nn.Flatten(), nn.Linear(256 * channels, 2))
    model = InvarianceModel(net, "rotation", evidence="plugin")
    return Policy(name, num_copies).objective(model, QUICK, 12, 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("limits", [(0.0, 1.0), (-2.0, 3.0)])
def test_images_change_and_keep_shape_type_and_range(name, channels, limits):
    objective = objective_of(name, channels, num_copies=2)
    x = images(12, channels, *limits)
    torch.manual_seed(0)
    points = objective.training_points(x)
    assert points.shape == (2, *x.shape) and points.dtype == x.dtype
    assert limits[0] - 1e-5 <= float(points.min()) and float(points.max()) <= limits[1] + 1e-5
    step = (limits[1] - limits[0]) / 255
    changed = ((points - x).abs().amax((2, 3, 4)) > 2 * step).float().mean(1)  # by copy
    assert float(changed.min()) > 0.3
    assert not torch.equal(points[0], points[1])
    seen = torch.tensor(objective.facts()["range_seen"])
    assert torch.allclose(seen, torch.stack([x.amin((0, 2, 3)), x.amax((0, 2, 3))], 1))
    torch.manual_seed(0)
    assert torch.equal(objective.training_points(x), points)
    torch.manual_seed(1)
    assert not torch.equal(objective.training_points(x), points)


def test_copies_of_one_image_are_drawn_one_by_one():
    x = images(1).expand(20, -1, -1, -1)
    points = objective_of("trivialaugment").training_points(x)[0]
    assert len(points.flatten(1).unique(dim=0)) > 10


@pytest.mark.parametrize("limits", [(0.0, 1.0), (0.2, 0.7), (-2.0, 3.0)])
def test_bytes_and_back_round_to_half_a_step(limits):
    pixels, x = PixelRange(), images(4, 3, *limits)
    pixels.see(x)
    span = 1.0 if limits[1] <= 1.0 and limits[0] >= 0.0 else limits[1] - limits[0]
    error = (pixels.to_floats(pixels.to_bytes(x), x.dtype) - x).abs().max()
    assert 0 < float(error) <= 0.5 * span / 255 * 1.001


def test_the_range_widens_by_channel_and_is_part_of_the_state():
    pixels = PixelRange()
    x = torch.stack([images(3)[:, 0], 5 + images(3)[:, 0], torch.full((3, 16, 16), -2.0)], 1)
    pixels.see(x)
    low, high = pixels.limits(3)
    assert low.tolist() == pytest.approx([float(x[:, 0].min()), float(x[:, 1].min()), -2.0])
    assert high.tolist()[:2] == pytest.approx([float(x[:, 0].max()), float(x[:, 1].max())])
    assert torch.allclose(pixels.to_floats(pixels.to_bytes(x), x.dtype), x, atol=0.5 / 255)
    pixels.see(x + 10)
    assert float(pixels.limits(3)[1][1]) == pytest.approx(float(x[:, 1].max()) + 10)
    copy = PixelRange()
    copy.load_state_dict(pixels.state_dict())
    assert torch.equal(copy.limits(3)[0], pixels.limits(3)[0])


def test_predictions_see_the_plain_input_and_extents_are_zero():
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    x, y = images(24), torch.arange(24) % 2
    posterior = bayesinv.fit(
        InvarianceModel(net, ["rotation", "shear"]),
        (x, y),
        inference="trivialaugment",
        max_steps=3,
        training=Training(batch_size=12),
        device="cpu",
    )
    assert posterior.result.inference == "trivialaugment"
    assert posterior.result.extents.tolist() == [[[0.0, 0.0]]]
    expected = posterior.model.backbone(x).softmax(-1).detach().double()
    assert torch.allclose(posterior.predict(x).probs, expected, atol=1e-6)
    facts = posterior.result.settings["method"]
    assert facts["name"] == "trivialaugment" and len(facts["range_seen"]) == 1
    assert posterior.result.settings["prediction_copies"] == 1


def test_other_inputs_and_unknown_policies_are_refused():
    objective = Policy().objective(plane_model(), QUICK, 20, 0)
    with pytest.raises(DataError, match=r"images.*1 or 3 channels.*shape \(20, 2\) came"):
        objective.training_points(sectors(20).x)
    with pytest.raises(DataError, match="1 or 3 channels"):
        Policy().check(Data(images(2, channels=2), torch.tensor([0, 1]), num_classes=2))
    Policy().check(Data(images(2, channels=3), torch.tensor([0, 1]), num_classes=2))
    with pytest.raises(ValueError, match=r"expected one of \['randaugment'"):
        Policy("fastaugment")
    with pytest.raises(ValueError, match="num_copies"):
        Policy(num_copies=0)
