"""`tests/benchmarks/audit.py` at its smallest: what its table counts, and labels that no symmetry made."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    spec = importlib.util.spec_from_file_location("audit_benchmark", BENCHMARKS / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("common", None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_each_case_has_a_line_a_set_and_a_row(script, capsys):
    size = ["--num-images", "40", "--num-examples", "24", "--num-features", "32", "--num-orbit-samples", "4"]
    script.main(["--cases", "null", "digits", "--seeds", "0", "1", "--operations", "rotation", "flip_x", *size])
    lines = capsys.readouterr().out.splitlines()
    for case in ("null", "digits"):
        assert [line.split(",")[0] for line in lines if line.startswith(f"{case} ")] == [
            f"{case} seed {s}" for s in (0, 1)
        ]
    cells = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert " of 4 |" in cells["null"] and " of 4 |" not in cells["digits"]


def test_the_row_counts_what_is_wrong(script):
    results = [
        {
            "inclusion": {"rotation": 0.99, "flip_x": 0.2, "flip_y": 0.94},
            "needed": {"rotation": 40.0},
            "seconds": 3.0,
            "cpu": 2.0,
        },
        {
            "inclusion": {"rotation": 0.3, "flip_x": 0.95, "flip_y": 0.1},
            "needed": {"rotation": 60.0},
            "seconds": 5.0,
            "cpu": 4.0,
        },
        {
            "inclusion": {"rotation": 0.3, "flip_x": 0.1, "flip_y": 0.1},
            "needed": {"rotation": 80.0},
            "seconds": 4.0,
            "cpu": 3.0,
        },
    ]
    null = script.row("null", results)
    assert null[1:5] == [3, "2 of 9", "3 of 9", "2 of 3"]
    assert null[6:9] == ["1 of 3", "1 of 3", "0 of 3"]
    assert null[9:] == ["60 [40, 80]", "4 [3, 5]", "3 [2, 4]"]
    assert script.row("digits", results)[2:6] == [""] * 4


def test_labels_of_the_null_case_depend_on_the_picture_and_not_on_its_orbit(script):
    data = script.images("null", 60, seed=1)
    again = script.images("null", 60, seed=1)
    assert torch.equal(data.y, again.y) and torch.equal(data.x, again.x)
    assert data.num_classes == script.NUM_CLASSES and len(data.y.unique()) > 2
    twice = torch.cat([data.x[:30], data.x[:30]])
    assert bool((script.labels_of(twice, 0)[:30] == script.labels_of(twice, 0)[30:]).double().mean() > 0.6)
    turned = torch.cat([data.x[:30], data.x[:30].flip(-1)])
    labels = script.labels_of(turned, 0)
    assert float((labels[:30] == labels[30:]).double().mean()) < 0.6


def test_shuffled_labels_are_those_of_the_digits(script):
    data = script.images("shuffled", 80, seed=0)
    upright = script.images("shuffled", 80, seed=1)
    assert not torch.equal(data.x, upright.x)
    assert math.isclose(float(data.x.max()), 1.0, abs_tol=0.2) and data.num_classes == 10
