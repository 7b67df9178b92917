"""Flows of given matrices: conformance, agreement with transforms that have names, units, refusals."""

import math

import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.testing.transforms import TransformConformance, smooth_images
from bayesinv.transforms import Affine2d, ImageFlow, LinearFlow, Rotation3d, from_config

TURN = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
BOOST = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def points(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class TestRows(TransformConformance):
    def make_transform(self):
        return LinearFlow([TURN, BOOST], ["turn", "boost"])

    def make_input(self):
        return points(6, 3)


class TestAffineRows(TransformConformance):
    def make_transform(self):
        return LinearFlow([[[0.0, -1.0, 0.5], [1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]])

    def make_input(self):
        return points(6, 2)


class TestPoints(TransformConformance):
    def make_transform(self):
        return LinearFlow([TURN])

    def make_input(self):
        return points(4, 5, 3)


class TestImages(TransformConformance):
    inverse_tolerance = 0.15  # two bilinear samplings blur

    def make_transform(self):
        return ImageFlow([[[0.0, 1.0, 0.1], [-1.0, 0.2, 0.0]]])

    def make_input(self):
        return smooth_images()


def test_it_is_the_rotation_about_z():
    x, t = points(4, 5, 3), torch.tensor([[0.3], [-1.0], [2.0], [0.0]], dtype=torch.float64)
    torch.testing.assert_close(LinearFlow([TURN])(x, t), Rotation3d("rotation_z")(x, t))


def test_it_is_the_warp_of_a_translation_and_a_shear():
    x, t = smooth_images().double(), torch.tensor([[0.2, -0.1]] * 3, dtype=torch.float64)
    named = Affine2d(["translate_x", "shear"])
    torch.testing.assert_close(ImageFlow(named.generators[:, :2])(x, t), named(x, t))


def test_shifts_of_points_move_every_point():
    flow = LinearFlow([[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    moved = flow(torch.zeros(1, 3, 2), torch.tensor([[0.5]]))
    assert moved.tolist() == [[[0.5, 0.0]] * 3]


def test_turns_are_read_in_degrees_and_growth_is_not():
    turn, boost = LinearFlow([TURN, BOOST]).coordinates
    assert turn.words(math.pi / 2) == "±90.0°" and turn.largest == pytest.approx(math.pi)
    assert boost.unit == "" and boost.largest == pytest.approx(math.log(3.0))
    half = LinearFlow([(torch.tensor(TURN) / 2).tolist()]).coordinates[0]
    assert half.words(math.pi) == "±90.0°"


def about(matrix, x, y):
    """(A, b) of a linear flow about a centre, |(A, b)| = 1."""
    A = torch.tensor(matrix, dtype=torch.float64)
    G = torch.cat([A, -A @ torch.tensor([[x], [y]], dtype=torch.float64)], 1)
    return G / G.norm()


def noisy(G, size, seed):
    noise = torch.randn(*G.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return G + size * noise / noise.norm()


@pytest.mark.parametrize("centre", [(0.0, 0.0), (2.0, 2.0), (10.0, -10.0)])
def test_a_turn_about_any_centre_is_a_full_one(centre):
    (coordinate,) = LinearFlow(about([[0.0, -1.0], [1.0, 0.0]], *centre)[None]).coordinates
    assert coordinate.words(coordinate.largest) == "±180.0°"


@pytest.mark.parametrize("seed", range(20))
def test_noisy_turns_are_turns(seed):
    """0.08 is a cone of 4.6°."""
    flat = noisy(about([[0.0, -1.0], [1.0, 0.0]], 0.5, -0.5), 0.08, seed)
    in_space = noisy(torch.tensor(TURN, dtype=torch.float64) / math.sqrt(2.0), 0.08, seed)
    for G in (flat, in_space):
        (coordinate,) = LinearFlow(G[None]).coordinates
        assert coordinate.words(coordinate.largest) == "±180.0°"


@pytest.mark.parametrize("size", [0.0, 0.003, 0.02, 0.08])
@pytest.mark.parametrize("seed", range(5))
def test_noisy_shears_and_shifts_go_as_far_as_exact_ones(size, seed):
    shear = torch.zeros(2, 3, dtype=torch.float64)
    shear[0, 1] = 1.0
    for G in (shear[:, :2], shear):
        (coordinate,) = LinearFlow(noisy(G, size, seed)[None]).coordinates
        assert coordinate.unit == "" and coordinate.largest == pytest.approx(2.0, rel=0.1)
    (shift,) = LinearFlow(noisy(shear[:, [0, 2, 1]], min(size, 0.02), seed)[None]).coordinates
    assert shift.unit == "" and shift.largest == pytest.approx(2.0, rel=0.1)


def test_a_shift_that_hardly_grows_is_a_shift_and_a_shear_with_noise_no_turn():
    (shift,) = LinearFlow([[[0.01, 0.0, 1.0], [0.0, 0.01, 0.0]]]).coordinates
    (shear,) = LinearFlow([[[0.0, 1.0], [-0.011, 0.0]]]).coordinates
    assert shift.largest == pytest.approx(2.0, rel=1e-3) and shear.largest == pytest.approx(2.0, rel=1e-3)
    assert shift.unit == shear.unit == ""


def test_growth_is_threefold_at_most_however_many_columns_there_are():
    for d in (2, 8, 64):
        (scaling,) = LinearFlow(torch.eye(d)[None]).coordinates
        assert scaling.largest == pytest.approx(math.log(3.0))


def test_the_configuration_keeps_generators_and_names():
    flow = LinearFlow([TURN], ["turn"])
    again = from_config(flow.config())
    assert again.names == ("turn",) and torch.equal(again.generators, flow.generators)


@pytest.mark.parametrize("flow", [LinearFlow, ImageFlow])
@pytest.mark.parametrize(
    "generators", [[], [[1.0, 2.0]], [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]], [[[math.nan, 0.0, 0.0], [0.0, 0.0, 0.0]]]]
)
def test_what_moves_nothing_is_refused(flow, generators):
    with pytest.raises(ValueError, match="generators"):
        flow(generators)


def test_one_name_alone_is_the_name_of_one_generator():
    assert LinearFlow([TURN], "turn").names == ("turn",)
    assert ImageFlow([TURN[:2]], "turn").names == ("turn",)


def test_names_have_to_fit():
    with pytest.raises(ValueError, match="1 different names"):
        LinearFlow([TURN], ["a", "b"])


def test_other_inputs_are_refused():
    with pytest.raises(DataError, match="last axis is 3 long"):
        LinearFlow([TURN])(torch.zeros(2, 4), torch.zeros(2, 1))
