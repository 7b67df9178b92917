"""Saved, read back without the heavy packages, and refused where it cannot be right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import torch as safetensors

import bayesinv
from bayesinv.errors import SavedFileError
from bayesinv.export import Augmentation
from bayesinv.transforms import Coordinate, Transform
from tests.export.cases import TRANSFORMS, augmentation, inputs


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_round_trip_draws_the_same_copies(name, tmp_path):
    options = {"distributions": {"rotation": "gaussian"}} if name == "affine" else {}
    aug = augmentation(name, copies=2, draws="mean", seed=9, **options)
    loaded = bayesinv.export.load(aug.save(tmp_path / "aug.safetensors"))
    x = inputs(TRANSFORMS[name][1])
    assert torch.equal(aug(x), loaded(x))
    assert repr(aug) == repr(loaded) and aug.event_shape == loaded.event_shape
    assert json.loads((tmp_path / "aug.json").read_text()) == aug.numbers()


def test_the_loader_needs_no_pyro_gpytorch_or_arviz(tmp_path):
    path = augmentation("unfused").save(tmp_path / "aug.safetensors")
    code = (
        "import sys, torch, bayesinv\n"
        f"aug = bayesinv.export.load({str(path)!r})\n"
        "net = bayesinv.InvariantPredictor(torch.nn.Flatten(), aug, 4)\n"
        "print(aug(torch.rand(2, 3, 16, 16)).shape, net(torch.rand(2, 3, 16, 16)).shape)\n"
        "heavy = {'pyro', 'gpytorch', 'arviz', 'linear_operator', 'pandas', 'xarray', 'sklearn', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    root = Path(bayesinv.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["torch.Size([2, 3, 16, 16]) torch.Size([2, 768])", "[]"]


def test_nothing_is_replaced_unless_asked(tmp_path):
    aug = augmentation("affine")
    (tmp_path / "aug.json").write_text("mine")
    with pytest.raises(FileExistsError):
        aug.save(tmp_path / "aug.safetensors")
    assert not (tmp_path / "aug.safetensors").exists()  # neither of the two
    aug.save(tmp_path / "aug.safetensors", overwrite=True)
    with pytest.raises(ValueError, match="expected a name"):
        aug.save(tmp_path / "other.json")


def rewritten(path, **changes):
    """The same file with other metadata."""
    content = path.read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    path.write_bytes(safetensors.save(safetensors.load(content), metadata | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.write_bytes(b"not such a file"), "damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:-4]), "damaged"),
        (lambda p: p.write_bytes(b""), "damaged"),
        (lambda p: p.write_bytes(safetensors.save({"weight": torch.zeros(2)})), "not an augmentation"),
        (lambda p: rewritten(p, format="another"), "not an augmentation"),
        (lambda p: rewritten(p, version="3"), "version 3"),
        (lambda p: rewritten(p, header="{}"), "cannot be rebuilt"),
        (lambda p: rewritten(p, header="["), "cannot be rebuilt"),
    ],
)
def test_files_that_cannot_be_right_are_refused(change, message, tmp_path):
    path = augmentation("affine").save(tmp_path / "aug.safetensors")
    change(path)
    with pytest.raises(SavedFileError, match=message):
        bayesinv.export.load(path)


class Unregistered(Transform):
    coordinates = (Coordinate.linear("gain", "%", 1.0, 100.0),)

    def transform(self, x, t):
        return x * t.exp()[:, :, None]


def test_what_nothing_could_read_back_is_not_written(tmp_path):
    aug = Augmentation(Unregistered(), torch.ones(1, 1), (1, 4))
    with pytest.raises(ValueError, match="register"):
        aug.save(tmp_path / "aug.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_wrong_load_says_which_one_is_right(tmp_path):
    posterior, augmented, numbers = (tmp_path / name for name in ("a.bayesinv", "aug.safetensors", "aug.json"))
    posterior.write_bytes(b"PK and more")
    numbers.write_text("{}")
    augmented.write_bytes(b"no zip")
    with pytest.raises(SavedFileError, match=r"bayesinv\.load\(path\)"):
        bayesinv.export.load(posterior)
    with pytest.raises(SavedFileError, match=r"load aug\.safetensors beside them"):
        bayesinv.export.load(numbers)
    with pytest.raises(SavedFileError, match=r"bayesinv\.export\.load\(path\)"):
        bayesinv.load(augmented)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        bayesinv.export.load(tmp_path / "nowhere.safetensors")
