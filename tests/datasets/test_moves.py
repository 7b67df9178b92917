"""Image sets read from disk and moved by known amounts; small files stand in for the real ones."""

import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bayesinv.data.container import as_data
from bayesinv.datasets import cifar10, default_pictures, fashion_mnist, mario_iggy, mnist
from bayesinv.errors import DataError

ROTATIONS = [math.pi / 2, math.pi]


def write_idx(folder: Path, picture: np.ndarray, num: int = 400) -> None:
    """`num` copies of one 28×28 picture in MNIST's format, for training and for test, labels 0..9 in turn."""
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        images = struct.pack(">iiii", 2051, num, 28, 28) + np.repeat(picture[None], num, axis=0).tobytes()
        labels = struct.pack(">ii", 2049, num) + (np.arange(num) % 10).astype(np.uint8).tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)


def dot(row: int, column: int) -> np.ndarray:
    """A bright 2×2 dot whose middle is at the corner between four pixels."""
    picture = np.zeros((28, 28), dtype=np.uint8)
    picture[row - 1 : row + 1, column - 1 : column + 1] = 255
    return picture


def middles(x: torch.Tensor) -> torch.Tensor:
    """Centre of brightness of each image, pixels right of and below the middle of the image, (n, 2)."""
    grid = torch.arange(x.shape[-1], dtype=x.dtype) - (x.shape[-1] - 1) / 2
    mass = x.sum((1, 2, 3))
    across, down = ((x.sum(axes) * grid).sum(-1) / mass for axes in ((1, 2), (1, 3)))
    return torch.stack([across, down], dim=1)


@pytest.fixture
def centred(tmp_path):
    """A dot in the middle of every image."""
    write_idx(tmp_path / "MNIST" / "raw", dot(14, 14))
    write_idx(tmp_path / "FashionMNIST" / "raw", dot(14, 14))
    return tmp_path


@pytest.fixture
def right(tmp_path):
    """A dot 8 pixels right of the middle."""
    write_idx(tmp_path / "MNIST" / "raw", dot(14, 22))
    return tmp_path


@pytest.mark.parametrize("load", [mnist, fashion_mnist])
def test_shifts_are_uniform_within_eight_pixels(centred, load):
    for part in load(centred, 400, 400, translation=8 / 14):
        shifts = middles(part.x)  # (n, 2)
        assert float(shifts.abs().max()) <= 8 + 1e-3
        # the largest of 400 uniform numbers is below 97 % of the end with probability 5e-6
        assert (shifts.amax(0) > 0.97 * 8).all()
        assert (shifts.amin(0) < -0.97 * 8).all()
        # mean and standard deviation of U[-8, 8]: 0 ± 0.23 and 8/√3 ± 0.1
        assert (shifts.mean(0).abs() < 1).all()
        assert torch.allclose(shifts.std(0), torch.full((2,), 8 / math.sqrt(3)), atol=0.5)
        # both axes move by themselves
        assert abs(float(torch.corrcoef(shifts.T)[0, 1])) < 0.2


