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
    for name in ("calibration", "evidence_agreement", "common"):
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
