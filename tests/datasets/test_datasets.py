"""The bundled digits, files and folders."""

import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from bayesinv.data.container import as_data
from bayesinv.datasets import data_root, digits, load_image_folder, load_npz, mario_iggy, mnist
from bayesinv.errors import DataError, DataWarning


def test_digits_are_scikit_learns():
    train, test = digits(num_train=300, size=8)
    assert (len(train), len(test)) == (300, 1497)
    assert train.num_classes == test.num_classes == 10
    assert float(train.x.min()) == 0
    assert float(train.x.max()) == 1
    # at the original size nothing is interpolated: the same pictures, in another order
    ours = torch.cat([train.x, test.x]).reshape(1797, 64).double() * 16
    theirs = load_digits().data
    assert sorted(map(bytes, ours.numpy().astype(np.uint8))) == sorted(map(bytes, theirs.astype(np.uint8)))
    as_data(train, "categorical")


def test_the_seed_alone_decides():
    state = torch.random.get_rng_state()
    first = digits(rotation=1.0, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    np.random.seed(99)
    second = digits(rotation=1.0, seed=3)
    other = digits(rotation=1.0, seed=4)
    for a, b, c in zip(first, second, other, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)
        assert not torch.equal(a.y, c.y)


def test_rotation_turns_every_image_by_its_own_angle():
    upright, turned = digits(seed=1, size=16), digits(rotation=math.pi, seed=1, size=16)
    for a, b in zip(upright, turned, strict=True):
        assert torch.equal(a.y, b.y)
        differs = (a.x - b.x).abs().amax((1, 2, 3))
        assert float((differs > 0.1).float().mean()) > 0.95
        # a turn moves ink but neither makes nor loses much of it
        assert float(b.x.sum() / a.x.sum()) == pytest.approx(1, abs=0.05)
    assert torch.allclose(digits(rotation=0.0, seed=1).train.x, upright.train.x, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"size": 4}, {"num_train": 0}, {"num_train": 1797}, {"rotation": 45.0}, {"rotation": -1.0}],
)
def test_arguments_of_digits(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        digits(**wrong)


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("BAYESINV_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv("BAYESINV_DATA", str(tmp_path / "missing"))
    with pytest.raises(DataError, match="not a folder"):
        data_root()
    monkeypatch.delenv("BAYESINV_DATA")
    with pytest.raises(DataError, match="BAYESINV_DATA is not set"):
        data_root()


def test_mnist_is_not_downloaded(tmp_path):
    with pytest.raises(DataError, match="Nothing is downloaded"):
        mnist(tmp_path)


@pytest.mark.skipif(
    not (Path(os.environ.get("BAYESINV_DATA", "-")) / "MNIST" / "raw").is_dir(),
    reason="BAYESINV_DATA does not name a folder with MNIST",
)
def test_mnist_from_disk():
    train, test = mnist(num_train=50, num_test=20, seed=1)
    assert train.x.shape == (50, 1, 28, 28)
    assert test.x.shape == (20, 1, 28, 28)
    assert float(train.x.max()) == 1
    assert torch.equal(train.x, mnist(num_train=50, num_test=20, seed=1).train.x)
    with pytest.raises(ValueError, match="num_train is 60001"):
        mnist(num_train=60001)


def test_npz_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.zeros((100, 1, 8, 8)), y=np.zeros(100, int), other=np.zeros(10**6))
    monkeypatch.setattr("bayesinv.datasets.files.LARGEST_WHOLE", 60_000)
    assert load_npz(path).x.shape == (100, 1, 8, 8)  # what is not asked for does not count
    with pytest.raises(DataError, match="holds arrays of 0 GB under other"):
        load_npz(path, x_key="other", y_key="missing")


def test_npz(tmp_path):
    path = tmp_path / "data.npz"
    x, y = np.random.default_rng(0).random((4, 1, 8, 8)), np.array([0, 1, 0, 1])
    np.savez(path, x=x, y=y, classes=np.array(["cat", "dog"]), other=y)
    examples = load_npz(path)
    assert np.array_equal(examples.x, x)
    assert np.array_equal(examples.y, y)
    assert examples.classes == ("cat", "dog")
    assert np.array_equal(load_npz(path, x_key="other", y_key="missing").x, y)
    assert load_npz(path, y_key="missing").y is None


def bad_npz(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "data.npz"
    if kind == "other names":
        np.savez(path, images=np.zeros(3))
    elif kind == "text":
        path.write_text("x,y\n1,2\n")
    elif kind == "empty":
        path.touch()
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "cut short":
        np.savez(path, x=np.random.default_rng(0).random((40, 8)))
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "damaged":
        np.savez(path, x=np.zeros((40, 8)))
        content = bytearray(path.read_bytes())
        content[400] ^= 255
        path.write_bytes(bytes(content))
    elif kind == "objects":
        np.savez(path, x=np.array([{}, []], dtype=object))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", "not an array")
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no file"),
        ("folder", "there is no file"),
        ("other names", "no array 'x'; it holds images"),
        ("empty", "cannot be read"),
        ("npy", "single array"),
        ("cut short", "cannot be read"),
        ("damaged", "cannot be read"),
        ("objects", "Python objects"),
        ("text", r"it is none, whatever its name, and begins with b'x,y"),
        ("zip", "cannot be read"),
    ],
)
def test_bad_npz(tmp_path, kind, message):
    with pytest.raises(DataError, match=message):
        load_npz(bad_npz(tmp_path, kind))


