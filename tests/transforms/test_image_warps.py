"""Perspective and elastic deformation: conformance, closed forms, and one sampling with affine neighbours."""

import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.orbits.orbit import base_draws
from bayesinv.testing.transforms import TransformConformance, smooth_images
from bayesinv.transforms import Affine2d, Compose, Elastic, Perspective


class TestPerspective(TransformConformance):
    inverse_tolerance = 0.2  # two bilinear samplings, of images fine enough that they blur little

    def make_transform(self):
        return Perspective()

    def make_input(self):
        return smooth_images(height=40, width=48)


class TestPerspectiveOneAxis(TestPerspective):
    def make_transform(self):
        return Perspective(["perspective_y"], padding="border")


class TestPerspectiveAmongAffine(TransformConformance):
    def make_transform(self):
        return Compose([Affine2d(["rotation"]), Perspective(), Affine2d(["translate_x"])])


class TestElastic(TransformConformance):
    def make_transform(self):
        return Elastic()


class TestElasticWide(TransformConformance):
    def make_transform(self):
        return Elastic(frequencies=2, padding="reflection")


def ramp(height, width):
    """Two channels that hold the isotropic coordinates of their pixels: (1, 2, height, width)."""
    x = (2 * torch.arange(width, dtype=torch.float64) + 1) / width - 1
    y = ((2 * torch.arange(height, dtype=torch.float64) + 1) / height - 1) * height / width
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]


def test_perspective_reads_where_the_formula_says():
    image = ramp(40, 60)
    t = torch.tensor([[0.2, -0.1]], dtype=torch.float64)
    seen = Perspective(padding="border")(image, t)
    inverse_depth = 1 - 0.2 * image[:, :1] + 0.1 * image[:, 1:]
    expected = image / inverse_depth
    inside = ((expected[:, :1].abs() < 0.95) & (expected[:, 1:].abs() < 0.6)).expand_as(seen)
    assert inside.float().mean() > 0.5
    assert torch.allclose(seen[inside], expected[inside], atol=1e-10)


def test_what_moves_away_gets_smaller():
    dots = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    dots[..., 6:15, 3:6] = dots[..., 6:15, 15:18] = 1.0
    seen = Perspective(["perspective_x"])(dots, torch.full((1, 1), 0.3, dtype=torch.float64))
    assert seen[..., 11:].sum() < 0.8 * dots[..., 11:].sum()  # the right one
    assert seen[..., :10].sum() > 1.1 * dots[..., :10].sum()


def test_beyond_the_horizon_is_outside():
    image = torch.ones(1, 1, 12, 12, dtype=torch.float64)
    seen = Perspective(["perspective_x"])(image, torch.full((1, 1), 2.0, dtype=torch.float64))
    assert bool(seen.isfinite().all())
    assert float(seen[..., -4:].abs().max()) == 0.0


def test_neighbours_are_sampled_once():
    """As one homography, with less blur than two samplings."""
    x = smooth_images()
    t = base_draws(3, 3, "monte_carlo", 0) * torch.tensor([0.5, 0.1, 0.1], dtype=torch.float64)
    turn, tilt = Affine2d(["rotation"]), Perspective()
    both = Compose([turn, tilt])
    matrix = tilt.matrix(t[:, 1:]) @ turn.matrix(t[:, :1])
    stage = both._stages
    assert len(stage) == 1
    assert torch.allclose(stage[0].pullback(t) @ matrix, torch.eye(3, dtype=torch.float64).expand(3, 3, 3))
    twice = tilt(turn(x, t[:, :1]), t[:, 1:])
    difference = (both(x, t) - twice).norm() / x.norm()
    assert 1e-4 < float(difference) < 0.1
    assert len(Compose([turn, Perspective(padding="border")])._stages) == 2


def test_elastic_displaces_by_its_extent_in_root_mean_square():
    image = ramp(24, 36)
    elastic = Elastic(frequencies=3, padding="reflection")
    # Small enough that nothing near the edge is read outside: there a ramp is not a ramp.
    draws = base_draws(2000, elastic.num_auxiliary, "sobol", 1)
    t = torch.cat([torch.full((2000, 1), 1e-3, dtype=torch.float64), draws], 1)
    moved = elastic.orbit(image, t)[:, 0] - image
    rms = moved[..., 1:-1, 1:-1].square().mean((0, 2, 3)).sqrt()
    # The rim that is left out holds next to nothing: the field vanishes there.
    share = (36 * 24) / (34 * 22)
    assert (rms / 1e-3 / share**0.5).tolist() == pytest.approx([1.0, 1.0], abs=0.02)


def test_elastic_leaves_the_edges_alone():
    image = ramp(24, 36)
    elastic = Elastic(padding="border")  # with zeros, what is read just outside is a large change, of a short way
    t = torch.cat([torch.full((1, 1), 0.02), 2 * torch.rand(1, 18, generator=torch.Generator().manual_seed(0)) - 1], 1)
    moved = (elastic(image, t) - image).abs()
    assert moved[..., 12, :].max() > 5 * moved[..., 0, :].max()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Perspective([]), "expected some of perspective_x, perspective_y"),
        (lambda: Perspective(["tilt"]), r"each once, got \['tilt'\]"),
        (lambda: Perspective(padding="wrap"), "unknown padding 'wrap'"),
        (lambda: Perspective(interpolation="cubic"), "unknown interpolation 'cubic'"),
        (lambda: Elastic(0), "from 1 to 100, got 0"),
        (lambda: Elastic(101), "from 1 to 100, got 101"),
        (lambda: Elastic(True), "from 1 to 100, got True"),
        (lambda: Elastic(padding="wrap"), "unknown padding 'wrap'"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("transform", [Perspective(), Elastic()])
def test_bad_images(transform):
    with pytest.raises(DataError, match="expects images, batch x channel x height x width"):
        transform.check_input(torch.zeros(3, 8, 8))
