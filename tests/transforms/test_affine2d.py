"""Signs, units and the group law of Affine2d, against torchvision and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from bayesinv.errors import DataError
from bayesinv.testing.transforms import smooth_images
from bayesinv.transforms import Affine2d, Compose
from bayesinv.transforms.affine2d import AFFINE_COORDINATES

ALL = tuple(AFFINE_COORDINATES)
SHAPES = [(40, 28), (28, 40), (31, 31)]


def images(height, width, dtype=torch.float64):
    """Rough images, so that a wrong sign cannot hide."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, height, width, generator=generator, dtype=dtype)


def moved(x, padding="zeros", interpolation="bilinear", **coordinates):
    """x under Affine2d with coordinates by name."""
    t = torch.tensor([list(coordinates.values())], dtype=x.dtype).expand(x.shape[0], -1)
    return Affine2d(list(coordinates), padding, interpolation)(x, t)


def torchvision_affine(x, angle=0.0, translate=(0.0, 0.0), scale=1.0, shear=(0.0, 0.0)):
    return functional.affine(x, angle, list(translate), scale, list(shear), InterpolationMode.BILINEAR)


def assert_same_interior(got, expected, tolerance=1e-12):
    """Both pad with zeros; within two pixels of the edge they round differently."""
    error = (got - expected)[..., 2:-2, 2:-2].abs().max()
    assert error < tolerance
    assert expected[..., 2:-2, 2:-2].abs().max() > 0.5  # the comparison is not of zeros


@pytest.mark.parametrize(("height", "width"), SHAPES)
class TestAgainstTorchvision:
    @pytest.mark.parametrize("angle", [0.4, -1.3, math.pi / 2, 3.0])
    def test_rotation_is_counter_clockwise(self, height, width, angle):
        x = images(height, width)
        expected = functional.rotate(x, math.degrees(angle), InterpolationMode.BILINEAR)
        # A quarter turn reads exactly between pixels in the odd cases, hence not 1e-12.
        assert_same_interior(moved(x, rotation=angle), expected, 1e-9)
        # torchvision's affine turns the other way from its rotate.
        expected = torchvision_affine(x, angle=-math.degrees(angle))
        assert_same_interior(moved(x, rotation=angle), expected, 1e-9)

    @pytest.mark.parametrize("pixels", [3, -5])
    def test_translations_are_fractions_of_half_the_width(self, height, width, pixels):
        x = images(height, width)
        t = pixels / (width / 2)
        expected = torchvision_affine(x, translate=(pixels, 0))
        assert_same_interior(moved(x, translate_x=t), expected)
        expected = torchvision_affine(x, translate=(0, pixels))
        assert_same_interior(moved(x, translate_y=t), expected)

    @pytest.mark.parametrize("t", [0.3, -0.5])
    def test_scale_is_a_log_factor(self, height, width, t):
        x = images(height, width)
        expected = torchvision_affine(x, scale=math.exp(t))
        assert_same_interior(moved(x, scale_x=t, scale_y=t), expected)

    @pytest.mark.parametrize("t", [0.3, -0.7])
    def test_shear_is_the_tangent_of_the_first_angle(self, height, width, t):
        x = images(height, width)
        expected = torchvision_affine(x, shear=(math.degrees(math.atan(t)), 0.0))
        assert_same_interior(moved(x, shear=t), expected)

    def test_rotation_then_translation(self, height, width):
        x = images(height, width)
        both = Compose([Affine2d(["rotation"]), Affine2d(["translate_x", "translate_y"])])
        t = torch.tensor([[0.5, 4 / width, -6 / width]], dtype=x.dtype).expand(2, -1)
        expected = torchvision_affine(x, angle=-math.degrees(0.5), translate=(2, -3))
        assert_same_interior(both(x, t), expected)


def test_float32_agrees_with_torchvision():
    x = images(40, 28, torch.float32)
    expected = functional.rotate(x, 20.0, InterpolationMode.BILINEAR)
    assert_same_interior(moved(x, rotation=math.radians(20.0)), expected, 2e-5)


def dot(row, column, height=9, width=13):
    x = torch.zeros(1, 1, height, width, dtype=torch.float64)
    x[..., row, column] = 1.0
    return x


