"""Classes or real targets: what `bayesinv fit` takes them for, and says."""

import json

import numpy as np
import pandas as pd
import pytest

import bayesinv
from bayesinv.cli import main
from bayesinv.datasets import Examples

QUICK = ["--max-steps", "4", "--num-features", "32", "--num-orbit-samples", "4", "--num-draws", "25", "--no-figures"]


@pytest.fixture
def houses(tmp_path):
    """A table of forty prices, whole numbers and not."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.normal(100, 20, 40), "age": rng.normal(size=40)})
    table["price"] = 3000.5 * table["size"] + rng.normal(size=40)
    table["rooms"] = (table["size"] // 40).astype(float)
    path = tmp_path / "houses.csv"
    table.to_csv(path, index=False)
    return path


def command(*arguments):
    return [str(argument) for argument in arguments]


@pytest.mark.filterwarnings("ignore::bayesinv.errors.DataWarning")
def test_prices_are_numbers_in_every_command(houses, tmp_path, capsys):
    run = tmp_path / "run"
    inputs = ["--columns", "size", "age", "--symmetries", "shift_age"]
    assert main(command("fit", houses, "--target", "price", "--out", run, *QUICK, *inputs)) == 0
    output = capsys.readouterr()
    chosen = "likelihood    gaussian (real targets, by what the targets look like; say --likelihood categorical"
    assert chosen in output.out and chosen in output.err
    stored = json.loads((run / "run.json").read_text())
    assert stored["classes"] == [] and stored["reading"]["labels"] is False
    assert bayesinv.load(run / "posterior.npz").model.likelihood == "gaussian"
    assert main(command("show", run)) == 0
    assert "gaussian targets" in capsys.readouterr().out
    assert main(command("predict", run, houses)) == 0
    assert "root mean squared error" in capsys.readouterr().out
    assert main(command("report", run, "--test", houses, "--no-baselines")) == 0


def test_a_test_set_of_whole_prices_stays_numbers(houses, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--target", "price", "--columns", "size", "age", "--symmetries", "shift_age", "--quiet"]
    assert main(command("fit", houses, "--out", run, *QUICK, *options)) == 0
    table = pd.read_csv(houses).head(5)
    table["price"] = [300000, 300000, 200000, 200000, 300000]
    table.to_csv(tmp_path / "new.csv", index=False)
    capsys.readouterr()
    assert main(command("predict", run, tmp_path / "new.csv")) == 0
    assert "root mean squared error" in capsys.readouterr().out


def test_few_whole_numbers_are_classes(houses, tmp_path, capsys):
    options = ["--target", "rooms", "--columns", "size", "age", "--symmetries", "shift_age", "--quiet"]
    assert main(command("fit", houses, "--out", tmp_path / "run", *QUICK, *options)) == 0
    output = capsys.readouterr()
    assert "likelihood    categorical (3 classes, by what the targets look like; say --likelihood gau" in output.out
    assert "likelihood" not in output.err  # quiet


def test_a_stated_likelihood_is_said_too(houses, tmp_path, capsys):
    options = ["--target", "rooms", "--columns", "size", "age", "--symmetries", "shift_age", "--quiet"]
    stated = ["--likelihood", "gaussian"]
    assert main(command("fit", houses, "--out", tmp_path / "run", *QUICK, *options, *stated)) == 0
    assert "likelihood    gaussian (real targets)\n" in capsys.readouterr().out


def test_numbers_are_no_classes(houses, tmp_path, capsys):
    categorical = ["--likelihood", "categorical", "--out", tmp_path / "run"]
    assert main(command("fit", houses, "--target", "price", *categorical)) == 2
    said = capsys.readouterr().err
    assert "'price'" in said and "not whole" in said and "--likelihood gaussian" in said and "labels=" not in said
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((12, 1, 8, 8)), y=np.arange(12) / 4)
    assert main(command("fit", tmp_path / "x.npz", *categorical)) == 2
    said = capsys.readouterr().err
    assert "hold 0.25; expected integer labels" in said and "--likelihood gaussian" in said


def test_labels_stored_as_floating_point(tmp_path, capsys):
    data = bayesinv.datasets.digits(num_train=300, size=8, seed=0).train
    keep = data.y < 3
    path, run = tmp_path / "x.npz", tmp_path / "run"
    np.savez(path, x=data.x[keep][:60].numpy(), y=data.y[keep][:60].double().numpy())
    assert main(command("fit", path, "--out", run, *QUICK, "--symmetries", "rotation", "--quiet")) == 0
    assert "categorical (3 classes" in capsys.readouterr().out
    assert main(command("predict", run, path)) == 0
    assert "accuracy" in capsys.readouterr().out
    assert main(command("report", run, "--test", path, "--no-baselines")) == 0


def test_a_network_has_as_many_outputs_as_the_targets_say(houses, tmp_path, monkeypatch, capsys):
    (tmp_path / "pricenets.py").write_text("from torch import nn\ndef net(outputs): return nn.Linear(2, outputs)\n")
    monkeypatch.chdir(tmp_path)
    options = ["--target", "price", "--columns", "size", "age", "--symmetries", "shift_age", "--quiet"]
    network = ["--network", "pricenets:net", "--epochs", "1", "--num-orbit-samples", "2", "--num-draws", "10"]
    assert main(command("fit", houses, "--out", tmp_path / "run", *options, *network, "--no-figures")) == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())["network"]
    assert (facts["num_outputs"], facts["likelihood"]) == (1, "gaussian")
    capsys.readouterr()
    assert main(command("show", tmp_path / "run")) == 0
    assert "gaussian targets" in capsys.readouterr().out


def test_names_are_classes_however_many():
    from bayesinv.cli.targets import likelihood_of

    y = np.arange(42) % 21
    assert likelihood_of(Examples(np.zeros((42, 1)), y, tuple(map(str, range(21)))), "auto") == "categorical"
    assert likelihood_of(Examples(np.zeros((42, 1)), y, ()), "auto") == "categorical"  # each of 0 ... 20 twice
    assert likelihood_of(Examples(np.zeros((42, 1)), y + 18, ()), "auto") == "gaussian"  # ages, say


@pytest.mark.parametrize("option", [["--evidence", "laplace"], ["--evidence", "gaussain"], ["--likelihood", "gauss"]])
def test_typos_are_found_before_the_targets_are_read(tmp_path, capsys, option):
    assert main(command("fit", tmp_path / "missing.npz", "--out", tmp_path / "run", *option)) == 2
    assert option[1] in capsys.readouterr().err


@pytest.mark.parametrize(
    "y", [np.arange(12)[:, None] % 3, np.eye(3, dtype=int)[np.arange(12) % 3]], ids=["(n,1)", "one-hot"]
)
def test_whole_numbers_in_several_columns_are_not_guessed(tmp_path, capsys, y):
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((12, 1, 8, 8)), y=y)
    fit = command("fit", tmp_path / "x.npz", "--out", tmp_path / "run", *QUICK, "--symmetries", "rotation")
    assert main(fit) == 2
    said = capsys.readouterr().err
    assert str(y.shape) in said and "--likelihood categorical" in said and "--likelihood gaussian" in said
    assert main([*fit, "--likelihood", "categorical"]) == 2
    assert "expected labels of shape (n,)" in capsys.readouterr().err
