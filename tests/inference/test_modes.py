"""The search for modes, on densities whose modes are known, and on a model."""

import math

import pytest
import torch

import bayesinv
from bayesinv.data.container import Data
from bayesinv.errors import NonFiniteError, NumericalError
from bayesinv.inference.curvature import LEAST_CURVATURE, LONGEST, curvature_at, of_more_data
from bayesinv.inference.many_points import ManyPoints
from bayesinv.inference.modes import (
    Mode,
    _across,
    _Straightened,
    find_modes,
)
from bayesinv.inference.target import Target
from bayesinv.inference.vi import _sizes, _worth_a_climb, climb
from bayesinv.testing.transforms import smooth_images
from tests.fakes import ToyModel


class Toy(Target):
    """A density of two extents and a hyperparameter, as much of a target as the search asks for."""

    num_extents, num_hyper = 2, 1
    size = 3
    bounds = ((-6.0, 6.0), (-6.0, 6.0), (-12.0, 12.0))
    model = ToyModel()
    data = Data(torch.zeros(3, 1), torch.zeros(3, 1))

    def __init__(self, log_density, starts=None):
        self.log_density = log_density
        self.starts = starts or {0.1: [-2.0, -2.0], 0.5: [2.0, 2.0]}
        self.evaluations = 0

    def start(self, quantile):
        return torch.tensor([*self.starts[quantile], 0.5], dtype=torch.float64)

    def extents(self, z):
        return torch.special.ndtr(z)

    def __call__(self, theta, hyperpriors=True):
        self.evaluations += 1
        return float(self.log_density(theta))

    def with_gradient(self, theta):
        self.evaluations += 1
        theta = theta.clone().requires_grad_()
        value = self.log_density(theta)
        (gradient,) = torch.autograd.grad(value, theta)
        return float(value.detach()), gradient


def search(target, *arguments, **options):
    """From the two starts that a toy has."""
    return find_modes(target, *arguments, **{"starts": (0.1, 0.5)} | options)


PRECISION = torch.tensor([[2.0, 0.6, 0.0], [0.6, 5.0, -0.4], [0.0, -0.4, 1.0]], dtype=torch.float64)


def normal(theta, mean=(0.5, -0.3, 1.0), scale=1.0):
    away = theta - torch.tensor(mean, dtype=torch.float64)
    return -0.5 * scale * away @ PRECISION @ away - 7.0


LOW, HIGH = (-2.0, -1.5, 0.3), (2.0, 1.5, -0.2)


def bimodal(theta):
    """HIGH has e² times the mass of LOW, and half its width."""
    high = normal(theta, HIGH, 4.0) + 2.0 + 0.5 * 3 * math.log(4.0)
    return torch.logaddexp(high, normal(theta, LOW))


def test_a_normal_density_is_found_with_its_curvature_and_mass():
    target = Toy(normal)
    modes = search(target, 100)
    best = modes[0]
    assert best.converged
    torch.testing.assert_close(best.theta, torch.tensor([0.5, -0.3, 1.0], dtype=torch.float64), atol=0.03, rtol=0)
    assert best.value == pytest.approx(-7.0, abs=0.01)
    torch.testing.assert_close(best.precision, PRECISION)
    assert best.log_mass == pytest.approx(
        -7.0 + 1.5 * math.log(2 * math.pi) - 0.5 * float(torch.logdet(PRECISION)), abs=0.01
    )
    assert max(best.trace) == pytest.approx(best.value)
    assert (best.start, best.ended, best.merged) == (0.1, False, False)


def test_a_second_start_that_comes_to_the_same_mode_is_merged():
    modes = search(Toy(normal), 100)
    assert [mode.merged for mode in modes] == [False, True]
    assert [mode.start for mode in modes] == [0.1, 0.5]
    assert len(modes[1].trace) < len(modes[0].trace) + 3  # it does not climb on


