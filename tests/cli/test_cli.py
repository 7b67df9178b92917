"""The commands, end to end on tiny fits, and every way in which they refuse."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bayesinv.cli import main
from bayesinv.datasets import digits
from bayesinv.io.checkpoints import Checkpoint, CheckpointFile

TINY = ["--max-steps", "4", "--num-features", "32", "--num-orbit-samples", "4", "--num-draws", "25"]
QUICK = [*TINY, "--quiet", "--no-figures"]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Sixty digits of three classes in an .npz file."""
    x, y = (
        digits(num_train=300, seed=0).train.x.numpy(),
        digits(num_train=300, seed=0).train.y.numpy(),
    )
    keep = y < 3
    path = tmp_path_factory.mktemp("data") / "train.npz"
    np.savez(path, x=x[keep][:60], y=y[keep][:60])
    return path


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """A folder that `bayesinv fit` wrote, with figures."""
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["--symmetries", "rotation", "shear", "--fix", "shear=10"]
    assert main(["fit", str(train), "--out", str(out), *TINY, "--quiet", *arguments]) == 0
    return out


def refused(capsys, arguments, *messages):
    """The command exits with 2 and one line that holds each of `messages`; returns the line."""
    assert main([str(argument) for argument in arguments]) == 2
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if line.startswith("bayesinv: error: ")]
    assert len(lines) == 1
    assert "Traceback" not in output.err
    assert output.out == ""
    for message in messages:
        assert message in lines[0]
    return lines[0]


def test_fit_writes_a_whole_folder(run):
    assert {path.name for path in run.iterdir()} == {
        "augmentation.json",
        "augmentation.safetensors",
        "figures",
        "posterior.npz",
        "run.json",
        "summary.csv",
    }
    table = pd.read_csv(run / "summary.csv", index_col="symmetry")
    assert list(table.index) == ["rotation", "shear"]
    assert table.loc["shear", "median"] == pytest.approx(10)
    assert table.loc["rotation", "lower"] <= table.loc["rotation", "upper"]
    figures = {path.name for path in (run / "figures").iterdir()}
    assert figures == {"extents.png", "evidence-rotation.png", "orbit.png", "trace.png"}
    assert not [path for path in run.parent.iterdir() if path.name.startswith(".")]


def test_show_prints_the_table(run, capsys):
    assert main(["show", str(run), "--level", "0.5"]) == 0
    output = capsys.readouterr().out
    assert "50 % interval" in output
    assert "rotation" in output
    assert "±10.0" in output
    assert "Pareto" in output
    (modes,) = [line for line in output.splitlines() if line.startswith("modes ")]
    assert "log joint" in modes and "evaluations from start" in modes and "{" not in output
    assert "log evidence" in output
    assert "60 training examples" in output


def test_show_with_weights_or_without(run, capsys):
    for option, weighted in (("--reweighted", True), ("--no-reweighted", False)):
        assert main(["show", str(run), option]) == 0
        assert ("(importance-weighted)" in capsys.readouterr().out) is weighted


def test_predict(run, train, tmp_path, capsys):
    out = tmp_path / "new.csv"
    assert main(["predict", str(run), str(train), "--out", str(out), "--num-samples", "4"]) == 0
    output = capsys.readouterr().out
    assert "60 predictions written" in output
    accuracy = float(output.split("accuracy ")[1].split(" %")[0])
    table = pd.read_csv(out, index_col="index")
    assert list(table.columns) == ["predicted", "p(0)", "p(1)", "p(2)"]
    assert np.allclose(table.filter(like="p(").sum(axis=1), 1, atol=1e-6)
    y = np.load(train)["y"]
    assert 100 * (table["predicted"] == y).mean() == pytest.approx(accuracy, abs=0.06)
    assert accuracy > 60
    assert main(["predict", str(run), str(train), "--num-samples", "2", "--y-key", "none"]) == 0
    output = capsys.readouterr().out
    assert "... 50 more" in output
    assert "accuracy" not in output


