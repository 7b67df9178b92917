"""Tables whose columns were standardised for the fit: rows come as they are."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import bayesinv
from bayesinv.errors import DataError
from bayesinv.export import Augmentation
from bayesinv.sklearn import InvarianceRegressor
from bayesinv.transforms import Affine2d, ColumnNoise, ColumnShift, Compose, SignFlip
from tests.fakes import make_posterior

TRANSFORM = Compose([ColumnShift([0]), SignFlip(), ColumnNoise([1])])
SCALES = (np.array([100.0, -3.0]), np.array([20.0, 0.5]))
ROWS = torch.tensor([[130.0, -2.0], [90.0, -3.5]], dtype=torch.float64)


def made(scales=None, seed=3, copies=1):
    extents = torch.tensor([[1.5, 0.5, 0.3], [0.4, 0.2, 0.1]], dtype=torch.float64)
    return Augmentation(TRANSFORM, extents, (2,), copies=copies, seed=seed, scales=scales)


@pytest.mark.parametrize("copies", [1, 5])
def test_rows_as_they_come_move_by_standard_deviations_of_their_columns(copies):
    mean, deviation = (torch.from_numpy(part) for part in SCALES)
    standardised = made(copies=copies)((ROWS - mean) / deviation)
    assert torch.allclose(made(SCALES, copies=copies)(ROWS), mean + deviation * standardised)
    as_arrays = made(SCALES, copies=copies)(ROWS.numpy().astype(np.float32))
    assert as_arrays.dtype == np.float32
    assert np.allclose(as_arrays, made(SCALES, copies=copies)(ROWS).numpy(), rtol=1e-5)


def test_whole_numbers_are_rows_too():
    whole = np.array([[130, -2], [90, -4]])
    assert np.array_equal(made(SCALES)(whole), made(SCALES)(whole.astype(float)))


def test_scales_are_in_the_file_and_in_its_numbers(tmp_path):
    aug = made(SCALES)
    loaded = bayesinv.export.load(aug.save(tmp_path / "aug.safetensors"))
    assert torch.equal(loaded(ROWS), made(SCALES)(ROWS))
    numbers = json.loads((tmp_path / "aug.json").read_text())
    assert numbers["means"] == [100.0, -3.0] and numbers["standard_deviations"] == [20.0, 0.5]
    assert "means" not in made().numbers()


def test_the_predictor_moves_rows_as_they_come():
    mean, deviation = (torch.from_numpy(part) for part in SCALES)

    class Restored(nn.Module):
        def forward(self, x):
            return mean + deviation * x

    plain = bayesinv.InvariantPredictor(Restored(), made(), 8)
    scaled = bayesinv.InvariantPredictor(nn.Identity(), made(SCALES), 8)
    assert torch.allclose(scaled(ROWS), plain((ROWS - mean) / deviation))


@pytest.mark.parametrize("scales", [([0.0], [1.0]), ([0.0, 0.0], [1.0, 0.0]), ([0.0, np.nan], [1.0, 1.0])])
def test_scales_that_do_not_fit_are_named(scales):
    with pytest.raises(ValueError, match="scales: expected"):
        made(scales)
    with pytest.raises(ValueError, match="scales: expected"):
        Augmentation(Affine2d(["rotation"]), torch.tensor([[0.5]]), (1, 8, 8), scales=scales)


def test_estimators_say_their_scales():
    X = np.array([[100.0], [140.0], [60.0], [120.0], [90.0], [130.0]])
    small = InvarianceRegressor(num_features=16, num_orbit_samples=4, num_draws=40, max_steps=3)
    with pytest.warns(UserWarning):  # few steps
        small.fit(X, X[:, 0])
    assert np.allclose(small.scales_[0], X.mean(0)) and np.allclose(small.scales_[1], X.std(0))
    aug = small.posterior_.augmentation(scales=small.scales_)
    assert torch.equal(aug.scales[1], torch.from_numpy(X.std(0)))
    assert InvarianceRegressor(standardise=False)._is_table(X)


def test_a_posterior_of_images_takes_none():
    with pytest.raises(ValueError, match="scales: expected"):
        make_posterior().augmentation(scales=SCALES)


def test_a_data_frame_stays_one():
    frame = pd.DataFrame({"mass": [130, 90], "height": [-2.0, -3.5]}, index=["a", "b"])
    moved = made(SCALES)(frame)
    assert np.array_equal(moved.to_numpy(), made(SCALES)(ROWS).numpy())
    assert list(moved.columns) == ["mass", "height"] and list(moved.index) == ["a", "b"]
    moved, label = made(SCALES)(frame, "kept")
    assert label == "kept" and not np.array_equal(moved.to_numpy(), frame.to_numpy())
    with pytest.raises(DataError, match="2 columns of a table"):
        made(SCALES)(frame[["mass"]])
    with pytest.raises(DataError, match="copies=1"):
        made(SCALES, copies=3)(frame)
