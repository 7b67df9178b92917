"""The scripts on grids of known moves, from end to end on small stand-ins for the data."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from bayesinv import InvarianceModel
from models import cifar10_affine, fashion_mnist_affine, mnist_affine
from models.affine_grid import TRANSFORMATIONS, moves, true_extents
from models.common import INFERENCES
from models.networks import LeNet, ResNet8

SCRIPTS = [mnist_affine, fashion_mnist_affine, cifar10_affine]
TINY = ["--num-train", "60", "--num-test", "20", "--num-orbit-samples", "2", "--epochs", "1", "--batch-size", "20"]
SYMMETRIES = {"translate_x", "translate_y", "rotation", "scale_x", "scale_y", "shear"}


def run(script, folder, *options):
    return script.main([*TINY, "--root", str(folder), "--device", "cpu", "--quiet", *map(str, options)])


@pytest.mark.parametrize("size", [28, 32])
def test_eight_pixels_are_eight_pixels(size):
    assert moves("translated_8", size)["translation"] * size / 2 == pytest.approx(8)
    assert true_extents("translated_8", size) == dict.fromkeys(("translate_x", "translate_y"), 16 / size)


def test_the_grid():
    assert moves("plain", 28) == true_extents("plain", 28) == {}
    assert true_extents("rotated_90", 28) == {"rotation": math.pi / 2}
    assert true_extents("rotated_180", 28) == {"rotation": math.pi}
    assert true_extents("scaled", 28) == dict.fromkeys(("scale_x", "scale_y"), math.log(2))
    for name in TRANSFORMATIONS:
        assert set(true_extents(name, 28)) <= SYMMETRIES
    with pytest.raises(ValueError, match="transformation: expected one of plain, rotated_90"):
        moves("turned", 28)


@pytest.mark.parametrize(
    ("script", "shape", "network"),
    [
        (mnist_affine, (1, 28, 28), LeNet),
        (fashion_mnist_affine, (1, 28, 28), LeNet),
        (cifar10_affine, (3, 32, 32), ResNet8),
    ],
)
def test_build(script, shape, network, data_folder):
    model, train, test = script.build("scaled", num_train=30, num_test=10, root=data_folder, num_orbit_samples=3)
    assert isinstance(model, InvarianceModel)
    assert set(model.active) == SYMMETRIES
    assert isinstance(model.backbone.net, network)
    assert model.evidence_name == "laplace"
    assert model.orbit.num_samples == 3
    assert train.x.shape == (30, *shape)
    assert test.x.shape == (10, *shape)
    assert model.backbone(train.x).shape == (30, 10)
    again, same, _ = script.build("scaled", num_train=30, num_test=10, root=data_folder, num_orbit_samples=3)
    assert torch.equal(train.x, same.x)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    plain = script.build("plain", num_train=30, num_test=10, root=data_folder)[1]
    assert torch.equal(plain.y, train.y)
    assert not torch.allclose(plain.x, train.x, atol=0.1)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_scripts_write_what_they_print(script, data_folder, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--network", "small_lenet", "--transformation", "translated_8", "--out", out]
    assert run(script, data_folder, *options) == 0
    printed = capsys.readouterr().out
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert set(found["extents"]) == SYMMETRIES
    assert found["inference"] == "vi"
    assert (found["num_train"], found["num_test"]) == (60, 20)
    shift = 16 / script.EXPERIMENT.size
    assert found["truth"] == {"translate_x": pytest.approx(shift), "translate_y": pytest.approx(shift)}
    assert f"accuracy {100 * found['accuracy']:.1f} %, log loss {found['log_loss']:.3f} nats on 20" in printed
    for extent in found["extents"].values():
        assert 0 <= extent["lower"] < extent["median"] < extent["upper"]
    in_people = found["extents"]["rotation"]["people"]
    assert in_people["median"] == pytest.approx(math.degrees(found["extents"]["rotation"]["median"]))
    assert f"{in_people['median']:.1f}" in printed
    assert f"{50 * shift:.1f}" in printed  # the truth, in % of the width
    with Image.open(out / "extents.png") as picture:
        assert min(picture.size) > 300
    with pytest.raises(SystemExit):
        run(script, data_folder, *options)
    assert "add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("inference", INFERENCES[1:])
def test_point_estimates(inference, data_folder, tmp_path):
    options = ["--network", "small_lenet", "--transformation", "rotated_90", "--inference", inference]
    assert run(mnist_affine, data_folder, *options, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["options"]["inference"] == inference
    assert found["inference"] != "vi"
    assert 0 <= found["accuracy"] <= 1
    for extent in found["extents"].values():
        is_point = extent["lower"] == extent["median"] == extent["upper"]
        assert is_point == (inference != "optima")  # which has a distribution
    medians = {name: extent["median"] for name, extent in found["extents"].items()}
    if inference == "fixed":
        assert medians == pytest.approx({**dict.fromkeys(SYMMETRIES, 0.0), "rotation": math.pi / 2})
    elif inference == "none":
        assert set(medians.values()) == {0.0}
    with Image.open(tmp_path / "extents.png") as picture:
        assert min(picture.size) > 300


def test_plug_in_likelihood(data_folder, tmp_path, capsys):
    assert run(mnist_affine, data_folder, "--network", "small_lenet", "--evidence", "plugin", "--out", tmp_path) == 0
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["log_evidence"] is None
    assert "log evidence" not in capsys.readouterr().out


@pytest.mark.parametrize("network", ["mlp", "resnet8", "cnn13"])
def test_the_other_networks(network, data_folder, capsys):
    assert run(cifar10_affine, data_folder, "--network", network, "--num-train", "20", "--batch-size", "10") == 0
    assert "on 20 test images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--transformation", "turned"], "invalid choice: 'turned' (choose from"),
        (["--num-train", "0"], "expected a whole number of at least 1, got '0'"),
        (["--num-train", "2.5"], "expected a whole number of at least 1, got '2.5'"),
        (["--epochs", "-1"], "expected a number above 0, got '-1'"),
        (["--epochs", "nan"], "expected a number above 0, got 'nan'"),
        (["--seed", "-1"], "expected a whole number from 0 to 2**32 - 1"),
        (["--device", "abacus"], 'expected "auto", "cpu"'),
        (["--num-train", "1000"], "num_train is 1000; expected 1..200"),
        (["--network", "vgg"], "invalid choice: 'vgg'"),
    ],
)
def test_wrong_arguments_end_with_the_cure(options, message, data_folder, capsys):
    with pytest.raises(SystemExit) as ended:
        run(mnist_affine, data_folder, *options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_missing_data_end_with_where_they_should_be(script, tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        run(script, tmp_path)
    assert "Nothing is downloaded" in capsys.readouterr().err
    monkeypatch.delenv("BAYESINV_DATA", raising=False)
    with pytest.raises(SystemExit):
        script.main([])
    assert "BAYESINV_DATA is not set" in capsys.readouterr().err


def test_results_are_not_written_over_a_file(data_folder, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit):
        run(mnist_affine, data_folder, "--out", tmp_path / "out")
    assert "there is a file of that name" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_as_a_program_from_another_folder(script, data_folder, tmp_path):
    path = Path(script.__file__).resolve()
    command = [sys.executable, str(path), *TINY, "--root", str(data_folder), "--network", "small_lenet", "--out", "out"]
    finished = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert finished.returncode == 0, finished.stderr
    assert "accuracy" in finished.stdout
    assert (tmp_path / "out" / "results.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(os.environ.get("BAYESINV_DATA", "-")) / "MNIST" / "raw").is_dir(),
    reason="BAYESINV_DATA does not name a folder with MNIST",
)
def test_mnist_learns_and_keeps_still_digits_still(capsys):
    options = ["--transformation", "plain", "--num-train", "500", "--num-test", "500", "--network", "small_lenet"]
    model, train, test = mnist_affine.build("plain", num_train=500, num_test=500, network="small_lenet")
    assert mnist_affine.main([*options, "--epochs", "20", "--quiet"]) == 0
    printed = capsys.readouterr().out
    accuracy = float(printed.split("accuracy ")[1].split(" ")[0])
    assert accuracy > 70, printed  # ten classes; a network of this size without any invariance reaches about 85 %
    assert (len(train), len(test), len(model.active)) == (500, 500, 6)
