"""Subalgebras that are recognised, in their own coordinates and in others."""

import math

import pytest
import torch

from bayesinv.discovery.algebra import algebra_for
from bayesinv.discovery.names import recognise
from bayesinv.discovery.subspaces import angles, orthonormal

AXES = ("t", "x", "y", "z")


def of(matrices, algebra):
    return orthonormal(torch.einsum("kij,pij->pk", torch.as_tensor(matrices, dtype=torch.float64), algebra.matrices))


def inputs(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def plane(d, i, j, sign=-1.0):
    A = torch.zeros(d, d, dtype=torch.float64)
    A[i, j], A[j, i] = sign, 1.0
    return A


LORENTZ = torch.stack([plane(4, 0, j, 1.0) for j in (1, 2, 3)] + [plane(4, i, j) for i, j in ((1, 2), (1, 3), (2, 3))])


@pytest.mark.parametrize(
    ("matrices", "group"),
    [
        (plane(3, 0, 2)[None], "so(2) of t, y"),
        (plane(3, 0, 1, 1.0)[None], "so(1,1) of t, x"),
        (torch.stack([plane(3, 0, 1), plane(3, 0, 2), plane(3, 1, 2)]), "so(3)"),
        (torch.eye(3)[None].double(), "scaling"),
        (torch.diag(torch.tensor([0.0, 1.0, 0.0]))[None], "scaling of x"),
        (LORENTZ, "so(1,3)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_known_ones_have_their_names(matrices, group):
    d = matrices.shape[-1]
    algebra = algebra_for(inputs(9, d), "linear")
    V = of(matrices, algebra)
    noisy = orthonormal(V + 0.01 * torch.randn(V.shape, generator=torch.Generator().manual_seed(0)).double())
    found, names, basis = recognise(noisy, algebra, 1.0, AXES[:d])
    assert found == group and len(names) == len(matrices)
    assert float(angles(basis, noisy).max()) < 1e-6


def test_a_basis_lines_up_with_the_known_one():
    algebra = algebra_for(inputs(9, 3), "linear")
    V = of(torch.stack([plane(3, 0, 1), plane(3, 0, 2), plane(3, 1, 2)]), algebra)
    turn = torch.linalg.qr(inputs(3, 3)).Q
    _, names, basis = recognise(V @ turn, algebra, 1.0, AXES[:3])
    assert names[0] == "rotation t-x"
    torch.testing.assert_close(algebra.outward(basis)[0], plane(3, 0, 1) / math.sqrt(2.0))


def test_an_unused_column_has_a_name():
    algebra = algebra_for(inputs(9, 2), "linear")
    matrices = torch.zeros(2, 2, 2)
    matrices[0, 1, 0] = matrices[1, 1, 1] = 1.0
    assert recognise(of(matrices, algebra), algebra, 1.0, ("a", "b"))[0] == "b does not count"


def test_rotations_of_an_ellipsoid_are_named_as_such():
    algebra = algebra_for(inputs(9, 3), "linear")
    S = torch.diag(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
    matrices = torch.stack([S @ plane(3, i, j) @ S.inverse() for i, j in ((0, 1), (0, 2), (1, 2))])
    assert recognise(of(matrices, algebra), algebra, 1.0, AXES[:3])[0] == "so(3), other coordinates"


def test_what_is_unknown_has_numbers():
    algebra = algebra_for(inputs(9, 3), "linear")
    V = orthonormal(inputs(9, 1))
    group, names, basis = recognise(V, algebra, 1.0, AXES[:3])
    assert group is None and names == ("generator 1",) and torch.equal(basis, V)


def test_translations_and_warps():
    algebra = algebra_for(inputs(9, 2), "affine")
    A = torch.zeros(1, 3, 3)
    A[0, 1, 2] = 1.0
    assert recognise(of(A, algebra), algebra, 1.0, ("x", "y"))[0] == "translation y"
    images = algebra_for(torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)), "auto")
    turn = torch.zeros(1, 3, 3)
    turn[0, 0, 1], turn[0, 1, 0] = 1.0, -1.0
    assert recognise(of(turn, images), images, 1.0, ("x", "y"))[0] == "rotation"


def about(d, i, j, centre):
    """A rotation about a centre, as a homogeneous matrix."""
    A = torch.zeros(1, d + 1, d + 1, dtype=torch.float64)
    A[0, :d, :d] = plane(d, i, j)
    A[0, :d, d] = -A[0, :d, :d] @ torch.tensor(centre, dtype=torch.float64)
    return A


@pytest.mark.parametrize("seed", range(3))
def test_rotations_about_a_centre_say_where_it_is(seed):
    noise = 2e-3 * torch.randn(12, 1, generator=torch.Generator().manual_seed(seed)).double()
    flat = algebra_for(inputs(50, 2) + torch.tensor([12.0, -8.0]), "affine")
    G = about(2, 0, 1, [12.0, -8.0])
    G[..., 2] /= flat.scale  # internal units
    group, names, _ = recognise(orthonormal(of(G, flat) + noise[:6]), flat, 0.5, ("x", "y"))
    assert group == "so(2)" and names[0].startswith("rotation x-y about (1") and ", -" in names[0]
    assert recognise(of(G, flat), flat, 0.5, ("x", "y"))[1] == ("rotation x-y about (12, -8)",)
    space = algebra_for(inputs(50, 3) + 3.0, "affine")
    G = about(3, 0, 2, [3.0, 0.0, 3.0])
    G[..., 3] /= space.scale
    group, names, _ = recognise(orthonormal(of(G, space) + noise), space, 0.5, ("x", "y", "z"))
    assert group == "so(2) of x, z" and names[0].startswith("rotation x-z about (")


def test_a_rotation_of_images_about_a_point_says_where_it_is():
    images = algebra_for(torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)), "auto")
    assert recognise(of(about(2, 0, 1, [0.5, -0.25]), images), images, 1.0, ("x", "y"))[:2] == (
        "so(2)",
        ("rotation about (0.5, -0.25)",),
    )


def test_a_screw_and_a_noisy_shift_are_no_rotations():
    space = algebra_for(inputs(50, 3), "affine")
    screw = about(3, 0, 1, [0.0, 0.0, 0.0])
    screw[0, 2, 3] = 1.0
    assert recognise(of(screw, space), space, 1.0, ("x", "y", "z"))[0] is None
    flat = algebra_for(inputs(50, 2), "affine")
    shift = torch.tensor([[[0.0, -0.02, 1.0], [0.02, 0.0, 0.5], [0.0, 0.0, 0.0]]], dtype=torch.float64)
    assert recognise(of(shift, flat), flat, 1.0, ("x", "y"))[0] is None
