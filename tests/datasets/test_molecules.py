"""QM9 and the UCI tables: small files of the same format, and the real ones where they are on disk."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bayesinv.data.container import as_data
from bayesinv.datasets import UCI_COLUMNS, qm9, toy_molecules, uci
from bayesinv.datasets.molecules import ATOMIC_MASSES, random_orientations
from bayesinv.errors import DataError

real = pytest.mark.skipif(
    not (Path(os.environ.get("BAYESINV_DATA", "-")) / "molecules").is_dir(),
    reason="BAYESINV_DATA does not name a folder with molecules",
)


@pytest.fixture
def folder(tmp_path):
    """60 random molecules of up to 6 atoms in the file's format, dipoles made from the positions."""
    generator = np.random.default_rng(0)
    z = generator.choice([1, 6, 7, 8], size=(60, 6)).astype(np.uint8)
    z[np.arange(6) >= generator.integers(3, 7, size=60)[:, None]] = 0
    pos = (generator.normal(size=(60, 6, 3)) * (z > 0)[..., None]).astype(np.float32)
    charge = np.where(z > 0, z - 4.0, 0.0)
    charge -= (z > 0) * charge.sum(1, keepdims=True) / (z > 0).sum(1, keepdims=True)  # neutral: no origin needed
    counts = np.stack([(z == k).sum(1) for k in ATOMIC_MASSES], 1)
    energy = counts @ np.array([-0.1, -0.5, -0.4, -0.3]) - 0.05 + 0.01 * generator.normal(size=60)
    (tmp_path / "molecules").mkdir()
    np.savez(
        tmp_path / "molecules" / "qm9_mp2_10k.npz",
        z=z,
        pos=pos,
        atomization_energy=energy,
        dipole=(charge[..., None] * pos).sum(1).astype(np.float32),
    )
    return tmp_path


def masses(x):
    mass = torch.zeros_like(x[..., 3])
    for number, value in ATOMIC_MASSES.items():
        mass[x[..., 3] == number] = value
    return mass


def test_shapes_and_the_centre_of_mass(folder):
    train, test = qm9(folder, num_train=40, num_test=20)
    assert train.x.shape == (40, 6, 4)
    assert (test.x.shape, test.y.shape) == ((20, 6, 4), (20, 1))
    assert train.y.dtype == torch.float64
    assert float((masses(train.x)[..., None] * train.x[..., :3]).sum(1).abs().max()) < 1e-3
    padded = train.x[..., 3] == 0
    assert bool(padded.any())
    assert float(train.x[padded].abs().max()) == 0.0
    as_data(train, "gaussian")


def test_random_orientations_turn_points_and_dipoles_together(folder):
    options = {"num_train": 30, "num_test": 30, "seed": 3, "target": "dipole"}
    straight, turned = qm9(folder, random_orientation=False, **options), qm9(folder, **options)
    for a, b in zip(straight, turned, strict=True):
        assert torch.allclose(
            torch.cdist(a.x[..., :3], a.x[..., :3]), torch.cdist(b.x[..., :3], b.x[..., :3]), atol=1e-3
        )
        assert float((a.x - b.x).abs().mean()) > 0.2
        assert torch.allclose(a.y.norm(dim=1), b.y.norm(dim=1), atol=1e-5)
        for data in (a, b):  # the dipole of the file's point charges, in whatever frame
            there = data.x[..., 3] > 0
            charge = torch.where(there, data.x[..., 3] - 4.0, 0.0)
            charge = charge - there * charge.sum(1, keepdim=True) / there.sum(1, keepdim=True)
            assert torch.allclose((charge[..., None] * data.x[..., :3]).sum(1).double(), data.y, atol=1e-4)


def test_what_composition_explains_is_removed_by_the_training_molecules_alone(folder):
    train, test = qm9(folder, num_train=45, num_test=15, remove_composition=True)
    assert float(train.y.std()) < 0.02  # the noise is 0.01
    assert float(train.y.mean().abs()) < 1e-9  # a least-squares fit with a constant
    assert float(test.y.abs().mean()) < 0.03
    assert float(qm9(folder, num_train=45, num_test=15).train.y.std()) > 0.2