@pytest.mark.parametrize(
    ("coordinates", "source", "target"),
    [
        ({"translate_x": 2 / 6.5}, (4, 6), (4, 8)),  # right
        ({"translate_y": 2 / 6.5}, (4, 6), (6, 6)),  # down
        ({"rotation": math.pi / 2}, (4, 9), (1, 6)),  # from the right to the top
        ({"rotation": math.pi}, (2, 9), (6, 3)),
        ({"shear": 0.5}, (2, 6), (2, 7)),  # the upper half moves right
        ({"scale_x": math.log(2)}, (4, 8), (4, 10)),  # away from the middle
        ({"scale_y": math.log(2)}, (3, 6), (2, 6)),
    ],
)
def test_a_dot_goes_where_the_documentation_says(coordinates, source, target):
    result = moved(dot(*source), **coordinates)[0, 0]
    assert result[target] == pytest.approx(1.0, abs=1e-9)


def test_rotation_is_rigid_on_an_image_that_is_not_square():
    x = torch.zeros(1, 1, 41, 81, dtype=torch.float64)
    y, z = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(81.0) - 40, indexing="ij")
    x[0, 0] = torch.exp(-(((y**2 + z**2).sqrt() - 12) ** 2) / 8)  # a ring stays a ring
    for angle in (0.3, 1.1, 2.0):
        assert (moved(x, rotation=angle) - x).abs().max() < 0.05  # bilinear blur alone


coordinate_lists = st.lists(st.floats(-0.9, 0.9), min_size=6, max_size=6)


def as_t(values):
    return torch.tensor(values, dtype=torch.float64)


@given(coordinate_lists)
def test_the_inverse_is_minus_t(values):
    affine, t = Affine2d(), as_t(values)
    product = affine.matrix(affine.inverse_coordinates(t)) @ affine.matrix(t)
    assert torch.allclose(product, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(affine.pullback(t), torch.linalg.inv(affine.matrix(t)), atol=1e-10)


@given(coordinate_lists, st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
def test_multiples_of_one_direction_form_a_group(values, a, b):
    affine, t = Affine2d(), as_t(values)
    product = affine.matrix(a * t) @ affine.matrix(b * t)
    assert torch.allclose(product, affine.matrix((a + b) * t), atol=1e-11)


@given(coordinate_lists)
def test_the_area_grows_by_the_scales_alone(values):
    t = as_t(values)
    growth = torch.linalg.det(Affine2d().matrix(t))
    assert torch.allclose(growth.log(), t[3] + t[4], atol=1e-12)  # det exp(G) = exp(trace G)


@given(st.permutations(ALL), coordinate_lists)
def test_the_order_of_names_only_orders_the_coordinates(names, values):
    """One exponential, not a product, is what makes this hold."""
    t = dict(zip(ALL, values, strict=True))
    permuted = Affine2d(names).matrix(as_t([t[name] for name in names]))
    assert torch.allclose(permuted, Affine2d().matrix(as_t(values)), atol=1e-13)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 2**30), st.integers(3, 12), st.integers(3, 12))
def test_a_warp_is_linear_in_the_images_and_never_exceeds_them(seed, height, width):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(3, 2, height, width, generator=generator, dtype=torch.float64)
    x, other = draw[:1], draw[1:2]
    t = 2 * torch.rand(1, 6, generator=generator, dtype=torch.float64) - 1
    affine = Affine2d()
    both = affine(x + 3 * other, t)
    assert torch.allclose(both, affine(x, t) + 3 * affine(other, t), atol=1e-12)
    assert float(affine(x, t).max()) <= float(x.max()) + 1e-12
    ones = Affine2d(padding="border")(torch.ones_like(x), t)
    assert torch.allclose(ones, torch.ones_like(ones))


@pytest.mark.parametrize(("padding", "corner"), [("zeros", 0.0), ("border", 1.0), ("reflection", 1.0)])
def test_padding(padding, corner):
    x = torch.ones(1, 1, 8, 8)
    got = moved(x, padding=padding, translate_x=1.0)[0, 0, 0, 0]
    assert float(got) == pytest.approx(corner, abs=1e-6)


