"""What a found subalgebra is called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.discovery.algebra import Algebra
from bayesinv.discovery.subspaces import angles, orthonormal

__all__ = ["Named", "recognise"]

SMALLEST_ANGLE = 5.0  # degrees within which a subspace is taken for a known one, whatever its cone
_ABOVE_NOISE = 5.0  # times the cone's sine that the matrix of (A, b) has to be, or it is a translation with noise
_PRESERVED = 0.1  # relative change of a quadratic form that still counts as none
_IMAGES = {
    "rotation": [[0, 1, 0], [-1, 0, 0]],
    "scaling": [[1, 0, 0], [0, 1, 0]],
    "translation x": [[0, 0, 1], [0, 0, 0]],
    "translation y": [[0, 0, 0], [0, 0, 1]],
    "scaling x": [[1, 0, 0], [0, 0, 0]],
    "scaling y": [[0, 0, 0], [0, 1, 0]],
    "shear of rows": [[0, 1, 0], [0, 0, 0]],
    "shear of columns": [[0, 0, 0], [1, 0, 0]],
}


class Named:
    """A known subalgebra.

    Attributes:
        name: such as "so(3)".
        parts: the name of each generator.
        V: these generators in the coordinates of the algebra, orthonormal, (p, k).
    """

    def __init__(self, name: str, parts: Sequence[str], matrices: Float[Tensor, "k size size"], algebra: Algebra):
        self.name, self.parts = name, tuple(parts)
        coordinates = torch.einsum("kij,pij->pk", matrices, algebra.matrices)
        self.inside = torch.allclose(coordinates.square().sum(0), matrices.square().sum((-2, -1)), rtol=1e-6)
        self.V = orthonormal(coordinates) if self.inside else coordinates


def recognise(
    V: Float[Tensor, "p k"], algebra: Algebra, cone: float, axes: Sequence[str]
) -> tuple[str | None, tuple[str, ...], Float[Tensor, "p k"]]:
    """The name of a subalgebra, those of its generators, and a basis of it that lines up with the known one.

    Args:
        V: orthonormal, (p, k).
        algebra: where it lies.
        cone: degrees within which 90 % of the posterior are; a known subalgebra within it (or within 5°) is taken.
        axes: names of the coordinates.

    Returns:
        (None, ("generator 1", ...), V) where nothing known is near. "so(p,q), other coordinates" where V keeps a
        quadratic form that is not a sum of squares of these coordinates.
    """
    k = V.shape[1]
    found = [(float(angles(V, n.V).max()), n) for n in _known(algebra, axes) if n.V.shape[1] == k]
    near = min(found, key=lambda pair: pair[0], default=None)
    if near is not None and near[0] <= max(cone, SMALLEST_ANGLE):
        U, _, Wh = torch.linalg.svd(V.mT @ near[1].V)  # the rotation of V that lines up best
        return near[1].name, near[1].parts, V @ (U @ Wh)
    G = algebra.at(V)
    parts = tuple(f"generator {i + 1}" for i in range(k))
    if k == 1:
        rotation = _rotation(G[0], algebra, cone, axes)
        if rotation is not None:
            return rotation[0], (rotation[1],), V
    return _of_a_form(G, algebra), parts, V


def _rotation(
    G: Float[Tensor, "size size"], algebra: Algebra, cone: float, axes: Sequence[str]
) -> tuple[str, str] | None:
    """Group and name of one generator that rotates, in a plane that is not one of two axes, or about a centre."""
    d = algebra.num_axes
    A = G[:d, :d]
    noise, near = (math.sin(math.radians(angle)) for angle in (cone, SMALLEST_ANGLE))
    size = float(A.norm())
    # The translations take their share of |G| = 1: what is left of A has to be more than noise.
    if size <= _ABOVE_NOISE * noise or float((A + A.mT).norm()) >= 2.0 * max(noise, near * size):
        return None
    if algebra.kind == "linear":
        return "so(2), other coordinates", "rotation"
    K, b = 0.5 * (A - A.mT), G[:d, d]
    centre = -torch.linalg.pinv(K, rtol=max(noise / size, near)) @ b
    if float((K @ centre + b).norm()) > max(noise, near):
        return None  # it moves along its axis as well
    i, j = max(combinations(range(d), 2), key=lambda pair: abs(float(K[pair])))
    if d > 2 and math.sqrt(2.0) * abs(float(K[i, j])) < math.cos(math.asin(max(noise, near))) * float(K.norm()):
        return "so(2), other coordinates", "rotation"
    numbers = ", ".join(f"{value + 0.0:.3g}" for value in (algebra.scale * centre[[i, j]]).tolist())
    plane = "" if algebra.kind == "image" else f" {axes[i]}-{axes[j]}"
    return "so(2)" if d == 2 else f"so(2) of {axes[i]}, {axes[j]}", f"rotation{plane} about ({numbers})"


def _known(algebra: Algebra, axes: Sequence[str]) -> list[Named]:
    size = algebra.matrices.shape[-1]

    def matrix(*entries: tuple[int, int, float]) -> Tensor:
        A = torch.zeros(size, size, dtype=torch.float64)
        for i, j, value in entries:
            A[i, j] = value
        return A

    if algebra.kind == "image":
        known = []
        for name, rows in _IMAGES.items():
            A = torch.zeros(3, 3, dtype=torch.float64)
            A[:2] = torch.tensor(rows, dtype=torch.float64)
            known.append(Named(name, (name,), A[None], algebra))
        both = ("translation x", "translation y")
        known.append(Named("translations", both, torch.stack([matrix((0, 2, 1.0)), matrix((1, 2, 1.0))]), algebra))
        return [n for n in known if n.inside]
    d = algebra.num_axes
    known = []
    for number in range(2, d + 1):  # so(p, q) of every choice of axes, the time axes first
        for chosen in combinations(range(d), number):
            for q in range(number // 2 + 1):
                for time in combinations(chosen, q):
                    if number == 2 * q and time and time[0] != chosen[0]:
                        continue  # so(q, q) of the same axes again
                    pairs = list(combinations(chosen, 2))
                    mixed = [(i in time) != (j in time) for i, j in pairs]
                    G = [matrix((i, j, -1.0 + 2.0 * m), (j, i, 1.0)) for (i, j), m in zip(pairs, mixed, strict=True)]
                    words = [
                        f"{'boost' if m else 'rotation'} {axes[i]}-{axes[j]}"
                        for (i, j), m in zip(pairs, mixed, strict=True)
                    ]
                    group = f"so({q},{number - q})" if q else f"so({number})"
                    where = "" if number == d else f" of {', '.join(axes[i] for i in chosen)}"
                    known.append(Named(group + where, words, torch.stack(G), algebra))
    known.append(Named("scaling", ("scaling",), torch.stack([matrix(*[(i, i, 1.0) for i in range(d)])]), algebra))
    for i in range(d):
        known.append(Named(f"scaling of {axes[i]}", (f"scaling of {axes[i]}",), matrix((i, i, 1.0))[None], algebra))
        own = range(d + (algebra.kind == "affine"))
        words = [f"{axes[i]} + {axes[j] if j < d else '1'}" for j in own]
        known.append(
            Named(f"{axes[i]} does not count", words, torch.stack([matrix((i, j, 1.0)) for j in own]), algebra)
        )
    if algebra.kind == "affine":
        shifts = [matrix((i, d, 1.0)) for i in range(d)]
        words = [f"translation {axis}" for axis in axes]
        for number in range(1, d + 1):
            for chosen in combinations(range(d), number):
                name = words[chosen[0]] if number == 1 else f"translations of {', '.join(axes[i] for i in chosen)}"
                known.append(Named(name, [words[i] for i in chosen], torch.stack([shifts[i] for i in chosen]), algebra))
    return [n for n in known if n.inside]


def _of_a_form(G: Float[Tensor, "k size size"], algebra: Algebra) -> str | None:
    """ "so(p,q), other coordinates" if the generators are all that keep a quadratic form Q: AᵀQ + QA = 0."""
    d, k = algebra.num_axes, len(G)
    if algebra.kind != "linear" or d < 2 or k != d * (d - 1) // 2:
        return None
    pairs = list(combinations(range(d), 2))
    basis = torch.zeros(d * (d + 1) // 2, d, d, dtype=G.dtype)
    for m in range(d):
        basis[m, m, m] = 1.0
    for m, (i, j) in enumerate(pairs):
        basis[d + m, i, j] = basis[d + m, j, i] = 0.5**0.5
    change = torch.einsum("kji,mjl->mkil", G, basis) + torch.einsum("mij,kjl->mkil", basis, G)
    _, s, Vh = torch.linalg.svd(change.flatten(1).mT, full_matrices=True)
    if float(s[-1]) > _PRESERVED * float(s[0]):
        return None
    w = torch.linalg.eigvalsh(torch.einsum("m,mij->ij", Vh[-1], basis))
    if float(w.abs().min()) < 0.02 * float(w.abs().max()):
        return None
    q = min(int((w < 0).sum()), int((w > 0).sum()))
    return f"so({q},{d - q}), other coordinates" if q else f"so({d}), other coordinates"
