"""Transforms of points: conformance, and the ground truths of rotations and of the rotation group."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayesinv.errors import DataError
from bayesinv.orbits.orbit import Orbit, base_draws
from bayesinv.testing.transforms import TransformConformance
from bayesinv.transforms import (
    SO3,
    Affine3d,
    Compose,
    Jitter3d,
    Reflection3d,
    Rotation3d,
    Scale3d,
    Translation3d,
    from_config,
)
from bayesinv.transforms.points import COORDINATES_3D

ALL = (
    Rotation3d(mask=3),
    SO3(mask=3),
    Translation3d(mask=3),
    Scale3d(mask=3),
    Reflection3d("y", mask=3),
    Jitter3d(mask=3),
    Affine3d(mask=3),
)


def molecules(dtype=torch.float64):
    """Three molecules of 5, 4 and 2 atoms: coordinates, atomic number, one more column; padded with zeros."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    x[..., 3] = torch.tensor([[6, 1, 1, 1, 1], [7, 1, 1, 1, 0], [8, 1, 0, 0, 0]], dtype=torch.float64)
    return (x * (x[..., 3:4] > 0)).to(dtype)


def distances(x):
    return torch.cdist(x[..., :3], x[..., :3])


class Points(TransformConformance):
    """Not collected: a base without a transform."""

    __test__ = False

    def make_input(self):
        return molecules()


class TestRotation3d(Points):
    __test__ = True

    def make_transform(self):
        return Rotation3d(mask=3)


class TestOneRotation(Points):
    __test__ = True

    def make_transform(self):
        return Rotation3d("rotation_y")


class TestSO3(Points):
    __test__ = True

    def make_transform(self):
        return SO3(mask=3)


class TestTranslation3d(Points):
    __test__ = True

    def make_transform(self):
        return Translation3d(["translate_z", "translate_x"], mask=3, largest=1.0)


class TestScale3d(Points):
    __test__ = True

    def make_transform(self):
        return Scale3d(mask=3)


class TestReflection3d(Points):
    __test__ = True

    def make_transform(self):
        return Reflection3d("z", mask=3)


class TestJitter3d(Points):
    __test__ = True

    def make_transform(self):
        return Jitter3d(mask=3)


class TestAffine3d(Points):
    __test__ = True

    def make_transform(self):
        return Affine3d(mask=3)


class TestAffine3dSubset(Points):
    __test__ = True

    def make_transform(self):
        return Affine3d(["shear_yz", "rotation_x", "translate_y"])


class TestComposed(Points):
    __test__ = True

    def make_transform(self):
        return Compose([SO3(mask=3), Reflection3d(mask=3), Jitter3d(mask=3), Scale3d(mask=3)])


# ------------------------------------------------------------------------------------------------ the layout


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_further_columns_and_padding_are_left_alone(transform):
    x = molecules()
    t = 0.2 * base_draws(4, transform.num_columns, seed=1)
    if isinstance(transform, Reflection3d):
        t = torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=torch.float64)
    points = transform.orbit(x, t)
    assert torch.equal(points[..., 3:], x[..., 3:].expand(4, -1, -1, -1))
    padded = x[..., 3] == 0
    assert int(padded.sum()) == 4
    assert float(points[:, padded].abs().max()) == 0.0
    assert float((points[1] - x)[~padded].abs().min(0).values[:3].max()) > 0  # and the atoms do move


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_padding_changes_nothing_else(transform):
    """A molecule moves in the same way whatever the number of padded rows behind it."""
    x = molecules()[2:]
    t = torch.ones(1, transform.num_columns, dtype=torch.float64) * (1.0 if transform.invertible else 0.0)
    if transform.num_auxiliary == 0 or isinstance(transform, SO3):
        short = transform(x[:, :2], t)
        assert torch.allclose(transform(x, t)[:, :2], short, atol=1e-12)