def test_bicubic_is_sharper_than_bilinear():
    x = smooth_images(height=36, width=30)
    errors = {}
    for interpolation in ("bilinear", "bicubic"):
        once = moved(x, interpolation=interpolation, rotation=0.4)
        errors[interpolation] = (moved(once, interpolation=interpolation, rotation=-0.4) - x).norm()
    assert errors["bicubic"] < 0.6 * errors["bilinear"]


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (40, 16)])
@pytest.mark.parametrize("name", ALL)
def test_negligible_moves_nothing_in_the_inscribed_circle_by_more_than_half_a_pixel(name, shape):
    height, width = shape
    affine = Affine2d([name])
    matrix = affine.matrix(affine.negligible((1, height, width)))
    angle = torch.linspace(0, 2 * math.pi, 181, dtype=torch.float64)
    radius = min(height, width) / width  # of the circle, in units of half the width
    rim = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.ones_like(angle)])
    pixels = ((matrix @ rim - rim)[:2] * width / 2).norm(dim=0).max()
    assert 0.49 < float(pixels) <= 0.5 + 1e-12


@pytest.mark.parametrize(
    ("name", "extent", "words"),
    [
        ("rotation", math.radians(54), "±54.0°"),
        ("translate_x", 0.062, "±3.1 % of width"),
        ("scale_y", math.log(1.25), "±25.0 %"),
        ("shear", 0.1, "±10.0 %"),
    ],
)
def test_extents_in_words(name, extent, words):
    assert AFFINE_COORDINATES[name].words(extent) == words


def test_the_gradient_of_the_shared_path_at_the_identity_is_that_of_the_image():
    """d/dt of x(p − t e₁) is −∂x/∂p₁: central differences of a smooth image, away from kinks."""
    x = smooth_images(batch=1, channel=1, height=33, width=33)
    t = torch.full((1, 1), 0.5 / 16.5, dtype=torch.float64, requires_grad=True)  # half a pixel
    row = Affine2d(["translate_x"]).orbit(x, t)[0, 0, 0, 16]
    (gradient,) = torch.autograd.grad(row[20], t)
    slope = -(x[0, 0, 16, 20] - x[0, 0, 16, 19]) * 16.5  # per half width
    assert float(gradient) == pytest.approx(float(slope), rel=1e-10)


def test_the_shared_path_does_not_copy_the_images(monkeypatch):
    """Memory is what it saves: the sampled input is one batch seen S times."""
    seen = []
    sample = torch.nn.functional.grid_sample

    def spy(x, *args, **kwargs):
        seen.append(x.stride(0))
        return sample(x, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "grid_sample", spy)
    Affine2d().orbit(images(8, 8), torch.zeros(5, 6, dtype=torch.float64))
    assert seen == [0]


def test_state_dict_is_empty_and_the_module_moves_with_its_dtype():
    affine = Affine2d(["rotation"])
    assert affine.state_dict() == {}
    half = affine.to(torch.float32)
    assert half.matrix(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["rotate"]}, "unknown affine coordinate 'rotate'; known are translate_x"),
        ({"names": []}, "at least one coordinate"),
        ({"names": ["shear", "shear"]}, "have to be distinct, and shear, shear came"),
        ({"padding": "wrap"}, "unknown padding 'wrap'; known are zeros, border, reflection"),
        ({"interpolation": "nearest"}, "unknown interpolation 'nearest'; known are bilinear"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Affine2d(**arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(5, 8, 8), r"batch x channel x height x width, and shape \(5, 8, 8\) came"),
        (torch.zeros(5, 1, 8, 8, dtype=torch.uint8), r"torch.uint8 came; .*x.float\(\) / 255"),
        ([[1.0]], "expects a tensor, batch first, and a list came"),
    ],
)
def test_bad_images(x, message):
    with pytest.raises(DataError, match=message):
        Affine2d().check_input(x)


def test_coordinates_that_do_not_fit():
    affine, x = Affine2d(["rotation", "shear"]), torch.zeros(5, 1, 8, 8)
    with pytest.raises(ValueError, match=r"ending in \(2,\), for rotation, shear, and \(24, 3\) came"):
        affine.orbit(x, torch.zeros(24, 3))
    with pytest.raises(ValueError, match=r"ending in \(5, 2\)"):
        affine.orbit_per_example(x, torch.zeros(24, 5, 3))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda_agrees_with_the_cpu(dtype):
    x, t = smooth_images().to(dtype), (torch.rand(4, 6, dtype=dtype) - 0.5)
    affine = Affine2d()
    expected = affine.orbit(x, t)
    got = affine.cuda().orbit(x.cuda(), t.cuda())
    tolerance = 1e-10 if dtype == torch.float64 else 1e-3
    assert (got.cpu() - expected).abs().max() < tolerance
