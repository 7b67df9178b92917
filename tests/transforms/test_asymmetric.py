"""Ranges with two ends: conformance, and what a range is."""

import math

import pytest
import torch

from bayesinv.orbits.orbit import Orbit
from bayesinv.testing.transforms import TransformConformance, smooth_images
from bayesinv.transforms import (
    Affine2d,
    Asymmetric,
    Colour,
    Compose,
    Elastic,
    Flip,
    GaussianBlur,
    TimeWarp,
    from_config,
)


class TestBrightness(TransformConformance):
    def make_transform(self):
        return Asymmetric(Colour(["brightness"]))


class TestAffine(TransformConformance):
    inverse_tolerance = 0.15

    def make_transform(self):
        return Asymmetric(Affine2d(["rotation", "translate_x", "scale_x"]), ["rotation", "scale_x"])

    def make_input(self):
        return smooth_images(height=36, width=30)


class TestWithAuxiliary(TransformConformance):
    def make_transform(self):
        return Asymmetric(TimeWarp())

    def make_input(self):
        return torch.sin(torch.linspace(0, 20, 3 * 2 * 60, dtype=torch.float64)).reshape(3, 2, 60)


def test_amounts_are_uniform_between_the_ends():
    orbit = Orbit(Asymmetric(Colour(["contrast", "brightness"])), num_samples=512)
    t = orbit.coordinates(torch.tensor([0.1, 0.4, 0.0, 0.2], dtype=torch.float64))
    amounts = orbit.transform.amounts(t)
    assert amounts.shape == (512, 2)
    for column, low, high in ((0, -0.1, 0.4), (1, 0.0, 0.2)):
        values = amounts[:, column].sort().values
        torch.testing.assert_close(values, torch.linspace(low, high, 512, dtype=torch.float64), atol=2e-3, rtol=0)


def test_equal_ends_are_the_centred_range():
    x, eta = smooth_images(2), torch.tensor([0.7], dtype=torch.float64)
    centred = Orbit(Affine2d(["rotation"]), num_samples=16, seed=3)
    both = Orbit(Asymmetric("rotation"), num_samples=16, seed=3)
    torch.testing.assert_close(both(x, eta.repeat(2)), centred(x, eta))


def test_one_end_alone():
    x = torch.zeros(1, 1, 2, 2)
    points = Orbit(Asymmetric(Colour(["brightness"])), num_samples=64)(x, torch.tensor([0.0, 0.3]))
    assert 0.0 <= float(points.min()) < 0.02 and 0.28 < float(points.max()) <= 0.3


def test_units_of_the_lower_end_are_read_downwards():
    down, up = Asymmetric("scale_x").coordinates
    assert (down.words(math.log(2.0)), up.words(math.log(2.0))) == ("−50.0 %", "+100.0 %")
    assert down.from_people(50.0) == pytest.approx(math.log(2.0))
    assert (down.extent_is, up.extent_is) == ("lower end", "upper end")


def test_what_has_one_end_keeps_it():
    for transform in (Flip(), Elastic(), GaussianBlur()):
        kind = type(transform).__name__
        with pytest.raises(ValueError, match=f"no coordinate of {kind} has two sides; leave it as it is"):
            Asymmetric(transform)
    with pytest.raises(ValueError, match="both sides of zero"):
        Asymmetric(Colour(["brightness"]), ["hue"])
    with pytest.raises(ValueError, match="expected some of"):
        Asymmetric(Affine2d(["rotation"]), ["shear"])
    with pytest.raises(ValueError, match="two ends already"):
        Asymmetric(Asymmetric("rotation"))
    with pytest.raises(ValueError, match="wrap each member"):
        Asymmetric(Compose([Affine2d(["rotation"]), Colour(["brightness"])]))


def test_it_is_rebuilt_inside_of_a_list():
    both = Compose([Asymmetric("rotation"), Colour(["brightness"])])
    assert from_config(both.config()).names == ("rotation_down", "rotation_up", "brightness")


@pytest.mark.parametrize(
    ("transform", "augmentation", "message"),
    [
        (Asymmetric("rotation"), {"rotation_up": "gaussian"}, "one end of a range"),
        (Affine2d(["rotation"]), {"rotation": "upper_end"}, "Asymmetric"),
    ],
)
def test_other_distributions_are_refused(transform, augmentation, message):
    with pytest.raises(ValueError, match=message):
        Orbit(transform, augmentation=augmentation)