def test_without_a_mask_every_row_is_a_point():
    x = torch.zeros(1, 3, 3)
    assert torch.equal(Translation3d("translate_y")(x, torch.ones(1, 1))[0, :, 1], torch.ones(3))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(5, 4), r"batch x atoms x \(3 \+ further columns\), and shape \(5, 4\) came"),
        (torch.zeros(5, 4, 2), r"and shape \(5, 4, 2\) came"),
        (torch.zeros(5, 4, 3), r"mask in column 3, and the examples have 3 columns"),
        (torch.ones(5, 4, 4) * torch.tensor([1.0, 1.0, 1.0, 0.0]), "zeros in padded rows"),
        (torch.zeros(5, 4, 4, dtype=torch.int64), "expects floating point examples"),
    ],
)
def test_bad_points(x, message):
    with pytest.raises(DataError, match=message):
        Rotation3d(mask=3).check_input(x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Rotation3d("rotation_w"), "unknown coordinate 'rotation_w'; known are rotation_x"),
        (lambda: Affine3d([]), "at least one coordinate"),
        (lambda: Affine3d(["scale_x", "scale_x"]), "have to be distinct"),
        (lambda: SO3(mask=1), "mask: expected the index of a column after the 3 coordinates"),
        (lambda: Scale3d(mask=True), "mask: expected the index"),
        (lambda: Reflection3d("w"), "axis: expected one of x, y, z, got 'w'"),
        (lambda: Jitter3d(largest=-1.0), "'jitter' has to be a positive finite number"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_units():
    rotation = Rotation3d().coordinates[0]
    assert rotation.words(math.pi) == "±180.0°"
    assert Translation3d().coordinates[0].words(0.5) == "±0.5 Å"
    assert Scale3d().coordinates[0].words(math.log(1.1)) == "±10.0 %"
    assert Jitter3d().coordinates[0].words(0.1) == "up to 0.1 Å"
    assert Reflection3d().coordinates[0].largest == 0.5


# --------------------------------------------------------------------------------------------- the rotations

angles = st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=3)


