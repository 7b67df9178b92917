"""Make `models/`, which is not installed, importable from wherever pytest starts; data in the real sets' formats."""

import struct
import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    """scikit-learn's digits in the files of MNIST, Fashion-MNIST and CIFAR-10: 200 to train on, 100 to test."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("data")
    digits = load_digits()
    small = (digits.images[:300] * 255 / 16).astype(np.uint8)
    labels = digits.target[:300].astype(np.uint8)
    pictures = np.stack([np.asarray(Image.fromarray(picture).resize((28, 28))) for picture in small])
    parts = {"train": slice(0, 200), "t10k": slice(200, 300)}
    for name in ("MNIST", "FashionMNIST"):
        raw = folder / name / "raw"
        raw.mkdir(parents=True)
        for part, chosen in parts.items():
            num = len(labels[chosen])
            header = struct.pack(">iiii", 2051, num, 28, 28)
            (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pictures[chosen].tobytes())
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, num) + labels[chosen].tobytes())
    colour = np.pad(pictures, ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, axis=-1)
    (folder / "cifar10").mkdir()
    train, test = parts.values()
    np.savez(
        folder / "cifar10" / "cifar10_10k2k.npz",
        x_train=colour[train],
        y_train=labels[train],
        x_test=colour[test],
        y_test=labels[test],
    )
    return folder
