"""Invariance and equivariance, measured on functions whose answer is known."""

import math

import pytest
import torch
from torch import nn

from bayesinv import InvarianceModel, Training, fit, metrics
from bayesinv.transforms import Affine2d, Compose, CyclicRotation, Flip, Rotation3d, Scale3d


def points(n=40):
    return torch.randn(n, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def images(n=12, size=8):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_an_invariant_function_has_no_error():
    def distances(x):
        return torch.cdist(x, x).flatten(1)

    errors = metrics.invariance_error(distances, points(), Rotation3d())
    assert set(errors) == {"rotation_x", "rotation_y", "rotation_z", "all"}
    assert max(errors.values()) < 1e-6
    scores = metrics.invariance_score(distances, points(), Rotation3d())
    assert min(scores.values()) == pytest.approx(1.0)


def test_the_error_of_a_turned_vector():
    """E|R v - v|² = 2 (1 - E cos θ) E|v|² about its axis; a pair of unrelated ones has 2 E|v|²."""

    def f(x):
        return x.sum(1)[:, :2]  # in the plane that turns

    x = points(400)
    for extent in (0.5, math.pi):
        errors = metrics.invariance_error(f, x, Rotation3d(["rotation_z"]), {"rotation_z": extent}, num_draws=64)
        expected = math.sqrt(1.0 - math.sin(extent) / extent)
        assert errors["rotation_z"] == pytest.approx(expected, rel=0.03)
        assert errors["all"] == errors["rotation_z"]


def test_one_symmetry_at_a_time():
    transform = Compose([Rotation3d(["rotation_z"]), Scale3d()])
    errors = metrics.equivariance_error(lambda x: x.sum(1), points(), transform, "vector")
    assert max(errors.values()) < 1e-6
    heights = metrics.invariance_error(lambda x: x.sum(1)[:, 2:], points(), transform)
    assert heights["rotation_z"] < 1e-6 < 0.05 < heights["scale"]
    some = metrics.invariance_error(lambda x: x.sum(1), points(), transform, {"scale": 0.0})
    assert set(some) == {"rotation_z", "all"}


def test_maps_are_compared_where_copies_still_see_them():
    transform = Affine2d(["translate_x"])
    errors = metrics.equivariance_error(lambda x: x, images(), transform, "image", {"translate_x": 0.5})
    shifted = metrics.equivariance_error(lambda x: x.roll(1, -1), images(), transform, "image", {"translate_x": 0.5})
    # bilinear reading blurs, and what has left the frame comes back as zeros
    assert errors["translate_x"] < 0.75 * shifted["translate_x"]
    exact = metrics.equivariance_error(lambda x: x.sigmoid(), images(), CyclicRotation(4), "image")
    assert exact["turns_4"] == 0.0
    assert metrics.equivariance_error(lambda x: x.roll(1, -1), images(), CyclicRotation(4), "image")["turns_4"] > 0.3


def test_a_constant_has_no_error_and_no_score():
    x, flip = images(), Flip()
    assert metrics.invariance_error(lambda x: torch.ones(len(x), 2), x, flip)["flip_x"] == 0.0
    assert math.isnan(metrics.invariance_score(lambda x: torch.ones(len(x), 2), x, flip)["flip_x"])


def test_augnets_metric_by_hand():
    x = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]], dtype=torch.float64)
    # Extent 1/2: half of the copies are mirrored; the third input is its own mirror image.
    Z = torch.nn.functional.normalize(x.flatten(1), dim=1)
    cosines = Z @ Z.T
    shuffled = 1.0 - float(cosines.sum() - 3.0) / 6.0
    t = torch.tensor([1.0, 1.0, 0.0]).double()
    for share, draws in ((0.5, 4000),):
        moved = share * float(t.mean())
        score = metrics.invariance_score(lambda x: x.flatten(1), x, Flip(), num_draws=draws)["flip_x"]
        assert score == pytest.approx((shuffled - moved) / shuffled, abs=0.03)


def test_a_posterior_is_measured_by_its_predictions():
    x = images(16)
    y = (x[:, 0, :, :4].mean((1, 2)) > x[:, 0, :, 4:].mean((1, 2))).long()
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()
    model = InvarianceModel(net, Flip(), priors={"flip_x": 0.5})
    posterior = fit(model, (x, y), inference="fixed", training=Training(epochs=2, batch_size=16))
    assert metrics.invariance_error(posterior.model.network, x, Flip())["flip_x"] > 0.1
    # in float64 the two halves of an exact average differ by rounding alone
    assert metrics.invariance_error(posterior, x, Flip())["flip_x"] < 1e-5


def test_mistakes():
    x = images()
    with pytest.raises(TypeError, match=r"model\.network"):
        metrics.invariance_error(InvarianceModel(nn.Linear(2, 2), Flip()), x, Flip())
    with pytest.raises(ValueError, match="unknown symmetries"):
        metrics.invariance_error(lambda x: x.flatten(1), x, Flip(), {"rotation": 1.0})
    for wrong in (30.0, -0.1, math.nan):  # 30° are 0.52 internally
        with pytest.raises(ValueError, match=r"extents\['rotation'\]: expected a number from 0 to 3\.14"):
            metrics.invariance_error(lambda x: x.flatten(1), x, "rotation", {"rotation": wrong})
    for measure in (metrics.invariance_error, metrics.invariance_score):
        with pytest.raises(ValueError, match="at least two inputs"):
            measure(lambda x: x.flatten(1), x[:1], Flip())
    with pytest.raises(ValueError, match="a row of outputs"):
        metrics.invariance_error(lambda x: x.sum()[None], x, Flip())
    with pytest.raises(ValueError, match="num_draws"):
        metrics.invariance_error(lambda x: x.flatten(1), x, Flip(), num_draws=0)
