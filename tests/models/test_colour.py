"""Colours of CIFAR-10, from end to end on a small stand-in for the data."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from models import colour
from models.common import INFERENCES

COLOURS = ("brightness", "contrast", "saturation", "hue")
TINY = ["--num-train", "40", "--num-test", "20", "--num-orbit-samples", "2", "--epochs", "1", "--batch-size", "20"]


def run(folder, *options):
    return colour.main([*TINY, "--root", str(folder), "--device", "cpu", "--quiet", *map(str, options)])


@pytest.mark.parametrize("flip", [True, False])
def test_build(flip, data_folder):
    model, train, test = colour.build(num_train=12, num_test=6, flip=flip, num_orbit_samples=3, root=data_folder)
    assert model.active == COLOURS + (("flip_x",) if flip else ())
    assert model.evidence_name == "laplace"
    assert model.orbit.num_samples == 3
    assert model.orbit.num_copies == (6 if flip else 3)
    assert train.x.shape == (12, 3, 32, 32)
    assert test.x.shape == (6, 3, 32, 32)
    assert 0 <= float(train.x.min()) < float(train.x.max()) <= 1  # the scale of the extents
    assert model.backbone(train.x).shape == (12, 10)


def test_the_seed_decides_images_and_weights(data_folder):
    (model, train, _), (again, same, _), (other, others, _) = (
        colour.build(num_train=12, num_test=6, seed=seed, root=data_folder) for seed in (0, 0, 1)
    )
    assert torch.equal(train.x, same.x)
    assert not torch.equal(train.x, others.x)
    pairs = list(zip(model.backbone.parameters(), again.backbone.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    first, seeded_otherwise = (next(each.backbone.net.network.parameters()) for each in (model, other))
    assert not torch.equal(first, seeded_otherwise)


def test_middle_grey_is_the_networks_zero():
    assert torch.equal(colour.Centred()(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-2.0, 0.0, 2.0]))


def test_results_are_what_is_printed_and_not_replaced(data_folder, tmp_path, capsys):
    assert run(data_folder, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert tuple(found["extents"]) == (*COLOURS, "flip_x")
    assert (found["inference"], found["num_train"], found["num_test"], found["truth"]) == ("vi", 40, 20, None)
    for name, extent in found["extents"].items():
        assert 0 <= extent["lower"] < extent["median"] < extent["upper"]
        assert f"{extent['people']['median']:.1f}" in printed, name
    assert found["extents"]["flip_x"]["upper"] <= 0.5
    with Image.open(tmp_path / "out" / "extents.png") as picture:
        assert min(picture.size) > 300
    with pytest.raises(SystemExit):
        run(data_folder, "--out", tmp_path / "out")
    assert "add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("inference", INFERENCES[1:])
def test_point_estimates(inference, data_folder, tmp_path, capsys):
    assert run(data_folder, "--inference", inference, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    medians = {name: extent["median"] for name, extent in found["extents"].items()}
    without = inference in colour.WITHOUT_FLIP
    assert tuple(medians) == (COLOURS if without else (*COLOURS, "flip_x"))
    assert (f"no flip: {inference}" in capsys.readouterr().out) is without
    if inference == "fixed":
        assert medians == pytest.approx(colour.BY_HAND)
    elif inference == "none":
        assert set(medians.values()) == {0.0}


def test_help_says_who_has_no_flip(capsys):
    with pytest.raises(SystemExit) as ended:
        colour.main(["--help"])
    assert ended.value.code == 0
    assert "augerino, augnet, lila and optima never have them" in " ".join(capsys.readouterr().out.split())


def test_missing_data_end_with_where_they_should_be(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path)
    assert "Nothing is downloaded" in capsys.readouterr().err


@pytest.mark.skipif(
    not (Path(os.environ.get("BAYESINV_DATA", "-")) / "cifar10").is_dir(),
    reason="BAYESINV_DATA does not name a folder with CIFAR-10",
)
def test_real_pictures_have_the_scale_that_the_network_expects():
    train = colour.build(num_train=200, num_test=1)[1]
    seen = colour.Centred()(train.x)
    assert abs(float(seen.mean())) < 0.5
    assert 0.7 < float(seen.std()) < 1.3