def test_the_seed_alone_decides(folder):
    state = torch.random.get_rng_state()
    first, second, other = (qm9(folder, num_train=30, num_test=10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.train.x, second.train.x)
    assert not torch.equal(first.train.y, other.train.y)
    file = folder / "molecules" / "qm9_mp2_10k.npz"
    assert torch.equal(qm9(file, num_train=30, num_test=10, seed=1).train.x, first.train.x)


def test_orientations_are_uniform():
    R = random_orientations(20_000, torch.Generator().manual_seed(0))
    assert torch.allclose(torch.linalg.det(R), torch.ones(20_000, dtype=torch.float64))
    assert float(R.mean(0).abs().max()) < 4 / np.sqrt(3 * 20_000)
    trace = R.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert float(trace.square().mean()) == pytest.approx(1.0, abs=0.05)
    assert float(trace.pow(3).mean()) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "homo"}, "target: expected one of atomization_energy, dipole"),
        ({"target": "dipole", "remove_composition": True}, "numbers of atoms explain energies"),
        ({"num_train": 0}, "num_train is 0"),
        ({"num_train": 50, "num_test": 50}, "60 together"),
    ],
)
def test_arguments_of_qm9(options, message, folder):
    with pytest.raises(ValueError, match=message):
        qm9(folder, **{"num_train": 30, "num_test": 10, **options})


def test_files_that_are_not_molecules(tmp_path, folder):
    with pytest.raises(DataError, match="Nothing is downloaded"):
        qm9(tmp_path / "elsewhere")
    np.savez(tmp_path / "other.npz", z=np.zeros((3, 2), dtype=np.uint8))
    with pytest.raises(DataError, match="not a file of molecules"):
        qm9(tmp_path / "other.npz")
    z = np.full((3, 2), 9, dtype=np.uint8)
    np.savez(tmp_path / "fluorine.npz", z=z, pos=np.zeros((3, 2, 3)), atomization_energy=np.zeros(3))
    with pytest.raises(DataError, match=r"holds elements \[9\]"):
        qm9(tmp_path / "fluorine.npz")
    np.savez(tmp_path / "flat.npz", z=z, pos=np.zeros((3, 2)), atomization_energy=np.zeros(3))
    with pytest.raises(DataError, match=r"expected \(n, atoms\) and \(n, atoms, 3\)"):
        qm9(tmp_path / "flat.npz")


def test_toy_molecules_have_the_symmetries_that_they_are_said_to_have():
    straight, turned = (
        toy_molecules(num_train=40, num_test=5, random_orientation=turn).train for turn in (False, True)
    )
    assert torch.allclose(straight.y, turned.y, atol=1e-12)
    assert float((straight.x - turned.x).abs().max()) > 0.5
    assert float(turned.x[..., :3].sum(1).abs().max()) < 1e-5  # about the mean of the atoms
    dipoles = [toy_molecules("dipole", 40, 5, random_orientation=turn).train for turn in (False, True)]
    lengths = [data.y.norm(dim=1) for data in dipoles]
    assert torch.allclose(*lengths)
    # the rotation that turns the points, found by least squares, turns the dipole
    for i in range(40):
        a, b = (data.x[i, :, :3].double() for data in dipoles)
        u, _, v = torch.linalg.svd(a.T @ b)
        if torch.linalg.matrix_rank(a, atol=1e-2) == 3:
            assert torch.allclose(dipoles[0].y[i] @ u @ v, dipoles[1].y[i], atol=1e-4)
    energy = straight.y[:, 0]
    assert float(energy.std()) > 0.5
    again = toy_molecules(num_train=40, num_test=5)
    assert torch.equal(again.train.x, turned.x)
    assert not torch.equal(toy_molecules(num_train=40, num_test=5, seed=1).train.x, turned.x)
    as_data(again.train, "gaussian")


