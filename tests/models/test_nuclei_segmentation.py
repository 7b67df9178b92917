"""Masks that turn with the image, at a small size on made-up nuclei."""

import json

import numpy as np
import pytest
from PIL import Image

import bayesinv
from models import nuclei_segmentation


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory):
    """Bright discs on a dark ground, as many images as the real file has."""
    rng = np.random.default_rng(0)
    grid = np.mgrid[:128, :128]
    arrays = {}
    for part, num in (("train", 541), ("test", 44)):
        centres = rng.uniform(20, 108, (num, 2, 1, 1))
        masks = ((grid[None] - centres) ** 2).sum(1) < 16.0**2
        arrays[f"x_{part}"] = (20 + 180 * masks + rng.integers(0, 20, masks.shape)).astype(np.uint8)
        arrays[f"y_{part}"] = masks.astype(np.uint8)
    folder = tmp_path_factory.mktemp("nuclei")
    np.savez(folder / "nuclei.npz", **arrays)
    return folder / "nuclei.npz"


def test_build(nuclei):
    model, train, test = nuclei_segmentation.build(num_train=12, num_test=5, size=16, width=3, root=nuclei)
    assert model.symmetries == ("flip_x", "rotation", "translate_x", "translate_y")
    assert model.orbit.num_copies == 8
    assert train.x.shape == (12, 1, 16, 16)
    assert test.y.shape == (5, 16, 16)
    with pytest.raises(ValueError, match="multiple of four"):
        nuclei_segmentation.build(size=2, root=nuclei)


def test_permitted_pushes_rotation_and_mirror_images_alone(nuclei):
    size = dict(num_train=12, num_test=5, size=16, width=3, root=nuclei)
    model, _, _ = nuclei_segmentation.build(question="permitted", strength=3.0, **size)
    outward = {name for name, prior in model.extents.priors.items() if isinstance(prior, bayesinv.Outward)}
    assert model.evidence_name == "plugin"
    assert outward == {"flip_x", "rotation"}
    assert model.extents.priors["rotation"].strength == 3.0
    with pytest.raises(ValueError, match="permitted, needed"):
        nuclei_segmentation.build(question="allowed", **size)


@pytest.mark.parametrize("inference", ["vi", "fixed", "none"])
def test_script(inference, nuclei, tmp_path, capsys):
    out = tmp_path / "out"
    size = ["--num-train", "16", "--num-test", "6", "--size", "16", "--width", "3", "--num-orbit-samples", "2"]
    options = ["--epochs", "3", "--batch-size", "8", "--device", "cpu", "--quiet", "--root", str(nuclei)]
    assert nuclei_segmentation.main([*size, *options, "--out", str(out), "--inference", inference]) == 0
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert f"intersection over union {found['iou']:.3f}" in capsys.readouterr().out
    assert 0 <= found["iou"] <= 1
    if inference == "none":
        assert found["equivariance_error_before"] == pytest.approx(found["equivariance_error_after"], rel=0.2)
    with Image.open(out / "nuclei.png") as picture:
        assert min(picture.size) > 300
