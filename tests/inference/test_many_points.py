"""One density at many points: the values of one at a time, whatever the threads."""

import math
import threading
import time

import pytest
import torch

import bayesinv
from bayesinv.inference.many_points import ManyPoints
from bayesinv.inference.target import Target
from bayesinv.numerics.randomness import seeded


@pytest.fixture(scope="module")
def target():
    train = bayesinv.datasets.digits(0.8, size=8, num_train=40, seed=0).train
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=64), "rotation", num_orbit_samples=6)
    model.initialise(train)
    return Target(model, train)


def points_around(target, num=6):
    noise = torch.randn(num, target.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return target.start(0.4) + 0.3 * noise


def test_values_and_gradients_do_not_depend_on_threads(target):
    points = points_around(target)
    target(target.start(0.4))
    start = target.model.evidence.warm_start
    found = []
    for num_threads in (1, 3):
        target.model.evidence.warm_start = start
        many = ManyPoints(target, num_threads)
        found.append((many.values(points), many.values(points + 0.1), torch.stack(many.gradients(list(points)))))
    for one, three in zip(*found, strict=True):
        torch.testing.assert_close(one, three, atol=0, rtol=0)


def test_values_are_those_of_the_target(target):
    points = points_around(target)
    target(target.start(0.4))
    many = ManyPoints(target, 2)
    for _ in range(2):  # from the same start, then from forecasts
        values = many.values(points)
        for point, value in zip(points, values.tolist(), strict=True):
            assert target(point) == pytest.approx(value, abs=0.05)
    without_priors = many.values(points, hyperpriors=False)
    assert bool(((without_priors - values).abs() > 1e-3).all())


def test_where_the_density_cannot_be_computed_there_is_no_mass(target):
    points = points_around(target, 3)
    points[1, -1] = math.nan
    calls = []
    many = ManyPoints(target, 2)
    values = many.values(points, on_value=lambda: calls.append(1))
    assert (len(calls), values.isinf().tolist()) == (3, [False, True, False])
    assert [gradient is None for gradient in many.gradients(list(points))] == [False, True, False]


def test_evaluations_are_counted(target):
    before = target.evaluations
    many = ManyPoints(target, 2)
    many.values(points_around(target, 5))
    many.gradients(list(points_around(target, 2)))
    assert target.evaluations == before + 7


def test_an_evaluation_that_seeds_itself_gives_what_it_gives_alone(target, monkeypatch):
    """It runs in the thread that waits, next to the others, which hold every copy at that moment."""
    points = points_around(target, 12)
    evaluate, refused = Target.__call__, []

    def seeds_itself(self, theta, hyperpriors=True):
        time.sleep(0.01)
        if float(theta[0]) > float(points[:, 0].median()):
            refused.append(threading.current_thread() is threading.main_thread())
            with seeded(0):
                return evaluate(self, theta, hyperpriors)
        return evaluate(self, theta, hyperpriors)

    target(target.start(0.4))
    start = target.model.evidence.warm_start
    alone = ManyPoints(target, 1).values(points)
    monkeypatch.setattr(Target, "__call__", seeds_itself)
    target.model.evidence.warm_start = start
    with seeded(7):
        together = ManyPoints(target, 3).values(points)
    torch.testing.assert_close(together, alone, atol=0, rtol=0)
    assert sorted(set(refused)) == [False, True]
