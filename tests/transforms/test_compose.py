"""Order, fusion and the short names."""

from inspect import unwrap

import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.testing.transforms import smooth_images
from bayesinv.transforms import (
    Affine2d,
    Colour,
    ColumnScale,
    Compose,
    Coordinate,
    CyclicRotation,
    Elastic,
    Flip,
    GaussianBlur,
    Permutation,
    Rotation3d,
    TimeShift,
    Transform,
    as_transform,
    from_config,
)


class Power(Transform):
    """x ↦ x^exp(t), which does not commute with a warp's interpolation."""

    coordinates = (Coordinate("power", "", 1.0),)

    def transform(self, x, t):
        return x.clamp_min(1e-9) ** t[:, 0].exp().to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def test_order():
    x = smooth_images()
    rotation, shift = Affine2d(["rotation"]), Affine2d(["translate_x"])
    t = torch.tensor([[0.5, 0.3]], dtype=x.dtype).expand(3, 2)
    matrix = Compose([rotation, shift])._stages[0].matrix(t[0])
    expected = shift.matrix(t[0, 1:]) @ rotation.matrix(t[0, :1])  # the first acts first
    assert torch.allclose(matrix, expected)
    other = Compose([shift, rotation])(x, t.flip(-1))
    assert (Compose([rotation, shift])(x, t) - other).abs().max() > 0.05


def test_fused_neighbours_are_one_warp_near_the_two():
    x = smooth_images(height=48, width=48)
    rotation, shift = Affine2d(["rotation"]), Affine2d(["translate_x"])
    t = torch.tensor([[0.5, 0.1]], dtype=x.dtype).expand(3, 2)
    fused = Compose([rotation, shift])
    assert len(fused._stages) == 1
    twice = shift(rotation(x, t[:, :1]), t[:, 1:])
    assert (fused(x, t) - twice).abs().max() < 0.05  # it blurs once and not twice


def test_fusing_keeps_what_leaves_the_image_in_between():
    x = torch.ones(1, 1, 8, 8)
    there_and_back = Compose([Affine2d(["translate_x"]), Affine2d(["scale_x", "translate_y"])])
    t = torch.tensor([[1.0, 0.0, 0.0]])
    assert there_and_back(x, t).mean() == pytest.approx(0.5)
    back = Affine2d(["translate_x"])
    product = back.matrix(torch.tensor([-1.0])) @ back.matrix(torch.tensor([1.0]))
    assert torch.allclose(product, torch.eye(3))


@pytest.mark.parametrize(
    ("transforms", "stages"),
    [
        ([Affine2d(["rotation"]), Affine2d(["shear"]), Affine2d(["scale_x"])], 1),
        ([Affine2d(["rotation"]), Affine2d(["shear"], padding="border")], 2),
        ([Affine2d(["rotation"]), Affine2d(["shear"], interpolation="bicubic")], 2),
        ([Affine2d(["rotation"]), Power(), Affine2d(["shear"])], 3),
    ],
)
def test_only_neighbours_that_sample_alike_are_fused(transforms, stages):
    compose = Compose(transforms)
    assert len(compose._stages) == stages
    x = smooth_images()
    t = torch.full((3, compose.num_coordinates), 0.1, dtype=x.dtype)
    shared = compose.orbit(x, t[:1].expand(2, 2, -1))
    assert torch.allclose(shared[1, 0], compose(x, t), atol=1e-12)


def test_negligible_and_names_follow_the_parts():
    compose = Compose([Power(), Affine2d(["rotation", "shear"]), Affine2d(["scale_x"])])
    assert compose.names == ("power", "rotation", "shear", "scale_x")
    expected = [0.01, *Affine2d(["rotation", "shear", "scale_x"]).negligible((1, 9, 9)).tolist()]
    assert compose.negligible((1, 9, 9)).tolist() == pytest.approx(expected)


def test_names_that_clash():
    with pytest.raises(ValueError, match="these occur twice: rotation, shear"):
        Compose([Affine2d(["shear", "rotation"]), Affine2d(["rotation", "shear"])])


def test_an_empty_list():
    with pytest.raises(ValueError, match="at least one transform"):
        Compose([])
    with pytest.raises(ValueError, match="known names are affine2d, translate_x"):
        as_transform([])