def test_both_modes_are_found_best_first():
    modes = search(Toy(bimodal), 200)
    assert [mode.start for mode in modes] == [0.5, 0.1]
    assert not any(mode.merged for mode in modes)
    for mode, mean, scale in zip(modes, (HIGH, LOW), (4.0, 1.0), strict=True):
        assert mode.converged
        torch.testing.assert_close(mode.theta, torch.tensor(mean, dtype=torch.float64), atol=0.05, rtol=0)
        torch.testing.assert_close(mode.precision, scale * PRECISION, atol=0.05, rtol=0.02)
    assert modes[0].log_mass - modes[1].log_mass == pytest.approx(2.0, abs=0.02)


def test_near_a_mode_but_above_its_quadratic_is_another_mode():
    """A narrow peak within a standard deviation of the wide one: merging would lose it."""

    def log_density(theta):
        peak = normal(theta, (0.9, -0.3, 0.5), 400.0) + 12.0
        return torch.logaddexp(peak, normal(theta))

    starts = {0.1: [-2.0, -2.0], 0.5: [0.95, -0.3]}
    modes = search(Toy(log_density, starts), 200)
    values = [mode.value for mode in modes if not mode.merged]
    assert values[0] == pytest.approx(5.0, abs=0.1)


def test_the_decrement_says_how_far_a_newton_step_would_go():
    """One evaluation is no optimum: its distance from the mode is that of the normal."""
    modes = search(Toy(normal), 1)
    away = Toy(normal).start(0.1) - torch.tensor([0.5, -0.3, 1.0], dtype=torch.float64)
    assert modes[0].ended
    assert not modes[0].converged
    assert modes[0].decrement == pytest.approx(float((away @ PRECISION @ away).sqrt()), rel=1e-6)
    torch.testing.assert_close(modes[0].precision, PRECISION)
    assert len(modes) == 2  # the limit of one start is not that of the others


def test_newton_steps_finish_what_the_gradient_norm_leaves():
    """A ridge: at a gradient below that of L-BFGS the optimum is still a standard deviation away."""

    def ridge(theta):
        away = theta - torch.tensor([0.3, 0.2, 0.0], dtype=torch.float64)
        return -0.5 * (400.0 * (away[0] - away[1]) ** 2 + 0.12 * (away[0] + away[1]) ** 2 + away[2] ** 2)

    mode = search(Toy(ridge), 300)[0]
    assert mode.converged
    assert mode.decrement < 0.1
    assert float((mode.theta[0] + mode.theta[1] - 0.5).abs()) < 0.35


def test_kinks_do_not_use_up_the_evaluations():
    """Few copies of images of noise, whose bilinear interpolation leaves a kink at the maximum."""
    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=16),
        "rotation",
        likelihood="gaussian",
        num_orbit_samples=3,
        precision="double",
    )
    data = Data(x, torch.sin(9.0 * x[:, 0, 2, 1:3]))
    model.initialise(data)
    target = Target(model, data)
    mode = find_modes(target, 100, starts=(0.1,))[0]
    slope = target.with_gradient(mode.theta)[1]
    assert float(slope[0].abs()) > 0.1  # it is one
    assert len(mode.trace) < 70
    assert not mode.ended


def test_without_curvature_the_same_places_are_found_with_fewer_evaluations():
    full, plain = Toy(bimodal), Toy(bimodal)
    modes, places = search(full, 100), search(plain, 100, curvature=False)
    assert plain.evaluations < full.evaluations
    assert len(places) == 2 and not any(place.merged for place in places)
    for place in places:
        (mode,) = [mode for mode in modes if mode.start == place.start]
        torch.testing.assert_close(place.theta, mode.theta, atol=0.05, rtol=0)
        assert torch.equal(place.precision, torch.eye(3, dtype=torch.float64))


