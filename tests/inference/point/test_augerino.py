"""Augerino: the gradient of the widths, what pushes them out and in, and its predictions."""

import math

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
        objective.orbit.widths.raw.copy_(raw)
    torch.manual_seed(3)
    return objective.loss(data, 200)


def test_the_gradient_of_the_widths_agrees_with_finite_differences():
    objective = Augerino(regularisation=0.3, num_copies=2, initial_width=0.8).objective(
        plane_model(dtype=torch.float64), QUICK, 200, 0
    )
    data = sectors(20, dtype=torch.float64)
    raw = objective.orbit.widths.raw.detach().clone() + torch.tensor([0.2, -0.1], dtype=torch.float64)
    loss_at(objective, raw, data).backward()
    got, step = objective.orbit.widths.raw.grad, 1e-6
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
    assert shift == 0.25 and turn != 0.5 * math.log(2)
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
    t = model.orbit.base[:, :2] * posterior.result.draws[0]
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
    with pytest.raises(ValueError, match="generators: expected 'lie' or 'coordinates', got 'euler'"):
        Augerino(generators="euler")


def images_model(priors=None, **options):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    return bayesinv.InvarianceModel(net, "affine2d", evidence="plugin", priors=priors, **options)


def prepared(method, widths=None, **options):
    """The orbit of a prepared model, at given full widths."""
    orbit = method.prepare(images_model(**options)).orbit
    if widths is not None:
        with torch.no_grad():
            orbit.widths.raw.copy_(torch.tensor(widths, dtype=torch.float64).expm1().log())
    return orbit


def test_the_generators_of_image_warps_are_the_published_ones():
    # One width at a time, far above the others: where its generator takes (x, y, 1), y down.
    published = {
        "translate_x": [[0, 0, 0.1], [0, 0, 0], [0, 0, 0]],
        "translate_y": [[0, 0, 0], [0, 0, 0.1], [0, 0, 0]],
        "rotation": [[0, 1, 0], [-1, 0, 0], [0, 0, 0]],
        "scale": [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
        "stretch": [[1, 0, 0], [0, -1, 0], [0, 0, 0]],
        "symmetric_shear": [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
    }
    orbit = prepared(Augerino())
    assert list(orbit.generators) == list(published)
    for a, generator in enumerate(published.values()):
        with torch.no_grad():
            orbit.widths.raw.fill_(-40.0)
            orbit.widths.raw[a] = 1.0
        eps = torch.zeros(orbit.base.shape[1], dtype=torch.float64)
        eps[a] = 0.7
        z = 0.7 * 0.5 * math.log1p(math.e)
        expected = torch.linalg.matrix_exp(z * torch.tensor(generator, dtype=torch.float64))
        assert torch.allclose(orbit.transform.matrix(orbit.moves(eps).detach()), expected, atol=1e-12)


def test_reported_extents_have_the_variance_of_what_is_drawn():
    orbit = prepared(Augerino(prediction_copies=4096), widths=[2.0, 1.0, 0.9, 0.6, 0.8, 0.3])
    extents = orbit.extents()
    assert extents.tolist() == pytest.approx([0.1, 0.05, 0.45, 0.5, 0.5, 0.3])
    sd = (3 * orbit.coordinates(extents).detach().square().mean(0)).sqrt()
    reported = extents.clone()
    reported[2] = (0.45**2 + 0.15**2) ** 0.5  # with the turn in the symmetric shear
    assert torch.allclose(sd, reported, rtol=0.01)
    with pytest.raises(ValueError, match=r"widths that it has learned.*inference=Fixed"):
        orbit.coordinates(2 * extents)


def test_partners_that_are_fixed_or_not_uniform_leave_plain_generators():
    assert list(prepared(Augerino(generators="coordinates")).generators) == list(images_model().symmetries)
    orbit = prepared(Augerino(initial_width=0.4), priors={"scale_y": 0.25, "shear": None})
    assert list(orbit.generators) == ["translate_x", "translate_y", "rotation", "scale_x"]
    assert orbit.extents().tolist() == pytest.approx([0.02, 0.02, 0.2, 0.2, 0.25, 0.0])
    t = orbit.moves(torch.full_like(orbit.base[0], 0.5)).tolist()
    assert t == pytest.approx([0.01, 0.01, 0.1, 0.1, 0.125, 0.0])
    orbit = prepared(Augerino(initial_width=0.4), augmentation={"scale_x": "gaussian"})
    assert {"scale_x", "scale_y", "symmetric_shear"} <= set(orbit.generators)


def test_affine_warps_inside_of_a_composition_are_mixed_too():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    blur = bayesinv.transforms.GaussianBlur()
    model = bayesinv.InvarianceModel(net, [bayesinv.Affine2d(), blur], evidence="plugin")
    orbit = Augerino().prepare(model).orbit
    assert set(orbit.generators) == {*blur.names, "translate_x", "translate_y", "rotation"} | {
        "scale",
        "stretch",
        "symmetric_shear",
    }
    x = torch.rand(3, 1, 8, 8)
    assert orbit(x, orbit.extents()).shape == (4, 3, 1, 8, 8)
