"""The scripts of `make bench`, of rivals and of a GPU at their smallest sizes: all parts run, numbers mean nothing."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent / "benchmarks"


def loaded(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    spec = importlib.util.spec_from_file_location(f"{name}_script", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ratios(monkeypatch):
    yield loaded("ratios", monkeypatch)
    sys.modules.pop("common", None)


@pytest.fixture
def rivals(monkeypatch):
    yield loaded("rivals", monkeypatch)
    sys.modules.pop("common", None)


@pytest.fixture
def gpu(monkeypatch):
    yield loaded("gpu", monkeypatch)
    sys.modules.pop("common", None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ratios_are_written_and_compared(ratios, tmp_path, capsys):
    table, page = tmp_path / "bench.json", tmp_path / "bench.md"
    threads = torch.get_num_threads()
    try:
        ratios.main(["--small", "--json", str(table), "--page", str(page)])
    finally:
        torch.set_num_threads(threads)
    assert "no earlier table" in capsys.readouterr().out
    rows = json.loads(table.read_text())["rows"]
    names = {row["name"] for row in rows}
    assert {"network fit, both stages", "import of bayesinv.fit"} <= names
    assert all(row["ours"] > 0 and row["ratio"] > 0 for row in rows)
    assert page.read_text().count("\n| ") == len(rows) + 1
    later = [ratios.Row(**{**row, "ratio": 0.5 * row["ratio"]}) for row in rows]
    assert all(line.endswith("<- slower") for line in ratios.compared(later, table))


def test_a_ratio_is_the_median_over_rounds(ratios, monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 4.0, 4.0, 8.0, 8.0, 9.0, 9.0, 12.0])
    monkeypatch.setattr(ratios.time, "perf_counter", lambda: next(clock))
    assert ratios.by_turns(int, int, 3, share=0.5, warm=False) == [1.0, 6.0, 6.0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_sections_of_a_gpu_run_on_the_cpu(gpu, tmp_path):
    out = tmp_path / "gpu.json"
    gpu.main(["--out", str(out)])
    sections = json.loads(out.read_text())["sections"]
    assert set(sections) == set(gpu.SECTIONS)
    assert not any("error" in found for found in sections.values()), sections
    assert sections["checks"]["passed"]


def test_a_section_that_fails_and_one_that_is_late_are_entries(gpu, monkeypatch, tmp_path):
    monkeypatch.setitem(gpu.SECTIONS, "checks", lambda device, small: 1 / 0)
    out = tmp_path / "gpu.json"
    gpu.main(["--sections", "checks", "--out", str(out)])
    assert json.loads(out.read_text())["sections"]["checks"]["error"].startswith("ZeroDivisionError")
    gpu.main(["--sections", "checks", "--limit", "-1", "--out", str(out)])
    assert json.loads(out.read_text())["sections"]["checks"]["left out"].endswith("s had passed")


def test_differences_are_relative_to_the_largest_entry(gpu):
    assert gpu.difference(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 5.0])) == pytest.approx(0.2)


@pytest.mark.filterwarnings("ignore")
def test_rivals_are_fitted_once_and_stand_in_one_table(rivals, monkeypatch, tmp_path, capsys):
    methods = ["optima", "augnet", "randaugment", "by hand"]
    command = ["--folder", str(tmp_path), "--problems", "sinusoids", "--methods", *methods, "--seeds", "0"]
    threads = torch.get_num_threads()
    try:
        rivals.main([*command, "--size", "20", "--epochs", "2"])
        first = capsys.readouterr().out
        monkeypatch.setattr(rivals, "fitted", lambda case: 1 / 0)
        rivals.main([*command, "--size", "20", "--epochs", "2"])
    finally:
        torch.set_num_threads(threads)
    rows = [line.split(" | ") for line in first.splitlines() if line.startswith("| sinusoids")]
    assert [row[1] for row in rows] == ["optima", "augnet", "by hand"]  # a policy needs images
    assert "[" in rows[0][2] and "Hz" in rows[1][2]  # only a distribution has an interval
    assert capsys.readouterr().out == first
    with pytest.raises(ZeroDivisionError):
        rivals.main([*command, "--size", "20", "--epochs", "3"])