def test_a_step_that_leaves_the_mode_is_taken_again_and_shorter():
    """Modes at ±0.35 with a standard deviation of 0.1: the longest step ends under the other one."""
    apart, sd = 0.35, 0.1

    def two(theta):
        sides = [-0.5 * ((theta[0] + side) / sd).square() for side in (-apart, apart)]
        return torch.logaddexp(*sides) - 0.5 * theta[1:].square().sum()

    target = Toy(two)
    mode = torch.tensor([apart, 0.0, 0.0], dtype=torch.float64)
    gradient = target.with_gradient(mode)[1]
    found, slopes = curvature_at(ManyPoints(target), mode, gradient, torch.full((3,), LONGEST).numpy(), 3)
    torch.testing.assert_close(slopes, gradient)
    torch.testing.assert_close(found.diagonal().rsqrt(), mode.new_tensor([sd, 1.0, 1.0]), rtol=0.1, atol=0)


def test_flat_directions_have_the_least_curvature():
    modes = search(Toy(lambda theta: -0.5 * theta[0] ** 2 - 0.5 * theta[2] ** 2 + 0.0 * theta[1]), 50)
    values = torch.linalg.eigvalsh(modes[0].precision)
    assert float(values[0]) == pytest.approx(LEAST_CURVATURE)
    assert math.isfinite(modes[0].log_mass)


def test_an_optimum_at_the_bound_is_kept_inside():
    modes = search(Toy(lambda theta: 3.0 * theta[0] - 0.5 * theta[1:].square().sum()), 50)
    assert float(modes[0].theta[0]) == pytest.approx(6.0)
    assert math.isfinite(modes[0].log_mass)


def test_callbacks_see_every_evaluation_and_end_the_search():
    seen, shown = [], []

    def stop(step):
        seen.append(step)
        return len(seen) == 4

    modes = search(Toy(normal), 100, callbacks=[stop, lambda step: None], describe=shown.append)
    assert [step.step for step in seen] == [1, 2, 3, 4]
    assert seen[0].max_steps == 100
    settled = torch.tensor(
        [-2.0, -2.0, 1.0 - 0.4 * 1.7], dtype=torch.float64
    )  # the hyperparameter has its best value there
    assert seen[0].objective == pytest.approx(float(normal(settled)), abs=0.05)
    assert seen[0].extents["rotation"] == pytest.approx(float(torch.special.ndtr(torch.tensor(-2.0))), rel=1e-5)
    assert shown == [step.extents for step in seen]
    assert len(modes) == 1
    assert modes[0].ended
    assert len(modes[0].trace) == 4
    assert modes[0].value == max(modes[0].trace)
    # Only True ends it; numbers and lists do not.
    assert len(search(Toy(normal), 100, callbacks=[lambda step: 1])) == 2


@pytest.mark.parametrize("error", [NumericalError("no factor"), torch.linalg.LinAlgError("no factor")])
def test_a_density_that_fails_at_the_first_start_is_an_error(error):
    def log_density(theta):
        raise error

    with pytest.raises(NonFiniteError, match="step 1: no factor; there is no earlier state") as caught:
        search(Toy(log_density), 100)
    assert caught.value.step == 1


def test_a_later_start_that_fails_leaves_the_first_answer():
    def log_density(theta):
        if float(theta[0].detach()) > 1.5:
            raise NumericalError("not here")
        return normal(theta)

    modes = search(Toy(log_density), 100)
    assert [mode.start for mode in modes] == [0.1]
    assert modes[0].converged


def test_a_failure_on_the_way_is_stepped_around():
    """A wall that a long step of the line search runs into; the mode lies before it."""
    tried = []

    def log_density(theta):
        if float(theta[1].detach()) > 0.2:
            tried.append(1)
            raise NumericalError("behind the wall")
        return normal(theta, scale=10.0)

    modes = search(Toy(log_density, {0.1: [-2.0, -2.0], 0.5: [0.0, 0.0]}), 100)
    assert tried
    assert modes[0].converged
    assert modes[0].value == pytest.approx(-7.0, abs=0.01)


def test_without_latent_extents_one_start_is_enough():
    target = Toy(lambda theta: normal(torch.cat([torch.zeros(2, dtype=torch.float64), theta])))
    target.num_extents, target.size, target.bounds = 0, 1, ((-12.0, 12.0),)
    target.start = lambda quantile: torch.tensor([0.5], dtype=torch.float64)
    target.extents = lambda z: torch.tensor([0.3, 0.1], dtype=torch.float64)
    modes = find_modes(target, 100)
    assert len(modes) == 1
    assert modes[0].precision.shape == (1, 1)
    assert modes[0].converged


