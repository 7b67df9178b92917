"""Dipoles that turn with the molecule, at a small size on made-up molecules."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from bayesinv import metrics
from models import molecule_dipole


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    """10,000 made-up molecules of four atoms, with point charges by element."""
    rng = np.random.default_rng(0)
    z = np.zeros((10_000, 29), dtype=np.uint8)
    z[:, :4] = rng.choice([1, 6, 7, 8], (10_000, 4))
    pos = np.zeros((10_000, 29, 3), dtype=np.float32)
    pos[:, :4] = rng.normal(size=(10_000, 4, 3))
    charge = np.select([z == 1, z == 7, z == 8], [0.3, -0.2, -0.4], 0.0)
    dipole = ((charge - charge.mean(1, keepdims=True) * (z > 0))[..., None] * pos).sum(1).astype(np.float32)
    folder = tmp_path_factory.mktemp("molecules")
    np.savez(folder / "qm9.npz", z=z, pos=pos, dipole=dipole)
    return folder / "qm9.npz"


def test_build(molecules):
    model, train, test = molecule_dipole.build(num_train=30, num_test=10, num_orbit_samples=3, root=molecules)
    assert model.symmetries == ("rotation_x", "rotation_y", "rotation_z", "scale")
    assert model.output_action.name == "vector"
    assert train.y.shape == (30, 3)
    assert len(test) == 10
    net = molecule_dipole.AtomSums(width=8)
    order = torch.cat([torch.tensor([2, 0, 3, 1]), torch.arange(4, 29)])
    assert torch.allclose(net(test.x), net(test.x[:, order]), atol=1e-5)  # the order of atoms says nothing
    assert max(metrics.equivariance_error(net, test.x, model.transform, "vector").values()) > 0.1


@pytest.mark.parametrize("inference", ["vi", "none"])
def test_script(inference, molecules, tmp_path, capsys):
    out = tmp_path / "out"
    size = ["--num-train", "40", "--num-test", "20", "--width", "6", "--num-orbit-samples", "2", "--epochs", "2"]
    options = ["--batch-size", "20", "--device", "cpu", "--quiet", "--root", str(molecules), "--out", str(out)]
    with_warnings = molecule_dipole.main([*size, *options, "--inference", inference])
    assert with_warnings == 0
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    assert f"RMSE {found['rmse_debye']:.3f} D" in printed
    before, after = found["equivariance_error_before"], found["equivariance_error_after"]
    assert f"equivariance error {before:.3f} (network) and {after:.3f} (prediction)" in printed
    if inference == "none":
        assert before == pytest.approx(after, rel=1e-4)
    with Image.open(out / "dipoles.png") as picture:
        assert min(picture.size) > 300
