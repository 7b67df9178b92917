"""The built-in transforms, and one of a user's, pass the suite; broken ones do not."""

import pytest
import torch

from bayesinv.testing.transforms import (
    CHECKS,
    TransformCase,
    TransformConformance,
    check_transform,
    smooth_images,
)
from bayesinv.transforms import Affine2d, Compose, Coordinate, Transform, register

GAIN = Coordinate.linear("gain", "%", largest=1.0, factor=100.0, meaning="Brightens.")


@register
class Gain(Transform):
    """What the documentation promises: a transform of one's own in a few lines."""

    coordinates = (GAIN,)

    def transform(self, x, t):
        return x * t.to(x.dtype).exp().reshape(-1, *[1] * (x.ndim - 1))


class TestGain(TransformConformance):
    def make_transform(self):
        return Gain()

    def make_input(self):
        return torch.rand(3, 5, dtype=torch.float64)  # not only images


class TestAffine2d(TransformConformance):
    inverse_tolerance = 0.15  # two bilinear samplings blur

    def make_transform(self):
        return Affine2d()

    def make_input(self):
        return smooth_images(height=36, width=30)


class TestAffine2dBicubic(TestAffine2d):
    inverse_tolerance = 0.06

    def make_transform(self):
        return Affine2d(["rotation", "scale_x"], padding="border", interpolation="bicubic")


class TestAffine2dReflection(TestAffine2d):
    inverse_tolerance = 0.25  # content that is reflected in from outside does not come back

    def make_transform(self):
        return Affine2d(["shear", "scale_y"], padding="reflection")


class TestFused(TransformConformance):
    def make_transform(self):
        return Compose([Affine2d(["rotation"]), Affine2d(["translate_x", "shear"])])


class TestUnfused(TransformConformance):
    def make_transform(self):
        return Compose([Gain(), Affine2d(["rotation"]), Affine2d(["shear"], padding="border")])


class TestComposeOfOne(TestAffine2d):
    def make_transform(self):
        return Compose([Affine2d(["rotation"])])


@pytest.mark.parametrize("name", CHECKS)
def test_the_class_runs_every_check(name):
    assert callable(getattr(TransformConformance, f"test_{name}"))


def test_the_suite_can_be_parametrised():
    case = TransformCase(Gain(), torch.rand(3, 4, dtype=torch.float64))
    for check in CHECKS.values():
        check(case)


class Shifted(Gain):
    """Not the identity at zero."""

    def transform(self, x, t):
        return super().transform(x, t + 0.1)


class Detached(Gain):
    def transform(self, x, t):
        return super().transform(x, t.detach())


class DetachedInput(Gain):
    def transform(self, x, t):
        return super().transform(x.detach(), t)


class HalfGradient(Gain):
    """A gradient that is wrong by a factor, the value being right."""

    def transform(self, x, t):
        return super().transform(x, 0.5 * t + 0.5 * t.detach())


class SquareRoot(Gain):
    """A gradient that is infinite at zero."""

    def transform(self, x, t):
        return super().transform(x, t.sign() * t.abs().sqrt())


class NoOp(Gain):
    def transform(self, x, t):
        return super().transform(x, 0 * t)


class OtherSharedPath(Gain):
    def orbit(self, x, t):
        return super().orbit(x, -t)


class FirstDrawForAll(Gain):
    """One draw for the whole batch where each example has its own."""

    def transform(self, x, t):
        return super().transform(x, t[:1].expand_as(t))


class DropsOrbitDimensions(Gain):
    def orbit(self, x, t):
        return super().orbit(x, t.reshape(-1, 1))


class AnyNumberOfCoordinates(Gain):
    def orbit(self, x, t):
        return super().orbit(x, t[..., :1])


class Upcasts(Gain):
    def transform(self, x, t):
        return x * t.exp().reshape(-1, *[1] * (x.ndim - 1))


class WrongInverse(Gain):
    invertible = True

    def inverse_coordinates(self, t):
        return t


class SilentInverse(Gain):
    def inverse_coordinates(self, t):
        return -t


class MissingInverse(Gain):
    invertible = True


class Noisy(Gain):
    def transform(self, x, t):
        return super().transform(x, t) + 1e-12 * torch.randn_like(x)


class InPlace(Gain):
    def transform(self, x, t):
        return super().transform(x, t)

    def orbit(self, x, t):
        points = super().orbit(x, t)
        with torch.no_grad():
            x += 0.0 if x.dtype == torch.float32 else 1.0
        return points


class Gullible(Gain):
    def check_input(self, x):
        pass


class BadUnits(Gain):
    coordinates = (Coordinate("gain", "%", 1.0, to_people=lambda t: 100 * t),)


class NegativeUnits(Gain):
    coordinates = (Coordinate.linear("gain", "%", 1.0, factor=-1.0),)


class TwiceTheSame(Gain):
    coordinates = (GAIN, GAIN)


class LargeNegligible(Gain):
    def negligible(self, event_shape):
        return torch.tensor([2.0], dtype=torch.float64)


class Unregistered(Gain):
    pass


@register
class Forgetful(Gain):
    """Its configuration leaves out what it was built with."""

    def __init__(self, power=1.0):
        super().__init__()
        self.power = power

    def transform(self, x, t):
        return super().transform(x, self.power * t)


@pytest.mark.parametrize(
    ("transform", "check"),
    [
        (Shifted(), "identity"),
        (SquareRoot(), "identity"),
        (Detached(), "gradient"),
        (DetachedInput(), "gradient"),
        (HalfGradient(), "gradient"),
        (NoOp(), "moves"),
        (OtherSharedPath(), "shared_against_per_example"),
        (FirstDrawForAll(), "shared_against_per_example"),
        (DropsOrbitDimensions(), "shapes"),
        (AnyNumberOfCoordinates(), "shapes"),
        (Upcasts(), "dtypes"),
        (WrongInverse(), "inverse"),
        (SilentInverse(), "inverse"),
        (MissingInverse(), "inverse"),
        (FirstDrawForAll(), "composition"),
        (Noisy(), "purity"),
        (InPlace(), "purity"),
        (Gullible(), "bad_input"),
        (BadUnits(), "coordinates"),
        (NegativeUnits(), "coordinates"),
        (TwiceTheSame(), "coordinates"),
        (LargeNegligible(), "negligible"),
        (Unregistered(), "config"),
        (Forgetful(power=2.0), "config"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_suite_rejects(transform, check):
    x = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(AssertionError) as caught:
        CHECKS[check](TransformCase(transform, x))
    assert len(str(caught.value)) > 20  # it says what is wrong
    with pytest.raises(AssertionError):
        check_transform(TransformCase(transform, x))


def test_an_affine_that_forgets_the_aspect_ratio_is_rejected():
    """A slip that a shared path of one's own invites: it is right on square images only."""

    class Square(Affine2d):
        def orbit(self, x, t):
            turned = super().orbit(x.transpose(-1, -2), -t)
            return turned.transpose(-1, -2)

    case = TransformCase(Square(["rotation", "translate_x"]), smooth_images())
    with pytest.raises(AssertionError, match="orbit_per_example against orbit"):
        CHECKS["shared_against_per_example"](case)