def test_laplace_mass_without_coordinates_is_the_value():
    mode = Mode(torch.zeros(0), -3.0, torch.eye(0, dtype=torch.float64), 0.0, 1, (-3.0,), 0.1)
    assert mode.log_mass == -3.0


def test_a_model_stands_at_its_best_mode():
    generator = torch.Generator().manual_seed(0)
    x = smooth_images(12, 1, 8, 8) + 0.05 * torch.rand(12, 1, 1, 1, generator=generator, dtype=torch.float64)
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=16),
        "rotation",
        likelihood="gaussian",
        num_orbit_samples=12,
        precision="double",
    )
    data = Data(x, torch.randn(12, 1, generator=generator, dtype=torch.float64) + 5.0 * x[:, 0, 2, 1:2])
    model.initialise(data)
    target = Target(model, data)
    modes = climb(target, 100)
    best = modes[0]
    assert best.converged
    assert target(best.theta) == pytest.approx(best.value, abs=1e-8)
    for seed in range(10):
        step = 0.05 * torch.randn(target.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        slack = 0.5 * float(step @ best.precision @ step)  # what L-BFGS may have left is a share of it
        assert target(best.theta + step) < best.value + slack
    # The curvature is that of one side, over about a standard deviation: what either side has is seen to later.
    for k, sd in enumerate(best.precision.diagonal().rsqrt()):
        step = sd * torch.eye(target.size, dtype=torch.float64)[k]
        drop = best.value - 0.5 * (target(best.theta + step) + target(best.theta - step))
        assert 0.2 < drop < 1.25


def test_a_needle_comes_after_the_mode_that_holds_the_mass():
    """It is higher, by less than its volume is smaller."""

    def density(theta):
        wide = -0.5 * ((theta[:2] + 2.0).square().sum() + theta[2].square())
        needle = 1.0 - 500.0 * (theta[:2] - 2.0).square().sum() - 0.5 * theta[2].square()
        return torch.logaddexp(wide, needle)

    modes = search(Toy(density, {0.1: [2.1, 1.93], 0.5: [-1.5, -1.5]}), 20)
    assert modes[0].value < modes[1].value
    assert modes[0].log_mass > modes[1].log_mass + 2.0
    torch.testing.assert_close(modes[0].theta[:2], torch.full((2,), -2.0, dtype=torch.float64), atol=0.01, rtol=0)


def test_a_known_curvature_saves_evaluations_and_leaves_the_answer():
    stretched = torch.diag(torch.tensor([400.0, 1.0, 30.0], dtype=torch.float64))

    def density(theta):
        away = theta - torch.tensor([0.5, -0.3, 1.0], dtype=torch.float64)
        return -0.5 * away @ stretched @ away - 0.1 * away[1] ** 4

    plain = search(Toy(density), 200)[0]
    known = [Mode(torch.tensor([0.3, 0.3, 0.5]).double(), 0.0, stretched, 0.0, 1, (0.0,), 0.1)]
    from_known = search(Toy(density), 200, found=known)[0]
    torch.testing.assert_close(from_known.theta, plain.theta, atol=0.02, rtol=0)
    assert from_known.evaluations < plain.evaluations


def test_straightened_coordinates_stay_in_the_bounds_and_can_leave_them():
    precision = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    bounds = [(-1.0, 1.0), (None, None)]
    at_the_edge = torch.tensor([1.0, 0.0], dtype=torch.float64)
    straight = _Straightened(at_the_edge, precision, bounds)
    y = torch.tensor([3.0, 0.5], dtype=torch.float64)
    assert float(straight.theta(y)[0]) == 1.0
    inward, outward = (torch.tensor([g, 0.0], dtype=torch.float64) for g in (-1.0, 1.0))
    assert float(straight.gradient(straight.start, inward).norm()) > 0.1
    assert float(straight.gradient(straight.start, outward).norm()) == 0.0
    inside = _Straightened(torch.zeros(2, dtype=torch.float64), precision, bounds)
    y = torch.tensor([0.2, -0.1], dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad((inside.theta(y) * outward).sum(), y)
    torch.testing.assert_close(inside.gradient(y.detach(), outward), expected)
    root = inside.root
    torch.testing.assert_close(root.mT @ precision @ root, torch.eye(2, dtype=torch.float64))


def test_more_data_sharpen_what_the_data_know():
    precision = torch.tensor([[10.0, 3.0], [3.0, 2.0]], dtype=torch.float64)  # 1 of it the prior's
    eye = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(of_more_data(precision, 5.0), eye + 5.0 * (precision - eye))
    torch.testing.assert_close(of_more_data(0.3 * eye, 5.0), 0.3 * eye)  # less than the prior's: left alone


def test_a_kink_is_a_mode_where_nothing_around_is_higher():
    """Slopes on either side of a ridge: no gradient vanishes there, and no step in any direction gains."""
    top = 0.4

    def ridge(theta):
        return normal(theta) - 1.5 * (theta[0] - top).abs()

    mode = search(Toy(ridge), 100)[0]
    assert mode.converged
    assert float(mode.theta[0].detach()) == pytest.approx(top, abs=0.15)


def test_what_lies_higher_to_a_side_is_found():
    at, precision = torch.tensor([1.5, -0.3, 1.0], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    many = ManyPoints(Toy(normal))
    point, value, _ = _across(many, at, float(normal(at)), precision)
    assert point.tolist() == pytest.approx([1.2, -0.3, 1.0]) and value > float(normal(at))
    mean = torch.tensor([0.5, -0.3, 1.0], dtype=torch.float64)
    assert _across(many, mean, float(normal(mean)), precision) is None


def test_at_a_kink_slopes_of_both_sides_count():
    """The gradient is that of one side; over a standard deviation to either side a ridge is round, and level on top."""
    top = torch.tensor([0.4, 0.0, 0.0], dtype=torch.float64)
    target = Toy(lambda theta: -0.5 * (theta - top).square().sum() - 1.5 * (theta[0] - top[0]).abs())
    gradient = torch.tensor([1.5, 0.0, 0.0], dtype=torch.float64)
    widths = torch.full((3,), 0.5).numpy()
    precision, slopes = curvature_at(ManyPoints(target), top, gradient, widths, 3, both=True)
    torch.testing.assert_close(slopes, torch.zeros(3, dtype=torch.float64))
    expected = torch.diag(torch.tensor([1.0 + 1.5 / 0.5, 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(precision, expected)


def test_a_climb_that_stands_still_ends():
    """A staircase: every step of the optimiser gains next to nothing, over and over."""

    def rough(theta):
        return normal(theta) - 1e-3 * torch.cos(2e3 * theta).sum() - 5.0 * (theta[1] - theta[0]).abs()

    modes = search(Toy(rough), 200)
    assert max(len(mode.trace) for mode in modes) < 60
    assert not any(mode.ended for mode in modes)


def test_climbs_take_four_times_the_examples_until_all():
    assert _sizes(100, explored=True) == _sizes(80, explored=False) == []
    assert _sizes(500, explored=True) == [100, 200]
    assert _sizes(1_599, explored=False) == [200]
    assert _sizes(50_000, explored=True) == [100, 200, 800, 3_200, 12_800]


def test_starts_far_below_the_highest_are_left_out():
    toy = Toy(normal)
    top = torch.tensor([0.5, -0.3, 1.0], dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    starts = [Mode(top + shift, 0.0, eye, 1.0, 1, (), None) for shift in (1.0, 0.0, 9.0)]
    found = _worth_a_climb(toy, starts, 2.0, 1)
    assert found == [starts[1], starts[0]]  # the highest first
    assert _worth_a_climb(toy, starts, 1.0, 1) == starts  # no more data: nothing is known of them
