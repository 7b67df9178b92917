"""The experiment with two characters, from end to end at a small size and without any file."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bayesinv import Outward
from models import mario_iggy

TINY = ["--num-train", "60", "--num-test", "20", "--num-orbit-samples", "2", "--epochs", "1", "--batch-size", "20"]


@pytest.fixture(autouse=True)
def bundled_pictures(monkeypatch):
    monkeypatch.delenv("BAYESINV_DATA", raising=False)


def run(*options):
    return mario_iggy.main([*TINY, "--device", "cpu", "--quiet", *map(str, options)])


@pytest.mark.parametrize(
    ("question", "average", "evidence", "expected"),
    [
        ("permitted", None, "plugin", "log_likelihood"),
        ("permitted", "probabilities", "plugin", "probabilities"),
        ("needed", None, "laplace", "function"),
        ("needed", "probabilities", "laplace", "probabilities"),
    ],
)
def test_build(question, average, evidence, expected):
    model, train, test = mario_iggy.build(question, average, num_train=40, num_test=20)
    assert model.evidence_name == evidence
    assert model.average == expected
    assert len(model.active) == 6
    outward = [name for name, prior in model.extents.priors.items() if isinstance(prior, Outward)]
    assert outward == (["rotation"] if question == "permitted" else [])
    assert train.x.shape == (40, 3, 32, 32)
    assert train.y.bincount().tolist() == [10] * 4
    assert test.num_classes == 4
    assert model.backbone(train.x).shape == (40, 4)


def test_a_flat_prior_is_strength_zero():
    model, _, _ = mario_iggy.build("permitted", num_train=4, num_test=4, strength=0.0)
    assert not any(isinstance(prior, Outward) for prior in model.extents.priors.values())


def test_other_extents_can_be_pushed_as_well(monkeypatch):
    built = []
    original = mario_iggy.build
    monkeypatch.setattr(mario_iggy, "build", lambda *a: built.append(original(*a)) or built[-1])
    for options, names in ((["all"], 6), (["rotation", "shear"], 2)):
        assert run("--outward", *options) == 0
        priors = built[-1][0].extents.priors
        assert sum(isinstance(prior, Outward) for prior in priors.values()) == names


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"question": "wanted"}, "question: expected one of permitted, needed, got 'wanted'"),
        ({"strength": -1.0}, "strength: expected a number of at least 0, got -1.0"),
        ({"question": "needed", "average": "log_likelihood"}, "average: the laplace evidence takes"),
    ],
)
def test_arguments_of_build(wrong, message):
    with pytest.raises(ValueError, match=message):
        mario_iggy.build(**{"num_train": 4, "num_test": 4, **wrong})


@pytest.mark.parametrize(
    ("question", "average"),
    [
        (question, a)
        for question in mario_iggy.QUESTIONS
        for a in mario_iggy.AVERAGES
        if (question, a) != ("needed", "log_likelihood")
    ],
)
def test_both_questions_under_each_average(question, average, tmp_path, capsys):
    assert run("--question", question, "--average", average, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["truth"] == {"rotation": pytest.approx(math.pi / 4)}
    assert found["options"]["question"] == question
    assert found["log_evidence"] is None  # so few epochs leave the weights far from their mode
    assert 0 < found["extents"]["rotation"]["lower"] < found["extents"]["rotation"]["upper"]
    assert f"accuracy {100 * found['accuracy']:.1f} %" in capsys.readouterr().out
    with Image.open(tmp_path / "rotation.png") as picture:
        assert picture.size == (1800, 750)


def test_the_figure_marks_45_degrees_for_posteriors_and_points(tmp_path, monkeypatch):
    figures = []
    original = mario_iggy.rotation_figure
    monkeypatch.setattr(mario_iggy, "rotation_figure", lambda *a: figures.append(original(*a)) or figures[-1])
    run()
    run("--inference", "fixed")
    for figure in figures:
        left = figure.axes[0]
        marked = [line for line in left.get_lines() if line.get_label().startswith("45°")]
        assert [float(line.get_xdata()[0]) for line in marked] == [pytest.approx(45)]
        low, high = left.get_xlim()
        assert low < 45 < high
    assert len(figures[0].axes[0].patches) > 5  # the histogram of a posterior
    assert len(figures[1].axes[0].patches) == 0  # the line of a point
    assert "rotation: 45.0°" in figures[1].axes[0].get_title(loc="left")


@pytest.mark.parametrize("inference", ["augerino", "augnet", "policy", "none"])
def test_point_estimates(inference, tmp_path):
    assert run("--inference", inference, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["options"]["inference"] == inference
    assert found["inference"] != "vi"
    assert all(extent["lower"] == extent["upper"] for extent in found["extents"].values())


def test_a_flat_prior_reports_the_upper_limit(capsys):
    assert run("--strength", 0) == 0
    assert "with probability 0.95" in capsys.readouterr().out


def test_own_pictures(tmp_path, capsys):
    for k in (0, 1):
        pixels = np.zeros((20, 20, 3), dtype=np.uint8)
        pixels[4:10, 6 + 6 * k : 10 + 6 * k] = 255
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    _, train, _ = mario_iggy.build(num_train=8, num_test=4, pictures=files)
    assert not torch.equal(train.x, mario_iggy.build(num_train=8, num_test=4)[1].x)
    assert run("--pictures", *files) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run("--pictures", files[0], tmp_path / "2.png")
    assert "2.png cannot be read as a picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--question", "wanted"], "invalid choice: 'wanted'"),
        (["--question", "needed", "--average", "log_likelihood"], "needed takes function or probabilities"),
        (["--strength", "-1"], "expected a number from 0 to 100, got '-1'"),
        (["--pictures", "a.png"], "expected 2 arguments"),
    ],
)
def test_wrong_arguments_end_with_the_cure(options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_program_from_another_folder(tmp_path):
    path = Path(mario_iggy.__file__).resolve()
    finished = subprocess.run(
        [sys.executable, str(path), *TINY, "--out", "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out" / "rotation.png").is_file()
