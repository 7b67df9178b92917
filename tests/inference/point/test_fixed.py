"""Extents by hand: which copies training and prediction see."""

import pytest
import torch

import bayesinv
from bayesinv.errors import ExtentError
from bayesinv.inference.point import Fixed, NoInvariance
from tests.inference.point.plane import QUICK, Plane, plane_model, sectors


def test_training_sees_the_models_orbit_moved_anew_at_every_step():
    objective = Fixed({"turn": 0.5}).objective(plane_model(), QUICK, 200, 0)
    x = sectors(5).x
    first, second = objective.training_points(x), objective.training_points(x)
    assert first.shape == (6, 5, 2) and not torch.equal(first, second)
    turned = torch.atan2(first[..., 1], first[..., 0]) - torch.atan2(x[:, 1], x[:, 0])
    turned = (turned + torch.pi) % (2 * torch.pi) - torch.pi
    assert torch.allclose(turned, turned[:, :1].expand(-1, 5), atol=1e-5)  # one orbit for the batch
    assert 0.3 < float(turned.abs().max()) <= 0.5 + 1e-5
    assert (objective.training_copies, objective.prediction_copies) == (6, 6)


def test_copies_of_their_own_are_drawn_for_each_input():
    objective = Fixed({"shift": 0.5}, num_copies=2, prediction_copies=3).objective(plane_model(), QUICK, 200, 0)
    x = sectors(50).x
    moved = objective.training_points(x)[..., 0] - x[:, 0]
    assert moved.shape == (2, 50) and len(moved.unique()) == 100
    assert 0.4 < float(moved.abs().max()) <= 0.5
    assert (objective.training_copies, objective.prediction_copies) == (2, 3)


@pytest.mark.parametrize("average", ["function", "probabilities", "log_likelihood"])
def test_predictions_average_over_the_copies_as_the_model_says(average):
    data = sectors(40)
    posterior = bayesinv.fit(
        plane_model(average=average), data, inference=Fixed({"turn": 0.9}), max_steps=5, training=QUICK, device="cpu"
    )
    model = posterior.model
    assert posterior.result.extents.tolist() == [[[0.9, 0.0]]]
    t = model.orbit.base * torch.tensor([0.9, 0.0], dtype=torch.float64)
    outputs = torch.stack([model.backbone(Plane()(data.x, row.expand(40, 2))) for row in t]).detach()  # (6, 40, 2)
    expected = {
        "function": outputs.mean(0).softmax(-1),
        "probabilities": outputs.softmax(-1).mean(0),
        "log_likelihood": outputs.log_softmax(-1).mean(0).softmax(-1),
    }[average]
    assert torch.allclose(posterior.predict(data.x).probs, expected.double(), atol=1e-5)


def test_no_invariance_sees_the_input_once_and_overrules_fixed_extents():
    data = sectors(40)
    model = plane_model(priors={"turn": 0.7, "shift": None})
    posterior = bayesinv.fit(model, data, inference="none", max_steps=5, training=QUICK, device="cpu")
    assert posterior.result.extents.tolist() == [[[0.0, 0.0]]]
    expected = posterior.model.backbone(data.x).softmax(-1).detach().double()
    assert torch.allclose(posterior.predict(data.x).probs, expected, atol=1e-6)
    settings = posterior.result.settings
    assert (settings["training_copies"], settings["prediction_copies"]) == (1, 1)
    assert torch.equal(NoInvariance(2).objective(model, QUICK, 40, 0).training_points(data.x), data.x.expand(2, 40, 2))


def test_zero_extents_are_the_input_itself():
    objective = Fixed({"turn": 0.0}).objective(plane_model(), QUICK, 200, 0)
    x = sectors(4).x
    assert torch.equal(objective.training_points(x), x[None])
    assert (objective.training_copies, objective.prediction_copies) == (1, 1)


def test_left_out_symmetries_keep_the_models_number_or_are_off():
    model = plane_model(priors={"shift": 0.3})
    assert Fixed({"turn": 0.2}).prepare(model).extents.fixed == {"turn": 0.2, "shift": 0.3}
    assert Fixed().prepare(plane_model(priors={"turn": None, "shift": 0.3})).extents.fixed == {
        "turn": 0.0,
        "shift": 0.3,
    }


def test_bad_extents_and_copies_are_refused():
    with pytest.raises(ValueError, match="how far turn, shift reach"):
        Fixed().prepare(plane_model())
    with pytest.raises(ExtentError, match="unknown symmetries"):
        Fixed({"rotation": 0.1}).prepare(plane_model())
    with pytest.raises(ExtentError):
        Fixed({"turn": 4.0}).prepare(plane_model())
    with pytest.raises(ValueError, match="extents"):
        Fixed({"turn": -0.1})
    with pytest.raises(ValueError, match="prediction_copies: expected an integer of at least 1, got 0"):
        Fixed({"turn": 0.1}, prediction_copies=0)
    with pytest.raises(ValueError, match="num_copies"):
        NoInvariance(0)
