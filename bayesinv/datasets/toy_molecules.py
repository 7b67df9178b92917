"""Small made-up molecules whose energy and dipole are known functions: no file is needed."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.datasets.molecules import QM9_TARGETS, random_orientations
from bayesinv.datasets.split import Split

__all__ = ["toy_molecules"]

NUM_ATOMS = (3, 6)  # the fewest and the most
BONDS = (1.1, 1.8)  # Å, one length a molecule: if all were as large, nothing would speak against a change of scale
# By atomic number: how strongly an atom binds, and its share of charge.
STRENGTH = {1: 0.5, 6: 1.0, 7: 0.9, 8: 0.8}
CHARGE = {1: 0.3, 6: 0.0, 7: -0.3, 8: -0.6}


def toy_molecules(
    target: str = "atomization_energy",
    num_train: int = 200,
    num_test: int = 200,
    seed: int = 0,
    random_orientation: bool = True,
) -> Split:
    """Chains of 3 to 6 atoms with random bends, each in a random orientation.

        energy = −Σ_{a<b} s_a s_b exp(−r_ab² / 2·1.5²),      dipole = Σ_a q_a (r_a − r̄)

    in units of their own, with s and q by element. Both depend on the structure, the energy through distances alone:
    it is invariant under rotations, reflections and translations, the dipole turns with the molecule, and neither
    survives a change of scale.

    Args:
        target: "atomization_energy" (a column) or "dipole" (three columns).
        num_train, num_test: molecules.
        seed: of everything.
        random_orientation: False starts every chain along the x axis.

    Returns:
        The split, in the layout of `qm9`: x is (n, 6, 4), float32, coordinates in ångström about their mean and the
        atomic number, rows of zeros behind the last atom; y is (n, 1) or (n, 3), float64.

    Raises:
        ValueError: an unknown target, or a number below 1.

    Example:
        >>> train, test = toy_molecules(num_train=50, num_test=20)
        >>> train.x.shape, train.y.shape
        (torch.Size([50, 6, 4]), torch.Size([50, 1]))
    """
    if target not in QM9_TARGETS:
        raise ValueError(f"target: expected one of {', '.join(QM9_TARGETS)}, got {target!r}")
    for name, num in (("num_train", num_train), ("num_test", num_test)):
        if num < 1:
            raise ValueError(f"{name} is {num}; expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    total = num_train + num_test
    z, points = _chains(total, generator)
    there = (z > 0).double()[..., None]
    points = (points - (points * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)) * there
    if random_orientation:
        points = torch.einsum("nij,naj->nai", random_orientations(total, generator), points)
    y = _energy(z, points) if target == "atomization_energy" else _dipole(z, points)
    x = torch.cat([points, z[..., None]], -1).float()
    return Split(Data(x[:num_train], y[:num_train]), Data(x[num_train:], y[num_train:]))


def _chains(num: int, generator: torch.Generator) -> tuple[Float[Tensor, "num atoms"], Float[Tensor, "num atoms 3"]]:
    """Atomic numbers, 0 to pad, and positions: steps of a bond, each bent away from the last by up to 110°."""
    fewest, most = NUM_ATOMS
    elements = torch.tensor(list(STRENGTH), dtype=torch.float64)
    z = elements[torch.randint(len(elements), (num, most), generator=generator)]
    sizes = torch.randint(fewest, most + 1, (num, 1), generator=generator)
    z = torch.where(torch.arange(most) < sizes, z, 0.0)
    shortest, longest = BONDS
    bond = shortest + (longest - shortest) * torch.rand(num, 1, generator=generator, dtype=torch.float64)
    points = torch.zeros(num, most, 3, dtype=torch.float64)
    direction = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(num, 3)
    for a in range(1, most):
        points[:, a] = points[:, a - 1] + bond * direction
        sideways = torch.randn(num, 3, generator=generator, dtype=torch.float64)
        sideways = sideways - (sideways * direction).sum(1, keepdim=True) * direction
        sideways = sideways / sideways.norm(dim=1, keepdim=True)
        bend = math.radians(110) * torch.rand(num, 1, generator=generator, dtype=torch.float64)
        direction = bend.cos() * direction + bend.sin() * sideways
    return z, points


def _by_element(z: Tensor, table: dict[int, float]) -> Tensor:
    """A number for each atom, zero for padding."""
    values = torch.zeros_like(z)
    for number, value in table.items():
        values = torch.where(z == number, value, values)
    return values


def _energy(z: Float[Tensor, "n atoms"], points: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n 1"]:
    s = _by_element(z, STRENGTH)
    pairs = s[:, :, None] * s[:, None] * torch.exp(-torch.cdist(points, points).square() / 4.5)
    return -torch.triu(pairs, diagonal=1).sum((1, 2))[:, None]


def _dipole(z: Float[Tensor, "n atoms"], points: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n 3"]:
    return (_by_element(z, CHARGE)[..., None] * points).sum(1)
