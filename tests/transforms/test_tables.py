"""Transforms of table columns: conformance, names, and what each does to its columns alone."""

import math

import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.orbits.orbit import Orbit, base_draws
from bayesinv.testing.transforms import TransformConformance
from bayesinv.transforms import ColumnNoise, ColumnPermutation, ColumnScale, ColumnShift, Compose

TABLE = ["height", "age", "left", "right", "weight"]


def rows():
    return torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class TestColumnShift(TransformConformance):
    def make_transform(self):
        return ColumnShift(["weight", "age"], table=TABLE)

    def make_input(self):
        return rows()


class TestColumnScale(TestColumnShift):
    def make_transform(self):
        return ColumnScale([0, 3])


class TestColumnNoise(TestColumnShift):
    def make_transform(self):
        return ColumnNoise(["left", "right"], table=TABLE)


class TestCyclic(TestColumnShift):
    def make_transform(self):
        return ColumnPermutation(["height", "right", "age"], table=TABLE)


class TestSwap(TestColumnShift):
    def make_transform(self):
        return ColumnPermutation([2, 3], order="swap")


class TestTogether(TestColumnShift):
    def make_transform(self):
        swap = ColumnPermutation(["left", "right"], table=TABLE, order="swap")
        return Compose([ColumnShift(["age"], table=TABLE), swap, ColumnNoise(["height"], table=TABLE)])


@pytest.mark.parametrize(
    "transform",
    [
        ColumnShift(["age", "left"], table=TABLE),
        ColumnScale(["age", "left"], table=TABLE),
        ColumnNoise(["age", "left"], table=TABLE),
        ColumnPermutation(["age", "left"], table=TABLE),
    ],
    ids=lambda t: type(t).__name__,
)
def test_other_columns_stay_and_the_named_ones_move(transform):
    x = rows()
    t = torch.ones(6, transform.num_columns, dtype=torch.float64)
    changed = ((transform(x, t) - x).abs() > 1e-9).all(0)
    assert changed.tolist() == [False, True, True, False, False]


def test_shift_and_scale_are_what_they_say():
    x = rows()
    t = torch.tensor([[0.5, -1.0]], dtype=torch.float64).expand(6, 2)
    shifted = ColumnShift(["weight", "age"], table=TABLE)(x, t)
    assert torch.allclose(shifted[:, 4], x[:, 4] + 0.5)
    assert torch.allclose(shifted[:, 1], x[:, 1] - 1.0)
    scaled = ColumnScale([0, 3])(x, t)
    assert torch.allclose(scaled[:, 0], x[:, 0] * math.exp(0.5))
    assert ColumnShift(["age"], table=TABLE).coordinates[0].words(0.5) == "±0.5 sd"


def test_noise_is_white_and_as_large_as_it_says():
    x = torch.zeros(1, 3, dtype=torch.float64)
    draws = base_draws(20_000, 4, "monte_carlo", seed=1)
    t = torch.cat([torch.tensor([[0.5, 2.0]], dtype=torch.float64).expand(len(draws), 2), draws], 1)
    z = ColumnNoise([0, 2]).orbit(x, t)[:, 0]
    covariance = z.T @ z / len(z)
    expected = torch.diag(torch.tensor([0.25, 0.0, 4.0], dtype=torch.float64))
    assert torch.allclose(covariance, expected, atol=0.1)
    assert float(z.mean(0).abs().max()) < 0.06


def test_a_cycle_visits_every_order_of_the_cycle_and_averages_exactly():
    cycle = ColumnPermutation([0, 1, 2])
    x = torch.tensor([[1.0, 2.0, 3.0, 9.0]], dtype=torch.float64)
    elements = torch.arange(3, dtype=torch.float64)[:, None]
    points = cycle.orbit(x, elements)[:, 0]
    assert points.tolist() == [[1, 2, 3, 9], [3, 1, 2, 9], [2, 3, 1, 9]]
    orbit = Orbit(cycle, num_samples=4)
    extent = torch.tensor([2 / 3], dtype=torch.float64)  # all orders equally likely
    images = orbit(x, extent)
    weights = orbit.weights(extent)
    assert len(images) == 3
    assert weights is None or weights.tolist() == pytest.approx([1 / 3] * 3)
    average = images.mean(0) if weights is None else torch.tensordot(weights, images, 1)
    assert average[0].tolist() == pytest.approx([2, 2, 2, 9])


def test_names():
    assert ColumnPermutation(["left", "right"], table=TABLE, order="swap").names == ("swap_left_right",)
    assert ColumnPermutation([0, 1, 2], name="corners").names == ("corners",)
    assert ColumnScale([0, 3]).names == ("scale_0", "scale_3")
    assert ColumnShift("age", table=TABLE).names == ("shift_age",)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ColumnShift(["age"]), "column 'age' is named, so give all names"),
        (lambda: ColumnShift(["size"], table=TABLE), "unknown column 'size'; the table has height, age"),
        (lambda: ColumnScale([]), "at least one column"),
        (lambda: ColumnScale([1, 1]), r"have to be distinct, and \[1, 1\] came"),
        (lambda: ColumnScale([-1]), "expected a column's name, or its index from 0; got -1"),
        (lambda: ColumnNoise([5], table=TABLE), r"column 5 of a table of 5 columns, 0\.\.4"),
        (lambda: ColumnPermutation([1]), "cyclic takes at least two"),
        (lambda: ColumnPermutation([1, 2, 3], order="swap"), "swap takes exactly two"),
        (lambda: ColumnPermutation([1, 2], order="any"), "order: expected one of cyclic, swap"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("x", [torch.zeros(4), torch.zeros(4, 4), torch.zeros(4, 5, 1)])
def test_bad_rows(x):
    with pytest.raises(DataError, match="expects rows of a table, batch x 5 columns"):
        ColumnShift("age", table=TABLE).check_input(x)
    with pytest.raises(DataError, match="batch x 5 columns or more"):
        ColumnShift(4).check_input(x)


def test_the_largest_scale_is_a_factor_of_three():
    assert ColumnScale(0).coordinates[0].words(math.log(3.0)) == "±200.0 %"
    assert ColumnScale(0).coordinates[0].largest == math.log(3.0)