def test_what_leaves_the_image_does_not_come_back(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw", dot(14, 27))  # at the right edge
    x = mnist(tmp_path, 400, 1, translation=8 / 14).train.x
    mass = x.sum((1, 2, 3))
    assert float(mass.max()) <= 4 + 1e-4
    assert 0.3 < float((mass < 0.5).float().mean()) < 0.6  # nearly all that move right are gone
    assert float(x[:, :, :, :10].max()) == 0


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_angles_are_uniform_within_bounds(right, rotation):
    for part in mnist(right, 400, 400, rotation=rotation):
        x, y = middles(part.x).T
        angles = torch.atan2(-y, x)
        assert float(angles.abs().max()) <= rotation + 1e-2
        assert float(angles.max()) > 0.97 * rotation
        assert float(angles.min()) < -0.97 * rotation
        assert float(angles.std()) == pytest.approx(rotation / math.sqrt(3), rel=0.1)
        assert torch.allclose((x**2 + y**2).sqrt(), torch.tensor(8.0), atol=0.1)  # nothing is shifted


def test_scales_are_log_uniform_and_keep_proportions(right):
    for part in mnist(right, 400, 400, log_scale=math.log(2)):
        x, y = middles(part.x).T
        inside = x < 11  # beyond, the enlarged dot is cut off at the edge
        factors = (x / 8).log2()
        assert float(y.abs().max()) < 1e-3
        assert float(factors.min()) == pytest.approx(-1, abs=0.05)
        # uniform in the log: half of the images shrink, and half of those by more than √½
        assert float((factors < 0).float().mean()) == pytest.approx(0.5, abs=0.1)
        assert float((factors < -0.5).float().mean()) == pytest.approx(0.25, abs=0.1)
        # a dot of 4 pixels, scaled by s along both axes, has 4 s²: on average, as so small a dot falls between pixels
        ratio = part.x.sum((1, 2, 3)) / (4 * (x / 8) ** 2)
        for group in (inside & (factors > 0), factors < -0.5):
            assert float(ratio[group].mean()) == pytest.approx(1, abs=0.1)


def test_moves_go_together_and_the_seed_alone_decides(centred):
    state = torch.random.get_rng_state()
    first = mnist(centred, 50, 50, rotation=1.0, translation=0.2, log_scale=0.3, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    second = mnist(centred, 50, 50, rotation=1.0, translation=0.2, log_scale=0.3, seed=3)
    other = mnist(centred, 50, 50, rotation=1.0, translation=0.2, log_scale=0.3, seed=4)
    for a, b, c in zip(first, second, other, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)
        assert not torch.equal(a.x, c.x)
        as_data(a, "categorical")
    assert not torch.equal(first.train.x, first.test.x)
    unmoved = mnist(centred, 50, 50, rotation=0.0, translation=0.0, log_scale=0.0)
    assert torch.allclose(unmoved.train.x, mnist(centred, 50, 50).train.x, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"translation": 8.0}, "translation is 8.0; expected a fraction of half the width in 0..1"),
        ({"translation": -0.1}, "translation is -0.1"),
        ({"log_scale": 2.0}, "log_scale is 2.0"),
        ({"rotation": 90.0}, "expected radians"),
        ({"num_train": 401}, "num_train is 401; expected 1..400"),
        ({"num_test": 0}, "num_test is 0"),
    ],
)
def test_arguments(centred, wrong, message):
    with pytest.raises(ValueError, match=message):
        mnist(centred, **{"num_train": 10, "num_test": 10, **wrong})


def test_fashion_mnist_is_not_downloaded(tmp_path):
    with pytest.raises(DataError, match=r"FashionMNIST is not in .*FashionMNIST.raw. Nothing is downloaded"):
        fashion_mnist(tmp_path)


