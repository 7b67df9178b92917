"""Molecules of the QM9 set with energies and dipoles, where they are on disk."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.datasets.split import Split, choose, data_root
from bayesinv.errors import DataError

__all__ = ["ATOMIC_MASSES", "QM9_TARGETS", "composition_part", "qm9", "random_orientations"]

FILE = Path("molecules") / "qm9_mp2_10k.npz"
QM9_TARGETS = ("atomization_energy", "dipole")

ATOMIC_MASSES = {1: 1.008, 6: 12.011, 7: 14.007, 8: 15.999}
"""By atomic number, of the elements that occur; in unified atomic mass units."""


def qm9(
    root: str | Path | None = None,
    target: str = "atomization_energy",
    num_train: int = 1000,
    num_test: int = 1000,
    seed: int = 0,
    random_orientation: bool = True,
    remove_composition: bool = False,
) -> Split:
    """A random part of 10,000 QM9 molecules, each turned by a rotation of its own.

        x_i ← R_i (x_i − centre of mass),    R_i uniform on SO(3)

    The file's molecules lie in a frame that the program which optimised them has chosen, not at random; with
    ``random_orientation`` the truth is that the energy is invariant, and the dipole equivariant, under all of SO(3).

    Args:
        root: folder with molecules/qm9_mp2_10k.npz inside, or that file; None takes `data_root()`.
        target: "atomization_energy" (RI-MP2, hartree, a column), or "dipole" (three columns, atomic units e·a₀, which
            turn with the molecule).
        num_train, num_test: molecules, out of 10,000 together.
        seed: of the choice and of the orientations.
        random_orientation: False keeps the file's frames.
        remove_composition: subtract the least-squares fit on the numbers of atoms of each element, made on the training
            molecules, from both targets: what is left (sd .04 hartree) is about structure. For energies.

    Returns:
        The split; x is (n, 29, 4), float32: coordinates in ångström and the atomic number, rows of zeros behind the
        last atom. y is (n, 1) or (n, 3), float64.

    Raises:
        DataError: the file is not there, or not of this format.
        ValueError: an argument out of its range.

    Reference:
        R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld (2014). Quantum chemistry structures and properties
        of 134 kilo molecules. Scientific Data 1, 140022.

    Example:
        >>> from bayesinv.datasets import qm9
        >>> train, test = qm9(num_train=1000)  # doctest: +SKIP
    """
    if target not in QM9_TARGETS:
        raise ValueError(f"target: expected one of {', '.join(QM9_TARGETS)}, got {target!r}")
    if remove_composition and target != "atomization_energy":
        raise ValueError("remove_composition: numbers of atoms explain energies, not dipoles; leave it out")
    folder = data_root() if root is None else Path(root)
    file = folder if folder.suffix == ".npz" else folder / FILE
    stored = _read(file, target)
    generator = torch.Generator().manual_seed(seed)
    z = torch.from_numpy(stored["z"]).float()  # (10000, 29)
    total = len(z)
    for name, num in (("num_train", num_train), ("num_test", num_test)):
        if num < 1 or num_train + num_test > total:
            raise ValueError(f"{name} is {num}; expected at least 1 each and {total} together")
    index = choose(num_train + num_test, total, "num_train + num_test", generator)
    z, y = z[index], torch.from_numpy(stored[target])[index].double().reshape(len(index), -1)
    points = _centred(torch.from_numpy(stored["pos"])[index].float(), z)
    if random_orientation:
        R = random_orientations(len(index), generator)
        points = torch.einsum("nij,naj->nai", R.float(), points)
        y = torch.einsum("nij,nj->ni", R, y) if target == "dipole" else y
    if remove_composition:
        y = y - composition_part(z, y, num_train)
    x = torch.cat([points, z[..., None]], -1)
    return Split(Data(x[:num_train], y[:num_train]), Data(x[num_train:], y[num_train:]))


def random_orientations(num: int, generator: torch.Generator) -> Float[Tensor, "num 3 3"]:
    """Rotations uniform on SO(3): unit quaternions with the direction of a normal vector (Shoemake, 1992).

    Example:
        >>> R = random_orientations(5, torch.Generator().manual_seed(0))
        >>> bool((R @ R.mT - torch.eye(3)).abs().max() < 1e-12)
        True
    """
    q = torch.randn(num, 4, generator=generator, dtype=torch.float64)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(rows, 1).unflatten(1, (3, 3))


def composition_part(
    z: Float[Tensor, "n atoms"], y: Float[Tensor, "n outputs"], num_train: int
) -> Float[Tensor, "n outputs"]:
    """The least-squares fit of y on the numbers of atoms of each element, made on the first ``num_train`` rows."""
    counts = [(z == number).sum(1) for number in ATOMIC_MASSES]
    design = torch.stack([*counts, torch.ones(len(z))], 1).to(y.dtype)
    # "gelsd" takes designs without full rank: a few molecules may lack an element.
    return design @ torch.linalg.lstsq(design[:num_train], y[:num_train], driver="gelsd").solution


def _centred(points: Float[Tensor, "n atoms 3"], z: Float[Tensor, "n atoms"]) -> Float[Tensor, "n atoms 3"]:
    """The centre of mass at the origin, padded rows left there."""
    mass = torch.zeros_like(z)
    for number, value in ATOMIC_MASSES.items():
        mass = torch.where(z == number, value, mass)
    centre = (mass[..., None] * points).sum(1) / mass.sum(1, keepdim=True)
    return (points - centre[:, None]) * (z > 0)[..., None]


def _read(file: Path, target: str) -> dict[str, np.ndarray]:
    """The arrays that are needed, checked."""
    if not file.is_file():
        raise DataError(f"there is no file {file}; expected molecules/qm9_mp2_10k.npz. Nothing is downloaded.")
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("z", "pos", target)}
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is not a file of molecules with z, pos and {target}: {error}") from error
    z, pos = arrays["z"], arrays["pos"]
    if z.ndim != 2 or pos.shape != (*z.shape, 3) or len(arrays[target]) != len(z):
        raise DataError(f"{file}: z is {z.shape} and pos {pos.shape}; expected (n, atoms) and (n, atoms, 3)")
    unknown = sorted(set(np.unique(z).tolist()) - {0, *ATOMIC_MASSES})
    if unknown:
        raise DataError(f"{file} holds elements {unknown}; expected atomic numbers {sorted(ATOMIC_MASSES)}, 0 to pad")
    return arrays
