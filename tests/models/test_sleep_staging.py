"""Sleep staging, from end to end on a small file of the recordings' format."""

import json

import numpy as np
import pytest
import torch

from models import sleep_staging

TINY = ["--num-train", "30", "--num-test", "20", "--num-orbit-samples", "2", "--epochs", "1", "--batch-size", "15"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "signals").mkdir()
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(3), 20).astype(np.uint8)
    np.savez(
        folder / "signals" / "sleep_edf_fpzcz_5s.npz",
        x=rng.integers(-200, 200, (60, 500)).astype(np.int16),
        y=(np.arange(60) % 5).astype(np.uint8),
        recording=subject,
        subject=subject,
        scale=np.ones(3),
        offset=np.zeros(3),
    )
    return folder


def run(root, *options):
    return sleep_staging.main([*TINY, "--root", str(root), "--device", "cpu", "--quiet", *map(str, options)])


def test_build(root):
    model, train, test = sleep_staging.build(num_train=30, num_test=20, root=root)
    assert model.symmetries == tuple(sleep_staging.BY_HAND)
    assert model.evidence_name == "laplace"
    assert train.x.shape == (30, 1, 500) and len(test) == 20
    assert model.backbone(train.x).shape == (30, 5)


def test_extents_by_hand_are_within_the_largest():
    for name, transform in sleep_staging.operations().items():
        assert 0 < sleep_staging.BY_HAND[name] <= transform.coordinates[0].largest + 1e-9


def test_balanced_accuracy_counts_stages_alike():
    probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    y = torch.tensor([0, 0, 0, 1, 1])
    assert sleep_staging.balanced_accuracy(probs, y) == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize("names", [[], ["louder"]])
def test_unknown_operations(names, root):
    with pytest.raises(ValueError, match="names: expected some of time_shift"):
        sleep_staging.build(names, num_train=30, num_test=20, root=root)


def test_a_posterior(root, tmp_path, capsys):
    assert run(root, "--operations", "frequency_shift", "sign_flip", "--out", tmp_path) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert set(found["extents"]) == {"frequency_shift", "sign_flip"}
    assert found["log_evidence"] is not None
    said = capsys.readouterr().out
    assert "balanced accuracy" in said and "\nin: " in said
    assert (tmp_path / "extents.png").is_file()


def test_by_hand(root, tmp_path):
    assert run(root, "--inference", "fixed", "--hand", "time_mask", "sign_flip", "--out", tmp_path) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {name: extent["median"] for name, extent in found["extents"].items()} == {
        "time_mask": pytest.approx(1.0),
        "sign_flip": pytest.approx(0.5),
    }


def test_no_augmentation(root, capsys):
    assert run(root, "--inference", "none", "--operations", "noise") == 0
    assert "in: none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--hand", "noise"], "goes with --inference fixed"), (["--root", "nowhere"], "there is no file")],
)
def test_wrong_arguments_end_with_the_cure(options, message, root, capsys):
    with pytest.raises(SystemExit) as ended:
        run(root, *options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
