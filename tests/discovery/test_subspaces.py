"""Algebras and subspaces: tangents of inputs, brackets, how subalgebras may move, angles."""

import math

import pytest
import torch

from bayesinv.discovery.algebra import algebra_for
from bayesinv.discovery.subspaces import angles, chart, closed_tangents, complement, defect, log_volume, orthonormal
from bayesinv.errors import DataError


def inputs(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def lorentz(d, num_times):
    """so(1, d - 1) or so(d), as directions of gl(d), (d², k)."""
    columns = []
    for i in range(d):
        for j in range(i + 1, d):
            A = torch.zeros(d, d, dtype=torch.float64)
            A[i, j], A[j, i] = (1.0 if i < num_times else -1.0), 1.0
            columns.append(A.flatten() / math.sqrt(2.0))
    return torch.stack(columns, 1)


def test_tangents_of_rows_are_matrix_products():
    x = inputs(7, 3)
    algebra = algebra_for(x, "linear")
    expected = torch.einsum("pij,nj->pni", algebra.matrices, x)
    torch.testing.assert_close(algebra.tangents(x), expected, atol=1e-7, rtol=0)


def test_translations_are_in_the_unit_of_the_inputs():
    x = 10.0 * inputs(7, 2)
    algebra = algebra_for(x, "affine")
    V = torch.zeros(6, 1, dtype=torch.float64)
    V[4] = 1.0  # the first translation
    assert algebra.size == 6
    assert algebra.outward(V)[0, 0, 2] == pytest.approx(float(x.square().mean().sqrt()))


def test_directions_that_move_nothing_are_left_out():
    x = inputs(20, 3)
    x[:, 2] = 0.0
    algebra = algebra_for(x, "linear")
    assert (algebra.size, algebra.num_still) == (6, 3)


def test_directions_of_columns_in_small_units_move_something():
    x = inputs(20, 2) * torch.tensor([1.0, 17_000.0], dtype=torch.float64)
    algebra = algebra_for(x, "linear")
    assert (algebra.size, algebra.num_still) == (4, 0)


@pytest.mark.parametrize("unit", [1.0, 300.0])
def test_what_is_left_out_moves_nothing(unit):
    """The third column is a sum of the others: A = u wᵀ with wᵀx = 0 moves nothing."""
    x = inputs(20, 3)
    x[:, 1] *= unit
    x[:, 2] = x[:, 0] + x[:, 1]
    algebra = algebra_for(x, "linear")
    assert (algebra.size, algebra.num_still) == (6, 3)
    along = algebra.at(torch.eye(6, dtype=torch.float64)) @ torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    assert float(along.abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("V", "d", "expected"),
    [(lorentz(3, 0), 3, 5), (lorentz(4, 1), 4, 9), (lorentz(3, 0)[:, :1], 3, 8), (lorentz(2, 0), 2, 3)],
    ids=["so3", "so13", "one", "so2"],
)
def test_a_subalgebra_moves_as_far_as_changes_of_coordinates_take_it(V, d, expected):
    """so(3): gl(3) less its normaliser, so(3) and multiples of one: 9 - 4; one generator: anywhere."""
    algebra = algebra_for(inputs(9, d), "linear")
    assert float(defect(V, algebra).norm()) < 1e-12
    N, T = closed_tangents(V, algebra)
    assert T.shape[1] == expected
    step = orthonormal(V + 1e-3 * N @ T[:, 0].reshape(N.shape[1], V.shape[1]))
    assert float(defect(step, algebra).norm()) < 1e-5  # of second order


def test_two_rotations_are_not_closed():
    algebra = algebra_for(inputs(9, 3), "linear")
    assert float(defect(lorentz(3, 0)[:, :2], algebra).norm()) == pytest.approx(1 / math.sqrt(2))


def test_angles():
    V, W = torch.eye(4, dtype=torch.float64)[:, :2], torch.eye(4, dtype=torch.float64)[:, :2].clone()
    W[:, 1] = torch.tensor([0.0, math.cos(0.001), math.sin(0.001), 0.0])
    torch.testing.assert_close(angles(V, W), torch.rad2deg(torch.tensor([0.0, 0.001], dtype=torch.float64)))
    assert angles(V, torch.eye(4, dtype=torch.float64)[:, 2:3]).tolist() == pytest.approx([90.0])


def test_volumes_of_projective_spaces():
    assert log_volume(1) == pytest.approx(math.log(math.pi))  # half a circle
    assert log_volume(2) == pytest.approx(math.log(2.0 * math.pi))  # half a sphere


def test_a_chart_is_long_where_the_function_is_slow():
    V = torch.eye(3, dtype=torch.float64)[:, :1]
    speeds = torch.diag(torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64))
    N = chart(V, speeds)
    assert float((V.mT @ N).abs().max()) < 1e-12
    torch.testing.assert_close(N.norm(dim=0), 0.03 * torch.tensor([2.5**0.5, 2.5**0.5 / 2], dtype=torch.float64))
    assert complement(V).shape == (3, 2)


@pytest.mark.parametrize(
    ("shape", "algebra", "error", "words"),
    [
        ((20, 3), "cubic", ValueError, "algebra"),
        ((20, 1, 8, 8), "linear", ValueError, "images"),
        ((20, 30), "auto", DataError, "30 coordinates"),
        ((20,), "auto", DataError, "expected rows"),
    ],
)
def test_what_has_no_algebra_is_refused(shape, algebra, error, words):
    with pytest.raises(error, match=words):
        algebra_for(inputs(*shape), algebra)


def test_inputs_that_are_all_zero_are_refused():
    with pytest.raises(DataError, match="not all zero"):
        algebra_for(torch.zeros(20, 3), "auto")
