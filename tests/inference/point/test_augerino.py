"""Augerino: the gradient of the widths, what pushes them out and in, and its predictions."""

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv.inference.point import Augerino
from tests.inference.point.plane import QUICK, Plane, plane_model, sectors


def fitted(method, priors=None, max_steps=250):
    return bayesinv.fit(
        plane_model(priors=priors), sectors(), inference=method, max_steps=max_steps, training=QUICK, device="cpu"
    )


def loss_at(objective, raw, data):
    with torch.no_grad():
        objective.widths.raw.copy_(raw)
    torch.manual_seed(3)
    return objective.loss(data, 200)


def test_the_gradient_of_the_widths_agrees_with_finite_differences():
    objective = Augerino(regularisation=0.3, num_copies=2, initial_width=0.8).objective(
        plane_model(dtype=torch.float64), QUICK, 200, 0
    )
    data = sectors(20, dtype=torch.float64)
    raw = objective.widths.raw.detach().clone() + torch.tensor([0.2, -0.1], dtype=torch.float64)
    loss_at(objective, raw, data).backward()
    got, step = objective.widths.raw.grad, 1e-6
    assert float(got.abs().min()) > 1e-4
    for k in range(2):
        nudge = step * torch.eye(2, dtype=torch.float64)[k]
        with torch.no_grad():
            rise = loss_at(objective, raw + nudge, data) - loss_at(objective, raw - nudge, data)
        assert float(got[k]) == pytest.approx(float(rise) / (2 * step), rel=1e-6)


def test_the_loss_is_cross_entropy_less_the_regulariser():
    objective = Augerino(regularisation=0.3, initial_width=0.8).objective(plane_model(), QUICK, 200, 0)
    data = sectors(20)
    torch.manual_seed(5)
    points = objective.training_points(data.x)[0]
    torch.manual_seed(5)
    loss = float(objective.loss(data, 200).detach())
    plain = float(nn.functional.cross_entropy(objective.model.backbone(points), data.y).detach())
    assert loss == pytest.approx(plain - 0.3 * 0.8 * 2**0.5, rel=1e-5)


def test_each_copy_of_each_input_has_a_draw_of_its_own_within_half_the_width():
    objective = Augerino(num_copies=3, initial_width=0.8).objective(plane_model(priors={"turn": None}), QUICK, 200, 0)
    x = sectors(100).x
    moved = (objective.training_points(x)[..., 0] - x[:, 0]).detach()
    assert len(moved.unique()) == 300
    assert 0.38 < float(moved.abs().max()) <= 0.4 + 1e-6
    assert abs(float(moved.mean())) < 4 * 0.4 / (3 * 300) ** 0.5  # symmetric about zero: 4 standard errors of U[-η, η]
    assert objective.current_extents() == pytest.approx({"turn": 0.0, "shift": 0.4})


def test_fixed_extents_stay():
    posterior = fitted(Augerino(), priors={"shift": 0.25}, max_steps=5)
    turn, shift = posterior.result.draws[0].tolist()
    assert shift == 0.25 and turn != 0.05
    assert posterior.model.active == ("turn",)


def test_extents_grow_with_the_regulariser_and_shrink_without():
    start, shift_off = 0.5, {"shift": None}
    ends = [
        float(fitted(Augerino(regularisation=strength, initial_width=2 * start), shift_off).result.draws[0, 0])
        for strength in (0.0, 0.05, 0.2)
    ]
    assert ends[0] < 0.8 * start < start < ends[1] < ends[2]
    # Labels of ±0.6 rad about opposite poles break past π/2 - 0.6 = 0.97; the trade-off overshoots.
    assert 0.7 < ends[1] < 1.5


def test_predictions_are_means_of_log_probabilities_over_the_copies():
    posterior = fitted(Augerino(prediction_copies=5, initial_width=1.5), max_steps=20)
    model, x = posterior.model, sectors(30, seed=1).x
    assert model.orbit.num_samples == 5 and model.average == "log_likelihood"
    t = model.orbit.base * posterior.result.draws[0]
    logs = torch.stack([model.backbone(Plane()(x, row.expand(30, 2))).log_softmax(-1) for row in t]).detach()
    assert float(logs.std(0).max()) > 0.01  # copies differ, so that averaging them is seen
    expected = logs.mean(0).softmax(-1).double()
    assert torch.allclose(posterior.predict(x).probs, expected, atol=1e-5)
    settings = posterior.result.settings
    assert (settings["training_copies"], settings["prediction_copies"]) == (1, 5)
    widths = settings["method"]["full_widths"]
    assert [0.5 * widths["turn"], 0.5 * widths["shift"]] == pytest.approx(posterior.result.draws[0].tolist())


def test_nothing_to_learn_and_bad_options_are_refused():
    with pytest.raises(ValueError, match=r'all of this model are fixed.*inference="fixed"'):
        Augerino().prepare(plane_model(priors={"turn": 0.1, "shift": None}))
    with pytest.raises(ValueError, match=r"regularisation: expected a finite number >= 0, got -0.1"):
        Augerino(regularisation=-0.1)
    with pytest.raises(ValueError, match="initial_width: expected a finite number > 0"):
        Augerino(initial_width=0.0)
    with pytest.raises(ValueError, match="prediction_copies"):
        Augerino(prediction_copies=0)
    with pytest.raises(ValueError, match="rate"):
        Augerino(rate=float("nan"))