@given(angles)
def test_rotations_are_orthogonal_and_proper(values):
    R = Rotation3d().matrix(torch.tensor(values, dtype=torch.float64))
    assert torch.allclose(R @ R.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert float(torch.linalg.det(R)) == pytest.approx(1.0)
    # the rotation vector: its length is the angle, its direction stays put
    t = torch.tensor(values, dtype=torch.float64)
    assert float(R.trace()) == pytest.approx(1 + 2 * math.cos(float(t.norm())), abs=1e-10)
    assert torch.allclose(R @ t, t, atol=1e-10)


@given(angles)
def test_distances_stay_and_inverses_undo(values):
    x, t = molecules(), torch.tensor([values] * 3, dtype=torch.float64)
    for transform, each in (
        (Rotation3d(), t),
        (SO3(), torch.cat([t[:, :1], t[:, 1:] / 3.2], 1)),
        (Reflection3d(), torch.ones(3, 1, dtype=torch.float64)),
    ):
        moved = transform(x, each)
        # a distance of zero, of an atom to itself, comes out of cdist as the root of a rounding error
        assert torch.allclose(distances(moved), distances(x), atol=1e-6)
        assert torch.allclose(transform(moved, transform.inverse_coordinates(each)), x, atol=1e-10)


@pytest.mark.parametrize(("axis", "source", "target"), [("x", 1, 2), ("y", 2, 0), ("z", 0, 1)])
def test_rotations_are_right_handed(axis, source, target):
    unit = torch.eye(3, dtype=torch.float64)
    quarter = torch.tensor([math.pi / 2], dtype=torch.float64)
    assert torch.allclose(Rotation3d(f"rotation_{axis}").matrix(quarter) @ unit[source], unit[target])
    # and SO3 turns the same way about the same axis
    if axis == "z":
        about_z = torch.tensor([math.pi / 2, 1.0, 0.0], dtype=torch.float64)
        assert torch.allclose(SO3().matrix(about_z) @ unit[source], unit[target])


def test_three_rotations_are_those_of_the_affine_family():
    t = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
    affine = Affine3d(["rotation_x", "rotation_y", "rotation_z"])
    assert torch.allclose(affine.matrix(t)[:3, :3], Rotation3d().matrix(t))


def test_the_order_of_names_only_orders_the_coordinates():
    t = dict(zip(COORDINATES_3D, 0.3 * base_draws(1, 12, seed=2)[0], strict=True))
    names = list(COORDINATES_3D)[::-1]
    permuted = Affine3d(names).matrix(torch.stack([t[name] for name in names]))
    assert torch.allclose(permuted, Affine3d().matrix(torch.stack(list(t.values()))), atol=1e-13)


def test_the_twelve_generators_are_independent_and_volume_grows_by_the_scales():
    affine = Affine3d()
    assert affine.num_coordinates == 12
    assert torch.linalg.matrix_rank(affine.generators.flatten(1)) == 12
    t = 0.4 * base_draws(5, 12, seed=3)
    scales = [affine.names.index(f"scale_{axis}") for axis in "xyz"]
    assert torch.allclose(torch.linalg.det(affine.matrix(t)).log(), t[:, scales].sum(1), atol=1e-12)


# ---------------------------------------------------------------------------------------- the uniform measure


def haar_rotations(num, eta=math.pi, seed=0):
    orbit = Orbit(SO3(), num_samples=num, seed=seed)
    t = orbit.coordinates(torch.tensor([eta], dtype=torch.float64))
    return SO3().matrix(t), t


def test_half_a_turn_about_any_axis_is_the_uniform_measure():
    """Moments of order one and two of the Haar measure: E R = 0 and E R_ij R_kl = δ_ik δ_jl / 3."""
    R, _ = haar_rotations(2**14)
    assert float(R.mean(0).abs().max()) < 2e-3
    second = torch.einsum("sij,skl->ijkl", R, R) / len(R)
    unit = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(second, torch.einsum("ik,jl->ijkl", unit, unit) / 3, atol=3e-3)
    # independent draws of the same measure, from unit quaternions, agree in the trace's fourth moment (E = 3)
    trace = R.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert float(trace.pow(4).mean()) == pytest.approx(3.0, abs=0.03)


@pytest.mark.parametrize("eta", [0.3, 1.5, 3.0])
def test_smaller_extents_are_uniform_over_a_ball(eta):
    """The distribution function of the angle is (θ − sin θ) / (η − sin η)."""
    _, t = haar_rotations(2**12, eta)
    angle = t[:, 0].abs()
    assert float(angle.max()) <= eta + 1e-12
    level = (angle - angle.sin()) / (eta - math.sin(eta))
    expected = (torch.arange(len(level), dtype=torch.float64) + 0.5) / len(level)
    assert float((level.sort().values - expected).abs().max()) < 5e-3


def test_the_measure_is_left_invariant():
    """Averages over the orbit at half a turn do not see a rotation of the input."""
    x = molecules()
    R, t = haar_rotations(2**13)
    turned = Rotation3d()(x, torch.tensor([[1.0, -0.4, 2.0]] * 3, dtype=torch.float64))

    def average(points):
        return SO3().orbit(points, t)[..., :3].tanh().prod(-1).mean(0)

    assert len(R) == 2**13
    assert torch.allclose(average(x), average(turned), atol=2e-3)
    assert float((turned - x).abs().max()) > 1


def test_three_full_rotations_are_not_uniform_and_their_product_is_centred():
    """What the docstring of Rotation3d says about its measure."""
    half_turns = torch.full((3,), math.pi, dtype=torch.float64)
    R = Rotation3d().matrix(Orbit(Rotation3d(), 2**13).coordinates(half_turns))
    assert torch.allclose(R.mean(0), -0.119 * torch.eye(3, dtype=torch.float64), atol=5e-3)
    at = Rotation3d().matrix(Orbit(Rotation3d(), 2**13).coordinates(half_turns * 132 / 180))
    assert float(at.mean(0).abs().max()) < 5e-3
    angle = torch.arccos(((R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1))
    haar = (math.pi / 3 - math.sin(math.pi / 3)) / math.pi  # of angles below 60°
    assert float((angle < math.pi / 3).double().mean()) / haar == pytest.approx(1 / 3, abs=0.03)
    product = Compose([Rotation3d(f"rotation_{axis}") for axis in "xyz"])
    unit = torch.eye(3, dtype=torch.float64)[None]  # three points, the unit vectors
    points = product.orbit(unit, Orbit(product, 2**13).coordinates(half_turns))
    assert float(points.mean(0).abs().max()) < 5e-3


# ------------------------------------------------------------------------------------------------- the noise


def test_jitter_is_white():
    """Mean 0, variance 1, uncorrelated between atoms and axes."""
    x = torch.zeros(1, 6, 3, dtype=torch.float64)
    auxiliaries = base_draws(40_000, 4, "monte_carlo", seed=4)
    t = torch.cat([torch.ones(len(auxiliaries), 1, dtype=torch.float64), auxiliaries], 1)
    z = Jitter3d().orbit(x, t)[:, 0].flatten(1)  # (S, 18)
    assert float(z.mean(0).abs().max()) < 4 / math.sqrt(len(z))
    covariance = z.T @ z / len(z)
    assert float((covariance - torch.eye(18, dtype=torch.float64)).abs().max()) < 5 / math.sqrt(len(z))


def test_configurations_keep_the_arguments():
    for transform in (Rotation3d("rotation_x", mask=4), Translation3d(largest=5.0), Jitter3d(mask=3, largest=0.2)):
        again = from_config(transform.config())
        assert [(c.name, c.largest) for c in again.coordinates] == [(c.name, c.largest) for c in transform.coordinates]
        assert again.mask == transform.mask