def test_regression(tmp_path, capsys):
    x = digits(num_train=40, seed=0).train.x.numpy()
    path, out = tmp_path / "ink.npz", tmp_path / "run"
    np.savez(path, x=x, y=x.mean((1, 2, 3)))
    arguments = ["--likelihood", "gaussian", "--symmetries", "rotation"]
    assert main(["fit", str(path), "--out", str(out), *QUICK, *arguments]) == 0
    assert main(["predict", str(out), str(path), "--num-samples", "2"]) == 0
    output = capsys.readouterr().out
    assert "root mean squared error" in output
    assert "sd" in output


def test_pictures(tmp_path, capsys):
    images = digits(num_train=300, seed=1).train
    folder = tmp_path / "photos"
    for name, label in (("zero", 0), ("one", 1)):
        (folder / name).mkdir(parents=True)
        chosen = images.x[images.y == label][:12, 0].numpy()
        for i, image in enumerate(chosen):
            Image.fromarray((255 * image).astype(np.uint8)).save(folder / name / f"{i}.png")
    out = tmp_path / "run"
    arguments = ["--size", "12", "--symmetries", "rotation"]
    assert main(["fit", str(folder), "--out", str(out), *QUICK, *arguments]) == 0
    assert json.loads((out / "run.json").read_text())["classes"] == ["one", "zero"]
    csv = tmp_path / "new.csv"
    # pictures without classes, read at the size of the fit
    assert main(["predict", str(out), str(folder / "zero"), "--out", str(csv)]) == 0
    table = pd.read_csv(csv)
    assert list(table.columns) == ["index", "file", "predicted", "p(one)", "p(zero)"]
    assert table["file"][0] == "0.png"
    assert len(table) == 12
    # one class of the two: labels go by name, not by position
    only = tmp_path / "only"
    only.mkdir()
    (folder / "zero").rename(only / "zero")
    capsys.readouterr()
    assert main(["predict", str(out), str(only), "--num-samples", "4"]) == 0
    output = capsys.readouterr().out
    share = (table["predicted"] == "zero").mean()
    assert f"accuracy {100 * share:.1f} %" in output
    (only / "zero").rename(only / "seven")
    refused(capsys, ["predict", out, only], "seven", "one, zero")


def test_demo(tmp_path, capsys):
    out = tmp_path / "demo"
    sizes = ["--num-train", "60", "--num-test", "50", "--no-figures"]
    assert main(["demo", "--out", str(out), *TINY, *sizes]) == 0
    captured = capsys.readouterr()
    for words in ("upright digits", "within ±45°", "full circle", "P(inactive)", "Pareto k̂"):
        assert words in captured.out
    assert captured.out.count("hand-fixed augmentation") == 3
    assert captured.out.count("no invariance") == 3
    assert captured.out.count("log evidence  ") >= 3
    assert "upright, posterior" in captured.err  # the progress bar
    assert (out / "tables.txt").read_text().strip() in captured.out.replace("\n\n\n", "\n\n").strip()
    assert main(["show", str(out)]) == 0
    refused(capsys_after_reading(capsys), ["predict", out, "x.npz"], "choose one of", "upright")
    assert main(["show", str(out / "full-circle")]) == 0
    # the demo replaces what it wrote, and only if it is told to
    refused(capsys_after_reading(capsys), ["demo", "--out", out], "--overwrite")


def capsys_after_reading(capsys):
    capsys.readouterr()
    return capsys


def test_an_existing_folder_is_refused_before_anything_is_computed(run, train, tmp_path, capsys):
    before = (run / "run.json").read_bytes()
    refused(capsys, ["fit", train, "--out", run], "exists", "--overwrite")
    assert (run / "run.json").read_bytes() == before
    file = tmp_path / "file"
    file.write_text("kept")
    refused(capsys, ["fit", train, "--out", file, "--overwrite"], "not a folder")
    own = tmp_path / "mine"
    own.mkdir()
    (own / "thesis.txt").write_text("kept")
    refused(capsys, ["fit", train, "--out", own, "--overwrite"], "not written by bayesinv")
    assert (own / "thesis.txt").read_text() == "kept"
    refused(capsys, ["fit", train, "--out", tmp_path / "no" / "run"], "does not exist")