def test_what_is_not_a_transform():
    with pytest.raises(TypeError):
        Compose(["rotation"])
    with pytest.raises(TypeError):
        as_transform(3)
    with pytest.raises(TypeError):
        as_transform(["rotation", 3])


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        (Flip, r"the class Flip came; write Flip\(\), with brackets"),
        (["rotation", GaussianBlur], r"write GaussianBlur\(\)"),
        (Permutation, r"write Permutation\(permutations\)"),
    ],
)
def test_a_class_without_brackets(given, cure):
    # Without the types that only the tests check.
    with pytest.raises(TypeError, match=cure):
        unwrap(as_transform)(given)
    with pytest.raises(TypeError, match=cure):
        unwrap(Compose.__init__)(Compose.__new__(Compose), [given] if isinstance(given, type) else given[1:])


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("rotations", "did you mean 'rotation'"),
        ("affine_2d", "did you mean 'affine2d'"),
        ("gaussian_blur", r"transforms\.GaussianBlur\(\)"),
    ],
)
def test_a_name_that_is_nearly_one(name, cure):
    with pytest.raises(ValueError, match=cure):
        as_transform(name)


@pytest.mark.parametrize(
    ("transform", "shape", "cure"),
    [
        (Affine2d(["rotation"]), (5, 2, 40), r"\(5, 2, 40\) came; signals, .*TimeShift.*; points.*Rotation3d"),
        (Affine2d(["rotation"]), (5, 784), r"x\.reshape\(len\(x\), channels, height, width\)"),
        (Affine2d(["rotation"]), (5, 4), "rows of a table take ColumnShift"),
        (GaussianBlur(), (5, 8, 8), r"x\[:, None\]"),
        (Colour(), (5, 4), "rows of a table"),
        (Elastic(), (5, 4), "rows of a table"),
        (CyclicRotation(4), (5, 4), "expects images.*rows of a table"),
        (TimeShift(), (5, 1, 8, 8), 'expects signals.*images take "affine2d"'),
        (TimeShift(), (5, 40), r"one channel.*x\[:, None\]"),
        (Rotation3d(), (5, 1, 8, 8), 'expects points.*images take "affine2d"'),
        (Rotation3d(), (5, 4, 2), "behind the coordinates"),
        (ColumnScale([0]), (5, 1, 8, 8), 'expects rows.*images take "affine2d"'),
        (ColumnScale([4]), (5, 4), "5 columns or more.*columns that are there"),
    ],
)
def test_inputs_of_another_kind_are_told_what_is_made_for_them(transform, shape, cure):
    with pytest.raises(DataError, match=cure):
        transform.check_input(torch.zeros(shape))


def test_check_input_asks_every_part():
    compose = Compose([Power(), Affine2d(["rotation"])])
    with pytest.raises(DataError, match="Affine2d expects images"):
        compose.check_input(torch.zeros(3, 4))


def test_several_have_no_inverse_in_their_coordinates():
    compose = Compose([Affine2d(["rotation"]), Affine2d(["translate_x"])])
    assert not compose.invertible
    with pytest.raises(NotImplementedError, match="Compose has no inverse"):
        compose.inverse_coordinates(torch.zeros(2))


def test_nested_configs_are_rebuilt():
    inner = Compose([Affine2d(["rotation"]), Affine2d(["shear"], padding="border")])
    outer = Compose([inner, Affine2d(["scale_x"])])
    assert from_config(outer.config()).config() == outer.config()
    assert from_config(outer.config()).names == ("rotation", "shear", "scale_x")


def test_parameters_of_the_parts_are_counted_once():
    class Learned(Power):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

    compose = Compose([Learned(), Affine2d(["rotation"]), Affine2d(["shear"])])
    assert list(compose.state_dict()) == ["transforms.0.weight"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("rotation", ("rotation",)),
        (["shear", "rotation"], ("shear", "rotation")),
        ("affine2d", tuple(Affine2d().names)),
        (["rotation", Power(), "shear"], ("rotation", "power", "shear")),
        ([Power()], ("power",)),
        ((Affine2d(["shear"]), "rotation"), ("shear", "rotation")),
    ],
)
def test_as_transform(given, names):
    assert as_transform(given).names == names


def test_as_transform_returns_transforms_and_joins_names():
    power = Power()
    assert as_transform(power) is power
    assert as_transform([power]) is power
    assert isinstance(as_transform(["rotation", "shear"]), Affine2d)


def test_as_transform_names_the_known():
    with pytest.raises(ValueError, match="unknown transform 'swirl'; known names are affine2d, trans"):
        as_transform(["rotation", "swirl"])
    with pytest.raises(ValueError, match=r"unknown transform 'flip'.*object, such as bayesinv.transforms.Flip\(\)"):
        as_transform(["rotation", "flip"])
