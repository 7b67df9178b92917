"""The population that looks for modes, on densities whose modes and moments are known."""

import contextlib
import math
from types import SimpleNamespace

import pytest
import torch

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel
from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.inference.modes import Mode, find_modes
from bayesinv.inference.population import EACH, FEWEST, MOST, populate, size_of_population, starts_among
from bayesinv.inference.target import Target
from bayesinv.inference.vi import _again, _apart
from tests.fakes import ToyModel


class Toy(Target):
    """A density of two extents and a hyperparameter with a normal prior of standard deviation 2 about 1."""

    num_extents, num_hyper = 2, 1
    size = 3
    bounds = ((-6.0, 6.0), (-6.0, 6.0), (-11.0, 13.0))
    hyper = (SimpleNamespace(size=1, sd=2.0),)
    data = Data(torch.zeros(3, 1), torch.zeros(3, 1))

    def __init__(self, log_density):
        self.log_density = log_density
        self.evaluations = 0
        self.model = ToyModel()

    def start(self, quantile):
        z = torch.special.ndtri(torch.tensor(quantile, dtype=torch.float64))
        return torch.stack([z, z, torch.ones_like(z)])

    def extents(self, z):
        return torch.special.ndtr(z)

    def evaluating(self, model):
        return contextlib.nullcontext()

    def __call__(self, theta, hyperpriors=True):
        self.evaluations += 1
        return float(self.log_density(theta))

    def with_gradient(self, theta):
        theta = theta.clone().requires_grad_()
        value = self.log_density(theta)
        (gradient,) = torch.autograd.grad(value, theta)
        return float(value.detach()), gradient


NEEDLE = (1.4, -1.2, 0.5)


def hidden(theta):
    """A broad mode at zero, and a narrow one off the diagonal with e⁶ times its mass."""

    def normal(mean, sd):
        away = (theta - theta.new_tensor(mean)) / theta.new_tensor(sd)
        return -0.5 * away.square().sum() - theta.new_tensor(sd).log().sum()

    return torch.logaddexp(normal((0.0, 0.0, 1.0), (0.6, 0.6, 1.0)), 6.0 + normal(NEEDLE, (0.15, 0.15, 0.5)))


def nearest(points):
    return min(float((point - torch.tensor(NEEDLE, dtype=torch.float64)).norm()) for point in points)


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_a_mode_that_climbs_from_quantiles_miss(seed):
    assert nearest(mode.theta for mode in find_modes(Toy(hidden), 200)) > 1.0
    theta, value = populate(Toy(hidden), seed)
    assert nearest([starts_among(theta, value, 3)[0][0]]) < 0.5


def test_it_ends_about_distributed_as_the_posterior():
    mean, sd = torch.tensor([0.8, -0.5, 2.0]), torch.tensor([0.3, 0.6, 1.0])
    runs = [populate(Toy(lambda t: -0.5 * ((t - mean) / sd).square().sum()), seed)[0] for seed in range(8)]
    theta = torch.cat(runs)
    torch.testing.assert_close(theta.mean(0), mean.double(), atol=0.15, rtol=0)
    torch.testing.assert_close(theta.std(0), sd.double(), atol=0, rtol=0.25)


def test_the_same_seed_gives_the_same_points_and_their_values():
    theta, value = populate(Toy(hidden), 3)
    again, _ = populate(Toy(hidden), 3)
    assert torch.equal(theta, again)
    assert not torch.equal(theta, populate(Toy(hidden), 4)[0])
    torch.testing.assert_close(value, torch.stack([hidden(t) for t in theta]))


def test_points_without_a_density_are_left_behind():
    def half(theta):
        if theta[0] < 0:
            raise NumericalError("no evidence there")
        return -0.5 * theta.square().sum()

    theta, value = populate(Toy(half), 0)
    assert bool((theta[:, 0] >= 0).all()) and bool(torch.isfinite(value).all())