def test_overwrite_replaces_all_of_it(train, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()  # an empty folder may be replaced
    arguments = ["fit", str(train), "--out", str(out), "--symmetries", "rotation", *QUICK]
    assert main(arguments) == 0
    (out / "left-over.txt").write_text("of an earlier version")
    assert main([*arguments, "--overwrite"]) == 0
    assert not (out / "left-over.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_no_command_replaces_what_it_reads(run, train, tmp_path, capsys):
    data = tmp_path / "data.npz"
    data.write_bytes(train.read_bytes())
    link, twin = tmp_path / "link.csv", tmp_path / "twin.csv"
    link.symlink_to(data)
    os.link(data, twin)
    for out in (data, link, twin):
        refused(capsys, ["predict", run, data, "--out", out, "--overwrite"], "would replace it", "data.npz")
    refused(capsys, ["report", run, "--test", data, "--out", link, "--overwrite"], "would replace it")
    refused(capsys, ["compare", run, data, "--report", data, "--overwrite"], "would replace it")
    refused(capsys, ["predict", run, data, "--out", run / "posterior.npz", "--overwrite"], "something else")
    own = tmp_path / "own"
    shutil.copytree(run, own)
    (own / "data.npz").write_bytes(train.read_bytes())
    refused(capsys, ["fit", own / "data.npz", "--out", own, "--overwrite"], "would replace it")
    assert data.read_bytes() == (own / "data.npz").read_bytes() == train.read_bytes()
    (own / "run.json").write_text("{}")  # that of another program
    refused(capsys, ["fit", train, "--out", own, "--overwrite"], "not written by bayesinv")


def test_predictions_and_reports_replace_their_like(run, train, tmp_path, capsys):
    table, page = tmp_path / "new.csv", tmp_path / "page.html"
    for more in ([], ["--overwrite"]):
        assert main(["predict", str(run), str(train), "--out", str(table), *more]) == 0
        assert main(["report", str(run), "--out", str(page), *more]) == 0


def bad_data(tmp_path, kind):
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 1, 8, 8)), np.arange(12) % 3
    if kind == "NaN":
        x[3, 0, 1, 2] = np.nan
    elif kind == "integers":
        x = (255 * x).astype(np.uint8)
    elif kind == "no channels":
        x = x[:, 0]
    elif kind == "channels last":
        x = np.repeat(x[:, 0, :, :, None], 3, axis=-1)
    elif kind == "lengths":
        y = y[:-1]
    elif kind == "gap":
        y = y * 2
    elif kind == "negative":
        y = y - 1
    elif kind == "fractions":
        y = y + 0.5
    elif kind == "one class":
        y = y * 0
    elif kind == "empty":
        x, y = x[:0], y[:0]
    path = tmp_path / "data.npz"
    np.savez(path, **({"x": x} if kind == "no targets" else {"x": x, "y": y}))
    if kind == "damaged":
        path.write_bytes(path.read_bytes()[:100])
    return path.with_name("missing.npz") if kind == "missing" else path


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        ("NaN", ["1 value that is not finite", "(3, 0, 1, 2)"]),
        ("integers", ["uint8", "--divide-by 255"]),
        ("no channels", ["(12, 8, 8)", "--layout nhw"]),
        ("channels last", ["(12, 8, 8, 3)", "8 channels of 8 × 3 pixels", "--layout nhwc"]),
        ("lengths", ["12 examples and y 11"]),
        ("gap", ["{0, 2, 4}", "0..C-1"]),
        ("negative", ["negative"]),
        ("fractions", ["expected integer labels"]),
        ("one class", ["at least 2 classes"]),
        ("empty", ["empty"]),
        ("no targets", ["no targets", "'y'"]),
        ("damaged", ["cannot be read"]),
        ("missing", ["there is no"]),
    ],
)
def test_bad_data_leave_nothing_behind(tmp_path, capsys, kind, messages):
    given = ["--likelihood", "categorical"] if kind == "fractions" else []
    refused(capsys, ["fit", bad_data(tmp_path, kind), "--out", tmp_path / "run", *given], *messages)
    assert {path.name for path in tmp_path.iterdir()} <= {"data.npz"}


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--symmetries", "rotate"], ["rotate", "rotation"]),
        (["--likelihood", "poisson"], ["poisson", "categorical"]),
        (["--evidence", "laplace"], ["laplace", "dirichlet"]),
        (["--evidence", "gaussian"], ["gaussian", "dirichlet"]),
        (["--padding", "wrap"], ["wrap", "zeros"]),
        (["--inference", "hmc"], ["hmc", "nuts"]),
        (["--guide", "laplace"], ["laplace", "full_rank"]),
        (["--device", "abacus"], ["abacus", "cpu"]),
        (["--fix", "rotate=1"], ["rotate=1", "rotation"]),
        (["--fix", "rotation"], ["rotation=EXTENT", "0 to 180"]),
        (["--fix", "rotation=far"], ["rotation=EXTENT"]),
        (["--fix", "rotation=nan"], ["rotation=EXTENT"]),
        (["--fix", "rotation=181"], ["0 to 180"]),
        (["--fix", "rotation=-1"], ["0 to 180"]),
        (["--max-steps", "0"], ["--max-steps"]),
        (["--num-features", "3"], ["--num-features"]),
        (["--num-orbit-samples", "0"], ["--num-"]),
        (["--divide-by", "0"], ["--divide-by", "positive"]),
        (["--layout", "nhw"], ["nhw", "--layout nchw"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_options(train, tmp_path, capsys, arguments, messages):
    out = tmp_path / "run"
    refused(capsys, ["fit", train, "--out", out, *QUICK, *arguments], *messages)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("typo", [["--symmetries", "rotate"], ["--fix", "rotate=1"], ["--evidence", "laplace"]])
def test_typos_are_found_before_the_data_are_read(tmp_path, capsys, typo):
    refused(capsys, ["fit", tmp_path / "missing.npz", "--out", tmp_path / "run", *typo], typo[1])


@pytest.mark.filterwarnings("always")
def test_grey_levels_of_another_type_than_those_of_the_training_data(tmp_path, capsys):
    images, labels = np.arange(12 * 64, dtype=np.uint16).reshape(12, 1, 8, 8) * 5, np.arange(12) % 2
    np.savez(tmp_path / "train.npz", x=images, y=labels)
    refused(capsys, ["fit", tmp_path / "train.npz", "--out", tmp_path / "run"], "uint16", "to 3835", "--divide-by 4095")
    fit = ["fit", str(tmp_path / "train.npz"), "--out", str(tmp_path / "run"), "--symmetries", "rotation", *QUICK]
    assert main([*fit, "--divide-by", "4095"]) == 0
    np.savez(tmp_path / "new.npz", x=(images // 16).astype(np.uint8))
    predict = ["predict", str(tmp_path / "run"), str(tmp_path / "new.npz")]
    capsys.readouterr()
    assert main(predict) == 0
    said = capsys.readouterr().err
    assert "uint8 images and the training data were uint16" in said and "--divide-by" in said
    assert "reach 0.937" in said  # far darker, too
    assert main([*predict, "--divide-by", "255"]) == 0
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "train.npz")]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.filterwarnings("always")
def test_divide_by_is_for_pictures_too(tmp_path, capsys):
    for label in range(2):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for i in range(6):
            image = np.full((8, 8), 500 * (i + 1 + label), np.uint16)
            Image.fromarray(image).save(tmp_path / "photos" / str(label) / f"{i}.png")
    fit = ["fit", str(tmp_path / "photos"), "--symmetries", "rotation", *QUICK]
    assert main([*fit, "--out", str(tmp_path / "dark")]) == 0
    assert "is 3500" in (said := capsys.readouterr().err) and "--divide-by 4095" in said
    assert main([*fit, "--out", str(tmp_path / "run"), "--divide-by", "4095"]) == 0
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "photos" / "0")]) == 0
    assert "--divide-by" not in capsys.readouterr().err
    with np.load(tmp_path / "run" / "posterior.npz") as saved:
        assert saved["x"].max() == pytest.approx(3500 / 4095)


