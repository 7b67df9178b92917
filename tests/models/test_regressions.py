"""The regressions with a Gaussian process, from end to end on small stand-ins for the data."""

import gzip
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bayesinv
from bayesinv.data.container import Data
from models import molecule_energy, uci_tables
from models.regression import regression_scores

MOLECULES = ["--num-train", "30", "--num-test", "10", "--num-orbit-samples", "3", "--num-inducing", "10"]
TABLES = ["--table", "yacht", "--num-orbit-samples", "3", "--num-inducing", "10"]
SHORT = ["--max-steps", "6", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 random molecules whose energies are sums over pairs, and a table of 40 rows."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    z = generator.choice([1, 6, 7, 8], size=(40, 5)).astype(np.uint8)
    z[np.arange(5) >= generator.integers(3, 6, size=40)[:, None]] = 0
    pos = (1.5 * generator.normal(size=(40, 5, 3)) * (z > 0)[..., None]).astype(np.float32)
    apart = np.linalg.norm(pos[:, :, None] - pos[:, None], axis=-1)
    pairs = (z[:, :, None] > 0) & (z[:, None] > 0)
    (folder / "molecules").mkdir()
    np.savez(
        folder / "molecules" / "qm9_mp2_10k.npz",
        z=z,
        pos=pos,
        atomization_energy=-0.01 * (np.exp(-apart) * pairs).sum((1, 2)),
        dipole=np.zeros((40, 3), dtype=np.float32),
    )
    table = generator.normal(size=(40, 7))
    table[:, -1] = np.sin(table[:, 0])
    where = folder / "uci" / "yacht"
    where.mkdir(parents=True)
    for name, array in (("data", table), ("test_mask", np.arange(40)[:, None] % 10 == np.arange(10))):
        with gzip.open(where / f"{name}.csv.gz", "wt") as file:
            np.savetxt(file, array.astype(float), delimiter=",")
    return folder


# converging takes longer than a test may; the scripts print the warnings
pytestmark = pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning", "ignore:Pareto k")


def run(script, folder, *options):
    size = MOLECULES if script is molecule_energy else TABLES
    return script.main([*size, *SHORT, "--root", str(folder), *map(str, options)])


def test_the_density_is_the_sum_over_atoms_at_every_point_of_the_grid():
    x = torch.randn(3, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[..., 3] = torch.tensor([[6, 1, 1, 8, 0, 0], [7, 7, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    got = molecule_energy.SmearedDensity(ticks=3, spacing=2.0, width=0.9)(x)
    grid = torch.cartesian_prod(*[torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)] * 3)
    for i in range(3):
        # the order of axes in the features: element, z, x, y
        expected = {
            (e, *map(float, g)): sum(
                float(torch.exp(-(atom[:3] - g).square().sum() / (2 * 0.9**2))) for atom in x[i] if atom[3] == number
            )
            for e, number in enumerate(molecule_energy.ELEMENTS)
            for g in grid
        }
        cells = [
            (e, a, b, c) for e in range(4) for c in (-2.0, 0.0, 2.0) for a in (-2.0, 0.0, 2.0) for b in (-2.0, 0.0, 2.0)
        ]
        assert got[i].tolist() == pytest.approx([expected[cell] for cell in cells], abs=1e-12)


def test_nothing_in_the_density_is_invariant_but_the_order_of_atoms():
    x = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
    x[..., 3] = torch.tensor([6, 6, 8, 1, 1])
    phi = molecule_energy.SmearedDensity()
    assert torch.allclose(phi(x[:, [1, 0, 2, 4, 3]]), phi(x), atol=1e-6)
    for transform in (*molecule_energy.candidates("axes").transforms,):
        moved = transform(x, torch.tensor([[0.3]]))
        assert float((phi(moved) - phi(x)).abs().max()) > 0.01
    assert phi(torch.zeros(2, 29, 4)).abs().max() == 0  # padding alone has no density


@pytest.mark.parametrize(
    ("rotations", "names"),
    [
        ("axes", ("rotation_x", "rotation_y", "rotation_z", "scale")),
        ("vector", ("rotation_x", "rotation_y", "rotation_z", "scale")),
        ("so3", ("rotation", "scale")),
    ],
)
def test_build_molecules(rotations, names, folder):
    model, train, test = molecule_energy.build(30, 10, rotations, root=folder, num_inducing=10, num_orbit_samples=3)
    assert model.symmetries == model.active == names
    assert model.evidence_name == "gaussian"
    assert (train.x.shape, test.x.shape) == ((30, 5, 4), (10, 5, 4))
    truth = molecule_energy.true_extents(rotations)
    assert set(truth) == set(names) - {"scale"}
    assert set(truth.values()) == {math.radians(132) if rotations == "vector" else math.pi}
    with pytest.raises(ValueError, match="rotations: expected one of so3, vector, axes"):
        molecule_energy.candidates("euler")


def test_build_tables(folder):
    model, train, test = uci_tables.build("yacht", 3, root=folder, num_inducing=10)
    assert model.active == tuple(f"shift_{column}" for column in bayesinv.datasets.UCI_COLUMNS["yacht"])
    assert (len(train), len(test)) == (36, 4)


@pytest.mark.parametrize(("script", "num"), [(molecule_energy, (30, 10)), (uci_tables, (36, 4))])
def test_scripts_write_what_they_print(script, num, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(script, folder, "--out", out) == 0
    printed = capsys.readouterr().out
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert (found["num_train"], found["num_test"]) == num
    assert f"mean absolute error {found['mae']:.3g} {found['unit']}" in printed
    assert 0 < found["mae"] <= found["rmse"]
    for extent in found["extents"].values():
        assert 0 <= extent["lower"] <= extent["median"] <= extent["upper"]
    assert found["inclusion"] is None
    with Image.open(out / "extents.png") as picture:
        assert min(picture.size) > 300
    with pytest.raises(SystemExit):
        run(script, folder, "--out", out)
    assert "add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("inference", ["fixed", "none"])
def test_extents_that_are_given(inference, folder, tmp_path):
    assert run(molecule_energy, folder, "--inference", inference, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    turn = math.pi if inference == "fixed" else 0.0
    medians = {name: extent["median"] for name, extent in found["extents"].items()}
    assert medians == pytest.approx({"rotation": turn, "scale": 0.0})


def test_tables_without_shifts(folder, capsys):
    assert run(uci_tables, folder, "--inference", "none") == 0
    assert re.search(r"none, \d+ steps", capsys.readouterr().out)


@pytest.mark.filterwarnings("ignore")  # of a search at a size at which nothing converges
def test_inclusion_is_reported(folder, tmp_path, capsys):
    assert run(molecule_energy, folder, "--select", "--out", tmp_path) == 0
    inclusion = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["inclusion"]
    assert set(inclusion) == {"rotation", "scale"}
    assert all(0 <= row["probability"] <= 1 for row in inclusion.values())
    assert f"{inclusion['rotation']['probability']:.3f}" in capsys.readouterr().out


def test_scores_are_those_of_a_normal_density(folder):
    model, train, test = molecule_energy.build(
        30, 10, priors=dict.fromkeys(molecule_energy.candidates().names), root=folder
    )
    posterior = bayesinv.fit(model, train, max_steps=5, device="cpu")
    predicted = posterior.predict(test.x)
    scores = regression_scores(posterior, test, scale=2.0)
    density = torch.distributions.Normal(2 * predicted.mean, 2 * predicted.variance.sqrt())
    assert scores.log_loss == pytest.approx(-float(density.log_prob(2 * test.y).mean()))
    assert scores.mae == pytest.approx(2 * float((predicted.mean - test.y).abs().mean()))
    with pytest.raises(TypeError, match="expected a regression"):
        labels = Data(test.x, torch.tensor([0, 1] * 5), num_classes=2)
        classes = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_inducing=4), molecule_energy.candidates())
        regression_scores(bayesinv.fit(classes, labels, max_steps=2, num_draws=25, device="cpu"), labels)


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (molecule_energy, ["--rotations", "euler"], "invalid choice: 'euler'"),
        (molecule_energy, ["--num-train", "100"], "num_train is 100"),
        (molecule_energy, ["--inference", "augerino"], "invalid choice: 'augerino'"),
        (uci_tables, ["--split", "10"], "invalid choice: 10"),
        (uci_tables, ["--table", "energy"], "Nothing is downloaded"),
        (uci_tables, ["--inference", "fixed"], "invalid choice: 'fixed'"),
    ],
)
def test_wrong_arguments_end_with_the_cure(script, options, message, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        run(script, folder, *options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("script", [molecule_energy, uci_tables], ids=lambda script: script.__name__)
def test_as_a_program_from_another_folder(script, folder, tmp_path):
    size = MOLECULES if script is molecule_energy else TABLES
    finished = subprocess.run(
        [sys.executable, str(Path(script.__file__).resolve()), *size, *SHORT, "--root", str(folder), "--out", "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out" / "results.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(os.environ.get("BAYESINV_DATA", "-")) / "molecules").is_dir(),
    reason="BAYESINV_DATA does not name a folder with molecules",
)
def test_rotations_lower_the_error_on_real_molecules():
    """Extents fixed at the truth against none, at a size that takes seconds."""
    errors, evidence = {}, {}
    names = molecule_energy.candidates().names
    truth = molecule_energy.true_extents()
    for label, priors in (("none", dict.fromkeys(names)), ("fixed", {name: truth.get(name) for name in names})):
        model, train, test = molecule_energy.build(250, 500, priors=priors, num_inducing=100)
        posterior = bayesinv.fit(model, train, max_steps=50, device="cpu")
        errors[label] = regression_scores(posterior, test, molecule_energy.KCAL_PER_HARTREE).mae
        evidence[label] = posterior.log_evidence
    assert errors["fixed"] < 0.9 * errors["none"]
    assert evidence["fixed"] > evidence["none"] + 50