def save_picture(path: Path, mode: str = "L", size=(8, 8), value: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fill = value if mode in ("L", "I;16") else (value,) * len(mode)
    Image.new(mode, size, fill).save(path)


def test_image_folder(tmp_path):
    for name in ("dog", "cat"):
        for i in range(2):
            save_picture(tmp_path / name / f"{i}.png", value=51)
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden").mkdir()
    examples = load_image_folder(tmp_path)
    assert examples.x.shape == (4, 1, 8, 8)
    assert examples.x.dtype == np.float32
    assert np.allclose(examples.x, 0.2)
    assert examples.y.tolist() == [0, 0, 1, 1]
    assert examples.classes == ("cat", "dog")
    assert load_image_folder(tmp_path, channels=3).x.shape == (4, 3, 8, 8)
    unlabelled = load_image_folder(tmp_path / "cat")
    assert unlabelled.y is None
    assert unlabelled.classes == ()


def test_pixel_types(tmp_path):
    save_picture(tmp_path / "grey.png", "L", value=102)
    save_picture(tmp_path / "sixteen.png", "I;16", value=26214)
    save_picture(tmp_path / "rgb.png", "RGB", value=102)
    Image.new("RGBA", (8, 8), (102, 102, 102, 255)).save(tmp_path / "rgba.png")
    examples = load_image_folder(tmp_path)
    assert examples.x.shape == (4, 3, 8, 8)
    assert np.allclose(examples.x, 0.4, atol=1e-3)
    assert np.allclose(load_image_folder(tmp_path, channels=1).x, 0.4, atol=1e-3)
    with pytest.raises(DataError, match=r"(grey|rgb|rgba)\.png has 8 bits and .*sixteen\.png more"):
        load_image_folder(tmp_path, divide_by=4095)


@pytest.mark.parametrize("largest", [4000, 16383])
def test_pictures_of_sixteen_bits_that_hold_fewer(tmp_path, largest):
    save_picture(tmp_path / "dark.png", "I;16", value=100)
    save_picture(tmp_path / "bright.png", "I;16", value=largest)
    white = 2 ** len(f"{largest:b}") - 1
    with pytest.warns(DataWarning, match=f"largest value in these 2 is {largest}.*divide_by={white}"):
        assert load_image_folder(tmp_path).x.max() == pytest.approx(largest / 65535)
    examples = load_image_folder(tmp_path, divide_by=white)
    assert examples.x[0].max() == pytest.approx(largest / white)
    assert examples.dtype == "uint16"
    save_picture(tmp_path / "bright.png", "I;16", value=16384)  # as many as sixteen bits may
    load_image_folder(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "level", "white"), [(np.float32, 0.5, 1), (np.float32, 3000, 4095), (np.int32, 99, 255)]
)
def test_pictures_that_do_not_say_what_is_white(tmp_path, dtype, level, white):
    Image.fromarray(np.full((8, 8), level, dtype)).save(tmp_path / "1.tif")
    with pytest.raises(DataError, match=f"reaches {level}; expected 8 or 16 bits, .*: divide_by={white}$"):
        load_image_folder(tmp_path)
    for size in (None, 4):
        assert np.allclose(load_image_folder(tmp_path, size, divide_by=white).x, level / white)


def test_pictures_of_eight_bits_are_divided_by_what_is_said(tmp_path):
    save_picture(tmp_path / "1.png", value=12)
    assert np.allclose(load_image_folder(tmp_path, divide_by=15).x, 0.8)
    for same in (None, 1, 255):
        assert np.allclose(load_image_folder(tmp_path, divide_by=same).x, 12 / 255)