def test_bad_folders(run, train, tmp_path, capsys):
    refused(capsys, ["show", tmp_path / "missing"], "there is no folder")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    refused(capsys, ["show", foreign], "not a folder that `bayesinv fit` wrote")
    (foreign / "run.json").write_text("{")
    refused(capsys, ["show", foreign], "damaged")
    (foreign / "run.json").write_text("[]")
    refused(capsys, ["show", foreign], "not a folder that")
    (foreign / "run.json").write_text('{"format": "bayesinv output folder", "version": 99}')
    refused(capsys, ["show", foreign], "version 99")
    good = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for change in (
        {"command": None},
        {"reading": 3},
        {"reading": {"evil": 1}},
        {"reading": {"size": "x"}},
        {"classes": 1},
    ):
        (foreign / "run.json").write_text(json.dumps({**good, **change}))
        refused(capsys, ["predict", foreign, train], "run.json is damaged", "run the fit again")
    (foreign / "run.json").write_text(json.dumps({**good, "command": "demo", "sets": 5}))
    refused(capsys, ["show", foreign], "run.json is damaged: sets")
    (foreign / "run.json").write_bytes((run / "run.json").read_bytes())
    refused(capsys, ["predict", foreign, train], "posterior.npz")
    (foreign / "posterior.npz").write_bytes((run / "posterior.npz").read_bytes()[:300])
    refused(capsys, ["predict", foreign, train], "posterior.npz")