def write_cifar(root: Path, **replaced) -> Path:
    """A file with the layout of the subset, 60 and 40 random pictures."""
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8),
        "y_train": np.arange(60, dtype=np.uint8) % 10,
        "x_test": generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8),
        "y_test": np.arange(40, dtype=np.uint8) % 10,
    } | replaced
    (root / "cifar10").mkdir()
    path = root / "cifar10" / "cifar10_10k2k.npz"
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_cifar10(tmp_path):
    path = write_cifar(tmp_path)
    train, test = cifar10(60, 40, root=tmp_path, seed=1)
    assert train.x.shape == (60, 3, 32, 32)
    assert test.x.shape == (40, 3, 32, 32)
    assert train.num_classes == test.num_classes == 10
    # the same pictures with the same labels, channels in front, in another order
    stored = np.load(path)
    for part, name in ((train, "train"), (test, "test")):
        bytes_of = {
            picture.tobytes(): int(y) for picture, y in zip(stored[f"x_{name}"], stored[f"y_{name}"], strict=True)
        }
        ours = (part.x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        assert [bytes_of[picture.tobytes()] for picture in ours] == part.y.tolist()
        assert len({picture.tobytes() for picture in ours}) == len(ours)
    assert part.y.tolist() != sorted(part.y.tolist())


def test_standardised_cifar10_moves_in_the_mean_colour(tmp_path):
    write_cifar(
        tmp_path,
        x_train=np.full((60, 32, 32, 3), 200, dtype=np.uint8) - np.arange(60, dtype=np.uint8)[:, None, None, None],
    )
    train, test = cifar10(60, 40, root=tmp_path, standardise=True)
    assert torch.allclose(train.x.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(train.x.std((0, 2, 3)), torch.ones(3), atol=1e-4)
    plain = cifar10(60, 40, root=tmp_path)
    # the test pictures are standardised by the training pictures' numbers
    slope = (test.x[1] - test.x[0])[0, 0, 0] / (plain.test.x[1] - plain.test.x[0])[0, 0, 0]
    assert float(slope) == pytest.approx(1 / float(plain.train.x.std()), rel=1e-2)
    turned = cifar10(60, 40, root=tmp_path, standardise=True, rotation=math.pi)
    corners = turned.train.x[:, :, 0, 0]
    assert float((corners == 0).float().mean()) > 0.8


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"y_test": None}, "expected x_train, y_train, x_test and y_test"),
        ({"x_train": np.zeros((60, 3, 32, 32), dtype=np.uint8)}, r"expected bytes \(n, 32, 32, 3\)"),
        ({"x_train": np.zeros((60, 32, 32, 3))}, "type float64"),
        ({"y_train": np.zeros(3, dtype=np.uint8)}, r"labels of shape \(3,\)"),
    ],
)
def test_bad_cifar10(tmp_path, replaced, message):
    write_cifar(tmp_path, **replaced)
    with pytest.raises(DataError, match=message):
        cifar10(10, 10, root=tmp_path)


def test_missing_and_damaged_cifar10(tmp_path):
    with pytest.raises(DataError, match="Nothing is downloaded"):
        cifar10(root=tmp_path)
    path = write_cifar(tmp_path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="cannot be read"):
        cifar10(root=tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match="incomplete or damaged"):
        cifar10(root=tmp_path)


def pointers() -> torch.Tensor:
    """Two characters that tell their angle: a red and a green dot, 8 pixels right of the middle."""
    pictures = torch.zeros(2, 3, 32, 32)
    for character in (0, 1):
        pictures[character, character, 15:17, 23:25] = 1.0
    return pictures


