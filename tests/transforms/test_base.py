"""Coordinates, the registry, and what a bare subclass inherits."""

import math
import pickle

import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.transforms import (
    Affine2d,
    Coordinate,
    Transform,
    from_config,
    known_transforms,
    register,
)


class Offset(Transform):
    coordinates = (Coordinate("offset", "px", largest=4.0),)

    def transform(self, x, t):
        return x + t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def test_a_subclass_of_a_few_lines_has_everything():
    offset, x = Offset(), torch.zeros(3, 7)
    t = torch.tensor([[1.0], [2.0], [3.0]])
    assert offset.names == ("offset",)
    assert offset.num_coordinates == 1
    assert torch.equal(offset(x, t), x + t)  # calling the module is calling transform
    assert torch.equal(offset.orbit(x, t[:2])[1], x + 2)
    assert offset.orbit_per_example(x, t.expand(5, 2, 3, 1)).shape == (5, 2, 3, 7)
    assert offset.negligible((7,)).tolist() == [0.04]
    assert offset.config() == {"type": "Offset"}


def test_a_transform_has_to_say_what_it_does():
    class Empty(Transform):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Empty()


def test_without_an_inverse_there_is_a_clear_error():
    assert not Offset().invertible
    with pytest.raises(NotImplementedError, match="Offset has no inverse in its own coordinates"):
        Offset().inverse_coordinates(torch.zeros(1))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), "expects floating point examples and torch.int64 came"),
        (None, "a NoneType came"),
        (torch.tensor(1.0), "a single number came"),
    ],
)
def test_check_input(x, message):
    with pytest.raises(DataError, match=message):
        Offset().check_input(x)


def test_coordinates_are_values():
    coordinate = Coordinate.linear("pitch", "Hz", 2.0, factor=50.0)
    copied = pickle.loads(pickle.dumps(coordinate))
    assert copied.words(1.0) == "±50.0 Hz"
    with pytest.raises(AttributeError):
        coordinate.largest = 3.0


@pytest.mark.parametrize("largest", [0.0, -1.0, math.inf, math.nan])
def test_the_largest_extent_is_positive_and_finite(largest):
    with pytest.raises(ValueError, match="'pitch' has to be a positive finite number"):
        Coordinate("pitch", "Hz", largest)


def test_a_coordinate_has_a_name():
    with pytest.raises(ValueError, match="needs a name"):
        Coordinate("", "Hz", 1.0)


def test_unknown_transforms_are_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown transform 'Swirl'; known are .*Affine2d, .*Compose"):
        from_config({"type": "Swirl"})
    with pytest.raises(ValueError, match="unknown transform None"):
        from_config({})


def test_registering():
    def swirl():
        class Swirl(Offset):
            pass

        return Swirl

    first = register(swirl())
    try:
        assert "Swirl" in known_transforms()
        again = register(swirl())  # the same cell of a notebook, run twice
        assert type(from_config({"type": "Swirl"})) is again
        assert again is not first
    finally:
        from bayesinv.transforms import base

        del base._REGISTRY["Swirl"]


def test_a_name_is_taken_once():
    class Affine2d(Offset):
        pass

    with pytest.raises(ValueError, match="'Affine2d' is registered already, by bayesinv"):
        register(Affine2d)


def test_repr_says_what_was_chosen():
    assert repr(Affine2d(["shear"], padding="border")) == (
        "Affine2d(['shear'], padding='border', interpolation='bilinear')"
    )