def test_a_single_picture_is_no_set_of_data(run, tmp_path, capsys):
    picture = tmp_path / "one.png"
    Image.new("L", (16, 16)).save(picture)
    refused(capsys, ["predict", run, picture], "one.png is a single picture", "the folder it lies in")
    refused(capsys, ["fit", picture, "--out", tmp_path / "out"], "a single picture", "a sub-folder for each class")
    upper = picture.rename(tmp_path / "TWO.JPG")
    assert "pickle" not in refused(capsys, ["predict", run, upper], "a single picture")


@pytest.mark.filterwarnings("default:.*holds an array 'groups':UserWarning")
def test_groups_in_a_file_are_not_passed_over_in_silence(run, tmp_path, capsys):
    path = tmp_path / "grouped.npz"
    np.savez(path, x=np.zeros((2, 1, 16, 16)), groups=np.array([0, 1]))
    assert main(["predict", str(run), str(path), "--num-samples", "1"]) == 0
    said = capsys.readouterr().err
    assert "groups" in said and "bayesinv.Data(x, y, groups=...)" in said
    np.savez(path, x=np.zeros((2, 1, 16, 16)))
    assert main(["predict", str(run), str(path), "--num-samples", "1"]) == 0
    assert capsys.readouterr().err == ""


def test_a_checkpoint_is_no_posterior(tmp_path, capsys):
    path = tmp_path / "run.checkpoint"
    CheckpointFile(path, {}).write(Checkpoint(3, False, [], [], (), 0.0))
    refused(capsys, ["show", path], "is the checkpoint of a training", "run the same fit again")