def test_labels_are_balanced_and_say_what_is_shown():
    for part in mario_iggy(pointers(), num_train=400, num_test=200):
        assert part.y.bincount(minlength=4).tolist() == [len(part) // 4] * 4
        assert not torch.equal(part.y[:40], part.y[:4].repeat(10))  # in no order
        character = (part.x[:, 1].amax((1, 2)) > 0.1).long()
        assert torch.equal(character, part.y // 2)
        x, y = middles(part.x).T
        angles = torch.atan2(-y, x)
        inverted = part.y % 2 == 1
        # upright within ±45°, inverted within ±45° of 180°
        from_middle = torch.where(inverted, math.pi - angles.abs(), angles.abs())
        assert float(from_middle.max()) <= math.radians(45) + 0.02
        for group in (inverted, ~inverted):
            assert float(from_middle[group].max()) > 0.9 * math.radians(45)
            # |U(-45°, 45°)| is uniform on 0..45°
            assert float(from_middle[group].mean()) == pytest.approx(math.radians(22.5), rel=0.15)
        assert 0.35 < float((angles[~inverted] > 0).float().mean()) < 0.65


def test_training_and_test_images_have_their_own_angles():
    train, test = mario_iggy(pointers(), num_train=100, num_test=100)
    assert not torch.equal(train.x, test.x)
    again = mario_iggy(pointers(), num_train=100, num_test=100)
    assert torch.equal(train.x, again.train.x)
    assert not torch.equal(train.x, mario_iggy(pointers(), num_train=100, num_test=100, seed=1).train.x)
    assert mario_iggy(pointers(), num_train=3, num_test=1).train.num_classes == 4


def test_pictures_come_as_arrays_paths_or_from_the_data_folder(tmp_path, monkeypatch):
    a = np.zeros((32, 32, 3))
    a[4, 6] = (1.0, 0.5, 0.0)
    files = []
    for k, picture in enumerate((a, a[::-1])):
        files.append(tmp_path / f"{k}.png")
        Image.fromarray((255 * picture).astype(np.uint8)).save(files[-1])
    options = {"num_train": 8, "num_test": 4, "angle": 0.0}
    from_arrays = mario_iggy([a, np.ascontiguousarray(a[::-1])], **options)
    from_files = mario_iggy(files, **options)
    assert torch.allclose(from_arrays.train.x, from_files.train.x, atol=0.01)
    upright = from_arrays.train.x[from_arrays.train.y == 0][0]
    assert torch.allclose(upright[:, 4, 6], torch.tensor([1.0, 0.5, 0.0]), atol=1e-4)
    inverted = from_arrays.train.x[from_arrays.train.y == 1][0]
    assert torch.allclose(inverted[:, 27, 25], torch.tensor([1.0, 0.5, 0.0]), atol=1e-4)
    # without a file in the data folder the bundled digits, with it that file
    monkeypatch.setenv("BAYESINV_DATA", str(tmp_path))
    assert torch.equal(mario_iggy(**options).train.x, mario_iggy(default_pictures(), **options).train.x)
    (tmp_path / "mario-iggy").mkdir()
    path = tmp_path / "mario-iggy" / "images.npz"
    first, second = pointers().double().numpy()
    np.savez(path, mario=first[None], iggy=second[None])
    assert torch.equal(mario_iggy(**options).train.x, mario_iggy(pointers(), **options).train.x)
    np.savez(path, mario=first[None])
    with pytest.raises(DataError, match="expected arrays mario and iggy"):
        mario_iggy(**options)


def test_default_pictures_fit_into_the_image_at_any_angle():
    pictures = default_pictures()
    assert pictures.shape == (2, 3, 32, 32)
    assert float(pictures.min()) == 0
    assert float(pictures.max()) <= 1
    grid = torch.arange(32) - 15.5
    radius = (grid[:, None] ** 2 + grid**2).sqrt()
    assert float(pictures[:, :, radius > 16].max()) < 0.05
    # upside down they look like neither themselves nor each other
    distances = [(pictures[i] - pictures[j].flip(1, 2)).abs().mean() for i in (0, 1) for j in (0, 1)]
    assert min(map(float, distances)) > 0.05


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([np.zeros((3, 32, 32))], "holds 1 pictures; expected two"),
        ([np.zeros((3, 28, 28))] * 2, r"pictures\[0\] has shape"),
        ([np.zeros((3, 32, 32), dtype=np.uint8)] * 2, "divide by 255"),
        ([np.full((3, 32, 32), 255.0)] * 2, "expected values in"),
        ([np.full((3, 32, 32), np.nan)] * 2, "expected values in"),
        (["missing.png"] * 2, "cannot be read as a picture"),
    ],
)
def test_bad_pictures(pictures, message):
    with pytest.raises(DataError, match=message):
        mario_iggy(pictures, num_train=4, num_test=4)


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"num_test": -1}, {"angle": 45.0}])
def test_arguments_of_mario_iggy(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong)).replace('angle', 'rotation')} is"):
        mario_iggy(pointers(), **{"num_train": 4, "num_test": 4, **wrong})


@pytest.mark.skipif(
    not (Path(os.environ.get("BAYESINV_DATA", "-")) / "cifar10" / "cifar10_10k2k.npz").is_file(),
    reason="BAYESINV_DATA does not name a folder with cifar10/cifar10_10k2k.npz",
)
def test_cifar10_from_disk():
    train, test = cifar10(500, 100)
    # the means of the three channels over CIFAR-10 are .49, .48 and .45, and their s.e. over 500 pictures .006
    assert torch.allclose(train.x.mean((0, 2, 3)), torch.tensor([0.49, 0.48, 0.45]), atol=0.03)
    assert train.y.bincount(minlength=10).min() > 20
    assert len(test) == 100
