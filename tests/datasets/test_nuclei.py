"""The loader of the nuclei, on a small file of the same format and on the real one where it is there."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bayesinv.datasets import nuclei
from bayesinv.errors import DataError


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 6), ("test", 3)):
        mask = np.zeros((n, 128, 128), dtype=np.uint8)
        mask[:, 32:64, 16:80] = 1
        arrays[f"y_{part}"] = mask
        arrays[f"x_{part}"] = (100 * mask + rng.integers(0, 20, mask.shape)).astype(np.uint8)
    np.savez(tmp_path / "nuclei.npz", **arrays)
    return tmp_path / "nuclei.npz"


def test_images_and_masks_shrink_together(file):
    train, test = nuclei(file, num_train=5, num_test=3, size=32)
    assert train.x.shape == (5, 1, 32, 32)
    assert train.y.shape == (5, 32, 32)
    assert train.num_classes == 2
    assert len(test) == 3
    inside = train.y.bool()
    assert torch.equal(inside[0].nonzero().amin(0), torch.tensor([8, 4]))
    assert torch.equal(inside[0].nonzero().amax(0), torch.tensor([15, 19]))
    assert float(train.x[:, 0][inside].min()) > 0.8 > 0.3 > float(train.x[:, 0][~inside].max())
    again = nuclei(file, num_train=5, num_test=3, size=32).train
    assert torch.equal(train.x, again.x)


def test_mistakes(file, tmp_path):
    with pytest.raises(ValueError, match="a divisor of 128"):
        nuclei(file, size=50)
    with pytest.raises(ValueError, match="num_train is 7"):
        nuclei(file, num_train=7, num_test=3)
    with pytest.raises(DataError, match="there is no file"):
        nuclei(tmp_path)
    np.savez(tmp_path / "other.npz", x_train=np.zeros(3))
    with pytest.raises(DataError, match="not a file of images with masks"):
        nuclei(tmp_path / "other.npz")


@pytest.mark.skipif("BAYESINV_DATA" not in os.environ, reason="BAYESINV_DATA names no folder with the nuclei")
def test_the_real_images():
    if not (Path(os.environ["BAYESINV_DATA"]) / "segmentation").is_dir():
        pytest.skip("no segmentation/ in BAYESINV_DATA")
    train, test = nuclei(num_train=541, size=128)
    assert (len(train), len(test)) == (541, 44)
    # the shares that the description of the data gives
    assert float(train.y.double().mean()) == pytest.approx(0.134, abs=0.004)
    assert float(test.y.double().mean()) == pytest.approx(0.124, abs=0.004)