def test_bad_predictions(run, train, tmp_path, capsys):
    wide = tmp_path / "wide.npz"
    np.savez(wide, x=np.zeros((2, 1, 16, 17)))
    refused(capsys, ["predict", run, wide], "(2, 1, 16, 17)", "16")
    labels = tmp_path / "labels.npz"
    np.savez(labels, x=np.zeros((2, 1, 16, 16)), y=np.array([0, 3]))
    refused(capsys, ["predict", run, labels, "--num-samples", "1"], "0..2")
    existing = tmp_path / "new.csv"
    existing.write_text("kept")
    refused(capsys, ["predict", run, train, "--out", existing], "--overwrite")
    refused(capsys, ["predict", run, train, "--out", existing, "--overwrite"], "something else", "another name")
    assert existing.read_text() == "kept"
    refused(capsys, ["predict", run, train, "--num-samples", "0"], "at least 1")
    refused(capsys, ["show", run, "--level", "90"], "between 0 and 1")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_leaves_nothing_behind(train, tmp_path, capsys, monkeypatch, number):
    def interrupt(*args, **kwargs):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr("bayesinv.fit", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us with it ignored
    try:
        assert main(["fit", str(train), "--out", str(tmp_path / "run")]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_traceback_on_request(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(["--traceback", "show", str(tmp_path / "missing")])


@pytest.mark.parametrize("arguments", [[], ["demo"], ["fit"], ["show"], ["predict"], ["report"], ["compare"]])
def test_help_teaches(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--help"])
    assert stopped.value.code == 0
    output = capsys.readouterr().out
    assert "example" in output
    assert f"bayesinv {' '.join(arguments)}".strip() in output


def test_the_module_runs():
    finished = subprocess.run(
        [sys.executable, "-m", "bayesinv", "show", "no-such-folder"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert "there is no folder no-such-folder" in finished.stderr


def test_report_and_comparison(run, train, tmp_path, capsys):
    page, both = tmp_path / "report.html", tmp_path / "both.html"
    assert main(["report", str(run), "--out", str(page), "--test", str(train)]) == 0
    assert "report written to" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    left_out = "The log evidence of &#x27;medians held fixed&#x27; is left out"
    for words in ("bayesinv fit", "no invariance", "medians held fixed", "rotation", "±10", left_out):
        assert words in text
    refused(capsys, ["report", run, "--out", page], "exists", "--overwrite")
    copy = tmp_path / "saved.npz"  # a file without its folder
    copy.write_bytes((run / "posterior.npz").read_bytes())
    assert main(["compare", str(run), str(copy), "--test", str(train), "--report", str(both)]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert "saved" in both.read_text(encoding="utf-8")
    assert main(["show", str(copy)]) == 0
    output = capsys.readouterr().out
    assert "evidence      softmax, categorical targets" in output
    assert "max steps     4" in output
    refused(capsys, ["compare", run], "at least two")
    refused(capsys, ["compare", run, run, "--report", tmp_path / "x.html"], "named twice")
    refused(capsys, ["compare", run, copy], "--test", "--report")
    refused(capsys, ["report", tmp_path / "missing"], "there is no folder")


def test_a_network_is_refused_without_python(tmp_path, capsys):
    import torch

    from bayesinv import InvarianceModel
    from bayesinv.posterior.invariance_posterior import InvariancePosterior
    from tests.fakes import NAMES, make_data, make_result

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    posterior = InvariancePosterior(InvarianceModel(net, list(NAMES)), make_data(), make_result())
    file = posterior.save(tmp_path / "net.npz")
    line = refused(capsys, ["show", file], "own network or kernel")
    assert "model=" not in line


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_without_our_letters(run, encoding):
    finished = subprocess.run(
        [sys.executable, "-m", "bayesinv", "show", run],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert finished.returncode == 0
    assert "k-hat" in finished.stdout.decode(encoding)


def test_a_huge_picture_is_refused_in_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (30, 30)).save(tmp_path / "a" / "1.png")
    refused(capsys, ["fit", tmp_path, "--out", tmp_path / "run"], "1.png is too large")


def test_pictures_of_two_sizes_name_the_option(tmp_path, capsys):
    for name, sides in (("cat", (8, 8)), ("dog", (12, 9))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("L", sides).save(tmp_path / "photos" / name / "1.png")
    for command in ("fit", "audit"):
        arguments = [command, tmp_path / "photos", "--out", tmp_path / "run"]
        line = refused(capsys, arguments, "dog/1.png is 12×9 pixels", "8×8", "--size 32")
        assert "size=" not in line


def test_help_names_the_size_and_all_kinds_of_data(capsys):
    """Each command that takes DATA, or --test DATA, says that it may be a table."""
    for arguments in (["fit"], ["predict"], ["report"], ["compare"], ["audit"]):
        with pytest.raises(SystemExit):
            main([*arguments, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert re.search(r"(DATA|--test DATA) [^-]*(folder of pictures|\.npz file)[^-]*\.csv or \.parquet table", text)
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    examples = [line for line in text.splitlines() if "photos/ --out" in line]
    assert len(examples) == 2 and all("--size 32" in line for line in examples)


def test_what_a_library_below_raises_is_one_line(run, capsys, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr("bayesinv.cli.commands.load_posterior", full)
    refused(capsys, ["show", run], "MemoryError", "--traceback")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fit", "--help"]])
def test_help_comes_without_torch(arguments):
    code = (
        "import contextlib, sys\nfrom bayesinv.cli import main\n"
        f"with contextlib.suppress(SystemExit):\n    main({arguments!r})\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "bayesinv" in done.stdout and done.stderr.strip() == "False"
