"""`make calibration` at its small size: every case runs, writes its table, and a second call repeats nothing."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


def script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield script
    for name in ("calibration", "evidence_agreement", "coverage_table", "softmax_referee", "feature_error", "common"):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_case_writes_its_table_and_goes_on(scripts, tmp_path, capsys):
    calibration = scripts("calibration")
    # Seed 1: both teachers give labels of several classes.
    arguments = ["--size", "small", "--seed", "1", "--jobs", "1", "--out", str(tmp_path)]
    calibration.main(arguments)
    written = capsys.readouterr().out
    for name in calibration.CASES:
        text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        assert "| rotation |" in text and "90 % interval" in text
        assert f"{name}: " in written
    for name in ("laplace", "laplace_other_teacher"):
        assert "weights and scales refitted" in (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("simulation_*.json")}
    assert len(kept) == 2 * len(calibration.CASES)
    calibration.main(arguments)
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("simulation_*.json")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_evidence_table_goes_on(scripts, tmp_path):
    module = scripts("evidence_agreement")
    size = ["--num-train", "20", "--max-steps", "15", "--num-draws", "40", "--seeds", "0", "--out", str(tmp_path)]
    module.main(size)
    text = (tmp_path / "evidence.md").read_text(encoding="utf-8")
    assert "| gaussian | 0 |" in text and "| dirichlet | 0 |" in text
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "evidence").iterdir()}
    assert len(kept) == 2
    module.main(size)
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "evidence").iterdir()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_coverage_table_goes_on(scripts, tmp_path, capsys):
    module = scripts("coverage_table")
    size = ["--num", "2", "--num-train", "16", "--copies", "3", "--max-steps", "10", "--num-draws", "30", "--seed", "1"]
    # Labels of an evidence that needs no more than a few steps.
    size += ["--process", "exact", "--evidence", "dirichlet", "--jobs", "1", "--folder", str(tmp_path)]
    module.main(["--cases", "gaussian", "softmax4", "--amplitudes", "4", "--hyperparameters", "known", *size])
    module.main(["--cases", "softmax4", "--dense", *size])
    written = capsys.readouterr().out
    for row in (
        "| gaussian | 1 | known | rotation |",
        "| softmax4 | 4 | known |",
        "| softmax4 | 1-4 (drawn) | learned |",
    ):
        assert row in written
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("simulation_*.json")}
    assert len(kept) == 6
    module.main(["--cases", "softmax4", "--dense", *size])
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("simulation_*.json")}


def test_teachers_on_a_denser_orbit_are_drawn(scripts):
    module = scripts("coverage_table")
    import torch

    import bayesinv

    x = bayesinv.datasets.digits(size=8, num_train=10).train.x
    scales = []
    for seed in (0, 1):
        model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_inducing=5), "rotation", evidence="dirichlet")
        module.start_dense(model, x, seed, "categorical")
        assert model.orbit.num_copies == module.DENSE_COPIES and model.backbone.is_exact
        drawn = model.simulate(x, num_outputs=4, seed=seed)
        assert drawn.function.shape == (10, 4) and bool(torch.isfinite(drawn.function).all())
        scales.append(float(model.backbone.kernel.outputscale.detach()))
    assert scales[0] != scales[1] and all(1.0 <= scale <= 16.0 for scale in scales)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_differences_from_the_referee_are_relative_to_their_mean(scripts, capsys):
    module = scripts("softmax_referee")
    module.main(["dirichlet", "--num-train", "12", "--num-steps", "20", "--extents", "5", "60", "--amplitudes", "1"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| dirichlet")]
    differences = [float(cells[7].split("±")[0]) for cells in rows[:2]]
    assert differences[0] == pytest.approx(-differences[1], abs=0.011) and differences[0] != 0
    spread = float(rows[2][5])
    assert spread == pytest.approx(abs(differences[0] - differences[1]), abs=0.03)


@pytest.mark.parametrize("kind", ["default", "exact", "inducing:7"])
def test_processes_are_named(scripts, kind):
    process = scripts("common").gaussian_process(kind)
    if kind != "default":
        assert process.num_inducing == {"exact": None, "inducing:7": 7}[kind]
    for wrong in ("inducing", "exact:3", "sparse"):
        with pytest.raises(ValueError, match="expected"):
            scripts("common").gaussian_process(wrong)