def test_without_any_density_there_is_nowhere_to_start():
    def nowhere(theta):
        raise NumericalError("no evidence")

    assert starts_among(*populate(Toy(nowhere), 0), 3) == []


def test_starts_are_the_highest_points_apart_with_the_spread_of_their_neighbours():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-2.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    theta = torch.cat([c + 0.2 * torch.randn(200, 2, generator=generator, dtype=torch.float64) for c in centres])
    value = torch.cat([-(theta[:200] - centres[0]).square().sum(1), 3.0 - (theta[200:] - centres[1]).square().sum(1)])
    (first, height, precision), (second, *_) = starts_among(theta, value, 2)[:2]
    assert height == float(value.max())
    torch.testing.assert_close(first, centres[1], atol=0.1, rtol=0)
    assert float((second - first).norm()) > 0.2
    assert 0.05 < float(precision[1, 1]) ** -0.5 < 0.4


@pytest.mark.parametrize(("dimensions", "points"), [(1, FEWEST), (5, 5 * EACH), (30, MOST)])
def test_more_dimensions_take_more_points(dimensions, points):
    assert size_of_population(dimensions) == points


@pytest.mark.parametrize(
    ("y", "num_classes", "points", "moves"), [(torch.zeros(3), None, 63, 3), (torch.arange(3), 3, 48, 2)]
)
def test_fewer_points_and_moves_explore_labels(y, num_classes, points, moves):
    toy = Toy(hidden)
    toy.data = Data(torch.zeros(3, 1), y, num_classes)
    evaluated = []
    theta, _ = populate(toy, seed=0, on_value=lambda: evaluated.append(1))
    assert len(theta) == points
    rounds, left = divmod(len(evaluated) // points - 1, moves)
    assert rounds > 0 and left == 0 and len(evaluated) % points == 0


@pytest.mark.filterwarnings("ignore::UserWarning")  # few steps and draws
def test_a_fit_says_where_it_looked():
    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = InvarianceModel(GaussianProcess(num_features=32), "rotation", likelihood="gaussian", num_orbit_samples=2)
    few, many = (
        bayesinv.fit(model, (x, x.mean((1, 2, 3))), seed=0, num_draws=40, max_steps=steps) for steps in (20, 21)
    )
    assert few.result.settings["modes"][0]["start"] in (0.1, 0.5, 0.9)
    assert many.result.settings["modes"][0]["start"] is None
    assert math.isfinite(many.log_evidence)


def mode_at(*theta):
    at, precision = torch.tensor(theta, dtype=torch.float64), 4.0 * torch.eye(3, dtype=torch.float64)
    return Mode(at, 0.0, precision, 0.0, 0, (), None)


def test_a_second_look_leaves_out_what_lies_at_a_mode_that_is_known():
    mode = mode_at(0.0, 0.0, 0.0)
    assert _apart(mode_at(0.0, 0.6, 0.0), mode, 2)  # 1.2 standard deviations of an extent
    assert not _apart(mode_at(0.4, -0.4, 0.0), mode, 2)
    assert not _apart(mode_at(0.0, 0.0, 3.0), mode, 2)  # a hyperparameter alone makes no other mode


def test_a_second_look_finds_the_highest_with_more_data(monkeypatch):
    """Of two places that few examples cannot tell apart, more examples bring out the one that climbs have left."""
    target = Toy(lambda theta: -8.0 * (theta[:2] - 1.0).square().sum() - 0.1 * theta[2].square())
    monkeypatch.setattr("bayesinv.inference.vi._with_few_copies", lambda model: None)  # the target's own density
    points = [[1.1, 1.0, 0.0], [-1.0, -1.0, 0.0], [-1.1, -1.0, 0.1], [1.0, 0.9, 0.1]]
    known = [mode_at(-1.0, -1.0, 0.0)]
    (start,) = _again(target, torch.tensor(points, dtype=torch.float64), known, 1, lambda: None)
    assert start.theta[:2].tolist() == pytest.approx([1.0, 1.0], abs=0.15)
    assert _again(target, None, known, 1, lambda: None) == []
