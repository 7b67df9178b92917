"""Finite groups: conformance, the group laws, and exact averages."""

from itertools import product

import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.orbits.averages import average_function, average_probabilities
from bayesinv.orbits.orbit import Orbit
from bayesinv.testing.transforms import TransformConformance, smooth_images
from bayesinv.transforms import Affine2d, Compose, CyclicRotation, Dihedral, Flip, Permutation


class TestFlip(TransformConformance):
    def make_transform(self):
        return Flip()


class TestQuarterTurns(TransformConformance):
    def make_transform(self):
        return CyclicRotation(4)

    def make_input(self):
        return smooth_images(height=12, width=12)


class TestSixthTurns(TransformConformance):
    inverse_tolerance = 0.3  # two interpolations
    single_tolerance = 1e-2

    def make_transform(self):
        return CyclicRotation(6)

    def make_input(self):
        return smooth_images(height=20, width=20)


class TestDihedral(TransformConformance):
    def make_transform(self):
        return Dihedral(4)

    def make_input(self):
        return smooth_images(height=12, width=12)


class TestPermutation(TransformConformance):
    def make_transform(self):
        return Permutation.symmetric(3)

    def make_input(self):
        return torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


GROUPS = [Flip(-2), CyclicRotation(2), CyclicRotation(4), Dihedral(2), Dihedral(4), Permutation.cyclic(12, dim=-2)]


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.names[0])
def test_inverse_undoes_every_element_exactly(group):
    x = smooth_images(height=12, width=12)
    for g in range(group.order):
        assert torch.equal(group.act(group.act(x, g), group.inverse(g)), x)


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.names[0])
def test_closed_and_elements_differ(group):
    x = smooth_images(batch=1, height=12, width=12)
    images = [group.act(x, g) for g in range(group.order)]
    assert len({image.numpy().tobytes() for image in images}) == group.order
    known = {image.numpy().tobytes() for image in images}
    for g, h in product(range(group.order), repeat=2):
        assert group.act(images[g], h).numpy().tobytes() in known


def test_quarter_turn_has_the_sign_of_affine_rotation():
    x = smooth_images(height=13, width=13)
    turned = Affine2d(["rotation"]).orbit(x, torch.tensor([torch.pi / 2], dtype=torch.float64))
    torch.testing.assert_close(CyclicRotation(4).act(x, 1), turned, atol=1e-6, rtol=0)


def test_orbit_weights_are_the_probabilities():
    orbit = Orbit(Compose([Flip(), CyclicRotation(4)]), num_samples=24)
    eta = torch.tensor([0.2, 0.6], dtype=torch.float64)
    assert orbit.num_copies == 8  # nothing continuous: every element once
    weights = orbit.weights(eta)
    by_element = dict(zip(map(tuple, orbit.coordinates(eta).tolist()), weights.tolist(), strict=True))
    assert by_element[0.0, 0.0] == pytest.approx(0.8 * 0.4)
    assert by_element[1.0, 0.0] == pytest.approx(0.2 * 0.4)
    assert by_element[1.0, 3.0] == pytest.approx(0.2 * 0.2)
    assert float(weights.sum()) == pytest.approx(1.0)


def test_every_draw_meets_every_element():
    orbit = Orbit(Compose([Affine2d(["rotation"]), Flip()]), num_samples=5)
    eta = torch.tensor([1.0, 0.3], dtype=torch.float64)
    t = orbit.coordinates(eta)
    assert t.shape == (10, 2) and orbit.base.shape == (5, 2)
    torch.testing.assert_close(t[:5, 0], t[5:, 0])
    torch.testing.assert_close(orbit.weights(eta), torch.tensor([0.7 / 5] * 5 + [0.3 / 5] * 5, dtype=torch.float64))


def test_average_over_the_full_group_is_invariant_and_differentiable():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(144, 3, generator=generator, dtype=torch.float64)
    orbit, x = Orbit(Dihedral(4)), smooth_images(channel=1, height=12, width=12)
    full = torch.tensor([7 / 8], dtype=torch.float64, requires_grad=True)

    def f(x, average, eta):
        return average(lambda points: points.flatten(1) @ h, orbit(x, eta), orbit.weights(eta))

    for average in (average_function, average_probabilities):
        value = f(x, average, full)
        for g in range(8):
            torch.testing.assert_close(f(Dihedral(4).act(x, g), average, full), value, atol=1e-12, rtol=0)
        (slope,) = torch.autograd.grad(value[0, 0], full)
        nudge = torch.tensor([1e-6], dtype=torch.float64)
        difference = (f(x, average, full.detach() + nudge) - f(x, average, full.detach() - nudge))[0, 0] / 2e-6
        torch.testing.assert_close(slope[0], difference, atol=1e-7, rtol=1e-5)
    for average in (average_function, average_probabilities):  # weights of zero: the function itself, finite gradients
        zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        value = f(x, average, zero)
        alone = average(lambda points: points.flatten(1) @ h, x[None])
        torch.testing.assert_close(value, alone)
        assert bool(torch.autograd.grad(value.sum(), zero)[0].isfinite().all())


def test_random_coordinates_follow_the_probability():
    orbit = Orbit(Dihedral(4))
    torch.manual_seed(0)
    t = orbit.random_coordinates(torch.tensor([0.7], dtype=torch.float64), (20_000,))[:, 0]
    shares = torch.bincount(t.long(), minlength=8) / 20_000
    expected = torch.tensor([0.3] + [0.1] * 7)
    assert float((shares - expected).abs().max()) < 4 * (0.3 * 0.7 / 20_000) ** 0.5


def test_errors_say_what_to_do():
    with pytest.raises(DataError, match="square images"):
        CyclicRotation(4).check_input(torch.zeros(1, 1, 4, 6))
    with pytest.raises(ValueError, match="make"):
        Permutation([[0, 1, 2], [1, 2, 0]])
    with pytest.raises(ValueError, match="identity first"):
        Permutation([[1, 0], [0, 1]])
    with pytest.raises(ValueError, match="elements 0 to 1"):
        Flip()(torch.zeros(1, 1, 4, 4), torch.tensor([[2.0]]))
    with pytest.raises(ValueError, match="take one of the groups out of the transforms"):
        Orbit(Compose([Permutation.symmetric(5), CyclicRotation(4)]))
    with pytest.raises(DataError, match="permutes 3 entries"):
        Permutation.symmetric(3)(torch.zeros(2, 4), torch.zeros(2, 1))


def test_the_error_names_the_number_that_is_no_element():
    with pytest.raises(ValueError, match="elements 0 to 1, and t = 3 came"):
        Flip()(torch.rand(2, 1, 4, 4), torch.tensor([[0.0], [3.0]]))
