"""The commands on tables, signals and points, with networks, and where they are interrupted."""

import json
import math
import os

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import bayesinv
from bayesinv.cli import main
from bayesinv.cli.networks import make_network

TINY = ["--max-steps", "4", "--num-features", "32", "--num-orbit-samples", "4", "--num-draws", "25"]
QUICK = [*TINY, "--quiet", "--no-figures"]
AUDIT = ["--num-features", "32", "--num-orbit-samples", "4", "--quiet"]


def words(*arguments):
    return [str(argument) for argument in arguments]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    a, b = rng.normal(50, 10, 40), rng.normal(size=40)
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    pd.DataFrame({"a": a, "b": b, "kind": np.where(a > 50, "big", "small")}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    rng = np.random.default_rng(0)
    y = np.arange(30) % 2
    x = np.sin(2 * math.pi * (1 + y)[:, None] * np.arange(16) / 16 + rng.uniform(0, 6, 30)[:, None])
    path = tmp_path_factory.mktemp("signals") / "x.npz"
    np.savez(path, x=x[:, None].astype(np.float32), y=y, classes=["slow", "fast"])
    return path


def test_a_table_is_fitted_standardised_and_predicted_by_names(table, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(words("fit", table, "--target", "kind", "--out", run, *QUICK, "--symmetries", "shift_b")) == 0
    stored = json.loads((run / "run.json").read_text())
    assert stored["classes"] == ["big", "small"]
    assert stored["reading"]["columns"] == ["a", "b"]
    posterior = bayesinv.load(run / "posterior.npz")
    assert posterior.data.x.mean(0).abs().max() < 1e-6
    scales = bayesinv.export.load(run / "augmentation.safetensors").scales  # rows come as they are
    assert np.allclose(scales[0], pd.read_csv(table)[["a", "b"]].mean())
    assert np.allclose(scales[1], pd.read_csv(table)[["a", "b"]].std(ddof=0), rtol=0.1)
    # other columns first, and no targets
    new = tmp_path / "new.csv"
    pd.read_csv(table)[["b", "a"]].to_csv(new, index=False)
    out = tmp_path / "out.csv"
    assert main(words("predict", run, new, "--out", out)) == 0
    found = pd.read_csv(out)
    assert (found["predicted"] == pd.read_csv(table)["kind"]).mean() > 0.85
    capsys.readouterr()
    assert main(words("predict", run, table)) == 0
    assert "accuracy" in capsys.readouterr().out


def test_of_a_table_shifts_are_learned_where_nothing_is_named(table, tmp_path, capsys):
    """An order or a sign of columns with several meanings makes no sense, and the audit asks for it all the same."""
    run = tmp_path / "run"
    assert main(words("fit", table, "--target", "kind", "--out", run, *QUICK)) == 0
    assert list(pd.read_csv(run / "summary.csv")["symmetry"]) == ["shift_a", "shift_b"]
    assert main(words("audit", table, "--target", "kind", "--out", tmp_path / "audit", *AUDIT)) == 0
    assert "sign_flip" in capsys.readouterr().out
    scales = bayesinv.export.load(tmp_path / "audit" / "augmentation.safetensors").scales
    assert np.allclose(scales[0], pd.read_csv(table)[["a", "b"]].mean())


def test_a_table_without_its_target_is_refused(table, tmp_path, capsys):
    assert main(words("fit", table, "--out", tmp_path / "run", *QUICK)) == 2
    assert "--target COLUMN, out of a, b, kind" in capsys.readouterr().err
    assert main(words("audit", table, "--out", tmp_path / "run", *AUDIT)) == 2
    assert "--target COLUMN, out of a, b, kind" in capsys.readouterr().err


def test_signals_need_their_kind_and_are_audited(signals, tmp_path, capsys):
    assert main(words("audit", signals, "--out", tmp_path / "audit", *AUDIT)) == 2
    assert "--kind signals" in capsys.readouterr().err
    names = ["--operations", "time_shift", "sign_flip"]
    assert main(words("audit", signals, "--kind", "signals", "--out", tmp_path / "audit", *AUDIT, *names)) == 0
    output = capsys.readouterr().out
    assert "permitted" in output
    assert "time_shift: " in output
    inside = {path.name for path in (tmp_path / "audit").iterdir()}
    assert {
        "report.html",
        "table.csv",
        "recommendations.txt",
        "augmentation.safetensors",
        "augmentation.json",
    } <= inside
    augmentation = bayesinv.export.load(tmp_path / "audit" / "augmentation.safetensors")
    assert augmentation(torch.rand(2, 1, 16)).shape == (2, 1, 16)
    assert main(words("show", tmp_path / "audit")) == 2
    assert "report.html" in capsys.readouterr().err


def test_a_network_is_fitted_shown_and_predicts(tmp_path, capsys):
    data = bayesinv.datasets.digits(num_train=40, size=8, seed=0).train
    path, run = tmp_path / "x.npz", tmp_path / "run"
    np.savez(path, x=data.x.numpy(), y=data.y.numpy(), classes=list("abcdefghij"))
    options = ["--network", "lenet", "--epochs", "1", "--batch-size", "20", "--symmetries", "rotation", "--quiet"]
    sizes = ["--num-orbit-samples", "2", "--num-draws", "10", "--no-figures"]
    assert main(words("fit", path, "--out", run, *options, *sizes)) == 0
    assert not (tmp_path / "run.checkpoint").exists()
    capsys.readouterr()
    assert main(words("show", run)) == 0
    assert "rotation" in capsys.readouterr().out
    assert main(words("predict", run, path)) == 0
    assert "p(a)" in capsys.readouterr().out


def test_an_interrupted_training_is_kept_and_said(tmp_path, capsys, monkeypatch):
    data = bayesinv.datasets.digits(num_train=40, size=8, seed=0).train
    path = tmp_path / "x.npz"
    np.savez(path, x=data.x.numpy(), y=data.y.numpy())

    def interrupted(*arguments, training, **others):
        training.checkpoint.write_bytes(b"state")
        raise KeyboardInterrupt

    monkeypatch.setattr(bayesinv, "fit", interrupted)
    assert main(words("fit", path, "--out", tmp_path / "run", "--network", "lenet", "--quiet")) == 130
    assert "run.checkpoint" in capsys.readouterr().err
    assert (tmp_path / "run.checkpoint").exists()
    assert not (tmp_path / "run").exists()


def test_an_interrupted_process_is_kept_and_goes_on(tmp_path, capsys, monkeypatch):
    data = bayesinv.datasets.digits(num_train=30, size=8, seed=0).train
    path, run = tmp_path / "x.npz", tmp_path / "run"
    np.savez(path, x=data.x.numpy(), y=data.y.numpy())
    sizes = ["--num-orbit-samples", "2", "--num-features", "16", "--num-draws", "10", "--symmetries", "rotation"]
    command = words("fit", path, "--out", run, *sizes, "--no-figures", "--quiet")
    fit = bayesinv.fit

    def interrupt(step):
        raise KeyboardInterrupt

    monkeypatch.setattr(bayesinv, "fit", lambda *a, **k: fit(*a, **k, callbacks=[interrupt]))
    assert main(command) == 130
    assert "run.checkpoint" in capsys.readouterr().err
    assert (tmp_path / "run.checkpoint").stat().st_size > 0
    assert not run.exists()
    monkeypatch.setattr(bayesinv, "fit", fit)
    assert main(command) == 0
    assert (run / "posterior.npz").exists()
    assert not (tmp_path / "run.checkpoint").exists()


def interrupt(*arguments):
    raise KeyboardInterrupt


def full(*arguments):
    raise OSError(28, "No space left on device")


NETWORK = ["--network", "lenet", "--epochs", "1", "--batch-size", "20"]


@pytest.mark.filterwarnings("ignore:.*finished:UserWarning")
@pytest.mark.parametrize("model", [["--num-features", "16"], NETWORK], ids=["gp", "network"])
@pytest.mark.parametrize(("stop", "code"), [(interrupt, 130), (full, 2)], ids=["interrupted", "failed"])
def test_what_stops_after_the_fit_loses_nothing(tmp_path, capsys, monkeypatch, model, stop, code):
    """The checkpoint goes once the folder has its name: figures may be stopped, or the disk be full."""
    data = bayesinv.datasets.digits(num_train=40, size=8, seed=0).train
    path, run = tmp_path / "x.npz", tmp_path / "run"
    np.savez(path, x=data.x.numpy(), y=data.y.numpy())
    sizes = ["--num-orbit-samples", "2", "--num-draws", "10", "--symmetries", "rotation", "--quiet"]
    command = words("fit", path, "--out", run, *sizes, *model)
    with monkeypatch.context() as patched:
        patched.setattr("bayesinv.cli.commands._write_figures", stop)
        assert main(command) == code
    said = capsys.readouterr().err
    assert "nothing was written" not in said
    assert (
        f"what was computed so far is in {tmp_path / 'run.checkpoint'}, and the same command goes on from there" in said
    )
    assert {each.name for each in tmp_path.iterdir()} == {"x.npz", "run.checkpoint"}
    assert main([*command, "--no-figures"]) == 0
    assert {each.name for each in tmp_path.iterdir()} == {"x.npz", "run"}
    assert (run / "posterior.npz").is_file()


def test_an_error_before_the_fit_names_no_checkpoint(tmp_path, capsys):
    (tmp_path / "run.checkpoint").write_bytes(b"of an earlier fit")
    assert main(words("fit", tmp_path / "missing.npz", "--out", tmp_path / "run")) == 2
    assert "checkpoint" not in capsys.readouterr().err


def test_an_interruption_after_the_folder_is_written_says_so(tmp_path, capsys, monkeypatch):
    data = bayesinv.datasets.digits(num_train=40, size=8, seed=0).train
    path, run = tmp_path / "x.npz", tmp_path / "run"
    np.savez(path, x=data.x.numpy(), y=data.y.numpy())
    monkeypatch.setattr("bayesinv.cli.commands._print_fit", interrupt)
    assert main(words("fit", path, "--out", run, *QUICK, "--symmetries", "rotation")) == 130
    said = capsys.readouterr().err
    assert "nothing was written" not in said and f"the fit is in {run}" in said
    assert {each.name for each in tmp_path.iterdir()} == {"x.npz", "run"}


@pytest.mark.filterwarnings("always::bayesinv.errors.DataWarning")
def test_broken_pictures_are_refused_or_skipped_with_a_list(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            picture = Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8))
            picture.save(tmp_path / "photos" / name / f"{i:02}.png")
    (tmp_path / "photos" / "dog" / "03.png").write_bytes(b"no picture")
    command = words("audit", tmp_path / "photos", "--out", tmp_path / "audit", *AUDIT, "--operations", "flip_x")
    assert main(command) == 2
    assert "dog/03.png cannot be read" in capsys.readouterr().err
    assert main([*command, "--skip-broken"]) == 0
    output = capsys.readouterr()
    assert "left out 1 of 24 pictures, which cannot be read: dog/03.png" in output.err
    assert "23 examples" in output.out


def test_networks_by_name(tmp_path, monkeypatch):
    for name in ("lenet", "resnet8"):
        assert make_network(name, (3, 12, 12), 4)(torch.rand(2, 3, 12, 12)).shape == (2, 4)
    (tmp_path / "mynets.py").write_text("from torch import nn\ndef net(outputs): return nn.Linear(3, outputs)\n")
    monkeypatch.chdir(tmp_path)
    assert make_network("mynets:net", (3,), 2).out_features == 2
    with pytest.raises(ValueError, match="mynets:other"):
        make_network("mynets:other", (3,), 2)
    with pytest.raises(ValueError, match="expected lenet, resnet8 or module:attr"):
        make_network("vgg", (3, 8, 8), 2)
    with pytest.raises(ValueError, match="takes images"):
        make_network("lenet", (3,), 2)


def test_an_interrupted_audit_goes_on_with_the_same_command(table, tmp_path, capsys, monkeypatch):
    command = words("audit", table, "--target", "kind", "--out", tmp_path / "audit", *AUDIT)
    with monkeypatch.context() as patched:
        patched.setattr("bayesinv.auditing.audit.against_constant", interrupt)
        assert main(command) == 130
    file = tmp_path / "audit.checkpoint"
    assert f"what was computed so far is in {file}" in capsys.readouterr().err and file.is_file()
    with monkeypatch.context() as patched:
        patched.setattr("bayesinv.auditing.search.one_more", None)  # nothing is integrated again
        assert main(command) == 0
    assert (tmp_path / "audit" / "table.csv").is_file() and not file.exists()


def test_the_command_line_asks_for_large_pages_unless_told_otherwise(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    assert main(["show", str(tmp_path)]) == 2
    assert os.environ.pop("THP_MEM_ALLOC_ENABLE") == "1"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    assert main(["show", str(tmp_path)]) == 2
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