def test_toy_energies_are_sums_over_pairs():
    train, _ = toy_molecules(num_train=20, num_test=1)
    s = {0: 0.0, 1: 0.5, 6: 1.0, 7: 0.9, 8: 0.8}
    for x, y in zip(train.x.double(), train.y[:, 0], strict=True):
        total = 0.0
        for a in range(6):
            for b in range(a):
                square = float((x[a, :3] - x[b, :3]).square().sum())
                total -= s[int(x[a, 3])] * s[int(x[b, 3])] * np.exp(-square / 4.5)
        assert total == pytest.approx(float(y), abs=1e-5)


@pytest.mark.parametrize("wrong", [{"target": "homo"}, {"num_train": 0}, {"num_test": -1}])
def test_arguments_of_toy_molecules(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        toy_molecules(**wrong)


@pytest.fixture
def tables(tmp_path):
    """A yacht table of 20 rows, each a test row of one of ten splits; its second column is constant."""
    generator = np.random.default_rng(1)
    table = generator.normal(size=(20, 7)) * 5 + 3
    table[:, 1] = 2.0
    where = tmp_path / "uci" / "yacht"
    where.mkdir(parents=True)
    for name, array in (("data", table), ("test_mask", np.arange(20)[:, None] % 10 == np.arange(10))):
        with gzip.open(where / f"{name}.csv.gz", "wt") as file:
            np.savetxt(file, array.astype(float), delimiter=",")
    return tmp_path, table


def test_splits_of_a_table(tables):
    folder, table = tables
    seen = []
    for k in range(10):
        train, test = uci("yacht", split=k, root=folder)
        assert (len(train), len(test)) == (18, 2)
        moving = [0, 2, 3, 4, 5]
        assert torch.allclose(train.x.mean(0)[moving], torch.zeros(5), atol=1e-5)
        assert torch.allclose(train.x.std(0)[moving], torch.ones(5), atol=1e-5)
        assert float(train.x[:, 1].abs().max()) == 0.0
        seen += test.y[:, 0].tolist()
    assert sorted(seen) == pytest.approx(sorted(table[:, -1]))


def test_arguments_and_files_of_uci(tables, tmp_path):
    folder, _ = tables
    with pytest.raises(ValueError, match="name: expected one of yacht, energy, concrete, got 'boston'"):
        uci("boston", root=folder)
    with pytest.raises(ValueError, match=r"split is 10; expected 0\.\.9"):
        uci("yacht", split=10, root=folder)
    with pytest.raises(DataError, match="Nothing is downloaded"):
        uci("energy", root=folder)
    with gzip.open(folder / "uci" / "yacht" / "data.csv.gz", "wt") as file:
        file.write("1,2\n3,4\n")
    with pytest.raises(DataError, match="expected 6 inputs and a target"):
        uci("yacht", root=folder)
    with gzip.open(folder / "uci" / "yacht" / "data.csv.gz", "wt") as file:
        file.write("a,b\n")
    with pytest.raises(DataError, match="not a table of numbers"):
        uci("yacht", root=folder)


@real
def test_the_real_molecules():
    train, test = qm9(num_train=500, num_test=500)
    assert train.x.shape == (500, 29, 4)
    assert float(train.y.mean()) == pytest.approx(-2.92, abs=0.1)
    assert float(train.y.std()) == pytest.approx(0.395, abs=0.05)
    left = qm9(num_train=500, num_test=500, remove_composition=True)
    assert float(left.test.y.std()) == pytest.approx(0.039, abs=0.008)
    distances = torch.cdist(test.x[..., :3], test.x[..., :3])
    there = test.x[..., 3] > 0
    pairs = (there[:, :, None] & there[:, None]) & ~torch.eye(29, dtype=torch.bool)
    assert float(distances[pairs].min()) > 0.9


@real
@pytest.mark.parametrize("name", UCI_COLUMNS)
def test_the_real_tables(name):
    rows = {"yacht": 308, "energy": 768, "concrete": 1030}[name]
    train, test = uci(name)
    assert len(train) + len(test) == rows
    assert train.x.shape[1] == len(UCI_COLUMNS[name])
