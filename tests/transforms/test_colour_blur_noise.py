"""Colour, blur and noise: conformance, and checks against other libraries and closed forms."""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional as torchvision

from bayesinv.errors import DataError
from bayesinv.testing.transforms import TransformConformance, smooth_images
from bayesinv.transforms import Colour, GaussianBlur, GaussianNoise


def column(*values):
    return torch.tensor([values], dtype=torch.float64)


def pictures():
    return torch.rand(3, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class TestColour(TransformConformance):
    def make_transform(self):
        return Colour()

    def make_input(self):
        return pictures()


class TestBrightnessAndContrast(TransformConformance):
    def make_transform(self):
        return Colour(["contrast", "brightness"], middle=0.0)


class TestSaturation(TransformConformance):
    def make_transform(self):
        return Colour(["saturation"])

    def make_input(self):
        return pictures()


class TestBlur(TransformConformance):
    def make_transform(self):
        return GaussianBlur()


class TestNoise(TransformConformance):
    def make_transform(self):
        return GaussianNoise()


class TestNoiseOnSignals(TransformConformance):
    def make_transform(self):
        return GaussianNoise(5.0, "µV", "hiss")

    def make_input(self):
        return torch.randn(3, 2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_brightness_and_contrast_are_what_they_say():
    x = pictures()
    torch.testing.assert_close(Colour(["brightness"])(x, column(0.2).expand(3, 1)), x + 0.2)
    double = Colour(["contrast"])(x, column(math.log(2.0)).expand(3, 1))
    torch.testing.assert_close(double, 0.5 + 2 * (x - 0.5))


def test_saturation_keeps_grey_and_spreads_the_rest():
    x = pictures()
    vivid = Colour(["saturation"])(x, column(math.log(3.0)).expand(3, 1))
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(vivid.mean(1, keepdim=True), grey)
    torch.testing.assert_close(vivid - grey, 3 * (x - grey))


def test_hue_turns_in_the_direction_of_torchvision():
    # Its hue is an angle of HSV and ours of the plane across grey: the same for the six pure colours.
    red = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    for thirds in (1, 2):
        ours = Colour(["hue"])(red, column(thirds * 2 * math.pi / 3))
        theirs = torchvision.adjust_hue(red, (thirds / 3 + 0.5) % 1.0 - 0.5)
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_hue_is_a_group_and_grey_is_fixed():
    x = pictures()
    hue = Colour(["hue"])
    turned = hue(hue(x, column(0.7).expand(3, 1)), column(0.5).expand(3, 1))
    torch.testing.assert_close(turned, hue(x, column(1.2).expand(3, 1)))
    flat = torch.full((1, 3, 2, 2), 0.3, dtype=torch.float64)
    torch.testing.assert_close(hue(flat, column(2.0)), flat)


def test_blur_agrees_with_torchvision_away_from_the_edge():
    x = smooth_images(1, 1, 32, 32)
    ours = GaussianBlur()(x, column(2.0 / 16))  # two pixels of 32
    theirs = torchvision.gaussian_blur(x, [15, 15], [2.0, 2.0])
    assert float((ours - theirs)[..., 8:-8, 8:-8].abs().max()) < 2e-3 * float(x.max())


def test_blur_keeps_the_sum_and_adds_variances():
    x = torch.rand(2, 1, 9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blur = GaussianBlur()
    twice = blur(blur(x, column(0.1).expand(2, 1)), column(0.15).expand(2, 1))
    torch.testing.assert_close(twice, blur(x, column(math.hypot(0.1, 0.15)).expand(2, 1)))
    torch.testing.assert_close(twice.sum((2, 3)), x.sum((2, 3)))


def test_noise_has_the_standard_deviation_it_says():
    generator = torch.Generator().manual_seed(0)
    t = torch.cat([torch.full((400, 1), 0.7), 2 * torch.rand(400, 4, generator=generator) - 1], 1).double()
    noisy = GaussianNoise()(torch.zeros(400, 3, 5, dtype=torch.float64), t)
    assert float(noisy.std()) == pytest.approx(0.7, rel=0.03)
    # correlations of 400 draws have a standard error of 0.05; the largest of 105 is within four
    correlation = torch.corrcoef(noisy.flatten(1).T) - torch.eye(15, dtype=torch.float64)
    assert float(correlation.abs().max()) < 0.2


def test_errors_say_what_to_do():
    with pytest.raises(DataError, match="three channels"):
        Colour().check_input(torch.zeros(1, 1, 4, 4))
    with pytest.raises(DataError, match="height x width"):
        GaussianBlur().check_input(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="each once"):
        Colour(["hue", "hue"])
    with pytest.raises(ValueError, match="largest extent"):
        GaussianBlur(0.0)


def test_one_name_is_enough():
    assert Colour("hue").names == ("hue",)
