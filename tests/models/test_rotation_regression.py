"""models/rotation_regression.py: its data, its arguments, and a tiny run."""

import json
import math

import pytest
import torch

from bayesinv.transforms import Affine2d
from models import rotation_regression as script


def test_targets_are_the_angles():
    x = torch.zeros(6, 1, 21, 21)
    x[:, :, 10, 10:16] = 1.0  # a hand that points right
    data = script.turned(x, torch.Generator().manual_seed(0))
    assert data.y.shape == (6, 1)
    assert float(data.y.abs().max()) <= math.pi / 2
    # Turned back by the target, every hand is level again, wherever it was moved.
    level = Affine2d(["rotation"])(data.x, -data.y)[:, 0]
    rows = torch.arange(21.0)
    mass = level.sum((1, 2))
    height = (level.sum(2) * rows).sum(1) / mass
    spread = (level.sum(2) * (rows - height[:, None]).square()).sum(1) / mass
    width = (level.sum(1) * (rows - ((level.sum(1) * rows).sum(1) / mass)[:, None]).square()).sum(1) / mass
    assert bool((spread < 0.5 * width).all())


def test_build():
    model, train, test = script.build(num_train=30, num_test=20, num_inducing=10, num_orbit_samples=4)
    assert model.active == script.SYMMETRIES
    assert model.evidence_name == "gaussian"
    assert (len(train), len(test)) == (30, 20)
    again = script.build(num_train=30, num_test=20)[1]
    assert torch.equal(train.x, again.x)
    network, _, _ = script.build(num_train=30, num_test=20, backbone="network")
    assert network.evidence_name == "laplace"
    assert network.is_network


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": "faces"}, "images: expected one of digits, mnist"),
        ({"backbone": "tree"}, "backbone: expected one of gp, network"),
        ({"num_test": 5000}, "num_test is 5000; expected 1..997 beside 800"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        script.build(**arguments)


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning", "ignore::bayesinv.errors.ImportanceWarning")
def test_a_tiny_run(tmp_path, capsys):
    options = ["--num-train", "40", "--num-test", "20", "--num-inducing", "10", "--num-orbit-samples", "2"]
    assert script.main([*options, "--max-steps", "5", "--device", "cpu", "--quiet", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert set(found["extents"]) == set(script.SYMMETRIES)
    assert found["truth"]["rotation"] == 0.0
    assert found["unit"] == "°"
    assert f"mean absolute error {found['mae']:.3g} °" in capsys.readouterr().out
    assert (tmp_path / "extents.png").stat().st_size > 5000