def test_what_is_left_out_is_counted_and_named(tmp_path):
    for name in ("a", "b"):
        save_picture(tmp_path / name / "1.png")
    load_image_folder(tmp_path)  # nothing to warn of
    save_picture(tmp_path / "stray.png")
    save_picture(tmp_path / "b" / "more" / "1.png")
    for i in range(9):
        (tmp_path / "a" / f"{i}.heic").write_bytes(b"x")
    (tmp_path / "a" / "._1.png").write_bytes(b"a file of the system")
    with pytest.warns(DataWarning, match=r"left out 11 .*stray\.png, a/0\.heic, b/more.* and read 2 pictures") as told:
        examples = load_image_folder(tmp_path)
    assert len(told) == 1
    assert examples.files == ("a/1.png", "b/1.png")


def test_transparent_pictures_are_read_over_black(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "1.png")
    Image.new("LA", (8, 8), (255, 51)).save(tmp_path / "2.png")
    with pytest.warns(DataWarning, match=r"2 of 2 pictures are transparent in places, .*\(1\.png, 2\.png\)"):
        x = load_image_folder(tmp_path).x
    assert float(x[0].max()) == 0
    assert np.allclose(x[1], 0.2)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_pictures_are_read_as_they_are_seen(tmp_path, mode, suffix):
    if (mode, suffix) == ("I;16", "jpg"):
        pytest.skip("there is no such file")
    seen = np.zeros((24, 16), np.uint8)
    seen[:8] = 255
    for turns, tag in enumerate([1, 6, 3, 8]):  # stored turned, with the tag that turns it back
        turned = np.rot90(seen, turns).copy()
        image = Image.fromarray(turned.astype(np.uint16) * 257 if mode == "I;16" else turned)
        exif = Image.Exif()
        exif[0x0112] = tag
        (image if mode == "I;16" else image.convert(mode)).save(tmp_path / f"{turns}.{suffix}", exif=exif)
    x = load_image_folder(tmp_path).x
    assert x.shape[2:] == (24, 16)
    assert float(x[:, :, :7].min()) > 0.9
    assert float(x[:, :, 9:].max()) < 0.1
    characters = mario_iggy([str(tmp_path / f"{turns}.{suffix}") for turns in (1, 3)], 8, 4, angle=0.0).train
    upright = characters.x[characters.y == 0]
    assert float(upright[:, :, :6].min()) > 0.9
    assert float(upright[:, :, 20:].max()) < 0.1


def test_resizing_keeps_the_proportions(tmp_path):
    # a bright square in the middle of a wide picture stays a square
    picture = np.zeros((20, 60), dtype=np.uint8)
    picture[5:15, 25:35] = 255
    Image.fromarray(picture).save(tmp_path / "wide.png")
    x = load_image_folder(tmp_path, size=10).x[0, 0]
    assert x.shape == (10, 10)
    assert np.allclose(x, x.T, atol=0.02)
    assert float(x.sum()) == pytest.approx(25, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no folder"),
        ("empty", "holds no pictures"),
        ("empty class", "holds no pictures"),
        ("broken", "cannot be read as a picture"),
        ("cut short", "cannot be read as a picture"),
        ("sizes", "2.png is 8×9 pixels and .*1.png 8×8; expected pictures of one size.* size=32"),
        ("floating", "pixel type F"),
    ],
)
def test_bad_image_folder(tmp_path, kind, message):
    folder = tmp_path / "pictures"
    if kind != "missing":
        folder.mkdir()
    if kind == "empty class":
        save_picture(folder / "cat" / "1.png")
        (folder / "dog").mkdir()
    elif kind == "broken":
        (folder / "1.png").write_text("not a picture")
    elif kind == "cut short":
        noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "1.png")
        (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:-500])
    elif kind == "sizes":
        save_picture(folder / "1.png")
        save_picture(folder / "2.png", size=(8, 9))
    elif kind == "floating":
        Image.fromarray(np.zeros((8, 8), dtype=np.float32)).save(folder / "1.tiff")
    with pytest.raises(DataError, match=message):
        load_image_folder(folder)


def test_arguments_of_image_folder(tmp_path):
    save_picture(tmp_path / "1.png")
    with pytest.raises(ValueError, match="channels is 2"):
        load_image_folder(tmp_path, channels=2)
    with pytest.raises(ValueError, match="size: expected an integer of at least 1"):
        load_image_folder(tmp_path, size=0)


def test_pictures_keep_their_names_and_stacks_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    grey = Image.new("L", (4, 4))
    grey.save(tmp_path / "a" / "2.png")
    grey.save(tmp_path / "a" / "1.png")
    assert load_image_folder(tmp_path).files == ("a/1.png", "a/2.png")
    grey.save(tmp_path / "a" / "stack.tif", save_all=True, append_images=[grey, grey])
    with pytest.raises(DataError, match=r"stack.tif holds 3 frames"):
        load_image_folder(tmp_path)
