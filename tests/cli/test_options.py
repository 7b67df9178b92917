"""Options of `bayesinv fit` reach the fit, or are refused with what to leave out; advised ones parse."""

import argparse
import re
import shlex

import numpy as np
import pytest

import bayesinv
from bayesinv.cli import main
from bayesinv.cli.parser import make_parser
from bayesinv.cli.words import _OPTIONS, in_shell_words

QUICK = ["--max-steps", "4", "--num-features", "32", "--num-orbit-samples", "4", "--num-draws", "25", "--quiet"]


@pytest.fixture
def images(tmp_path):
    data = bayesinv.datasets.digits(num_train=30, size=8, seed=0).train
    path = tmp_path / "x.npz"
    np.savez(path, x=data.x.numpy(), y=data.y.numpy())
    return path


@pytest.fixture
def signals(tmp_path):
    path = tmp_path / "signals.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(12, 1, 16)), y=np.arange(12) % 2)
    return path


def paddings(config):
    """Every padding in the description of a transform."""
    found = [config["padding"]] if "padding" in config else []
    return found + [each for part in config.get("transforms", []) for each in paddings(part)]


@pytest.mark.parametrize(
    ("symmetries", "number"),
    [(["rotation"], 1), (["rotation", "flip_x"], 1), (["shear", "perspective_x", "elastic", "turns_4", "hue"], 4)],
    ids=str,
)
def test_padding_reaches_every_transform_that_knows_it(tmp_path, monkeypatch, symmetries, number):
    data = np.random.default_rng(0).random((12, 3, 8, 8))
    np.savez(tmp_path / "x.npz", x=data, y=np.arange(12) % 2)
    made = []

    def caught(model, *arguments, **others):
        made.append(model)
        raise ValueError("enough")

    monkeypatch.setattr(bayesinv, "fit", caught)
    fit = ["fit", str(tmp_path / "x.npz"), "--out", str(tmp_path / "run"), "--symmetries", *symmetries]
    for more, expected in ((["--padding", "reflection"], "reflection"), ([], "zeros")):
        assert main([*fit, *more]) == 2
        transform = made.pop().transform
        assert transform.names == tuple(symmetries)
        assert paddings(transform.config()) == [expected] * number


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--padding", "nonsense", "--symmetries", "rotation", "flip_x"], ["nonsense", "zeros, border, reflection"]),
        (["--padding", "nonsense"], ["nonsense", "zeros, border, reflection"]),
        (["--padding", "border", "--symmetries", "flip_x"], ["flip_x", "leave out --padding"]),
        (["--epochs", "3"], ["--epochs 3", "leave it out", "--network"]),
        (["--batch-size", "3"], ["--batch-size 3", "leave it out", "--network"]),
        (["--epochs", "3", "--batch-size", "3"], ["--epochs 3 --batch-size 3", "leave them out"]),
        (["--network", "lenet", "--max-steps", "3"], ["--max-steps 3", "leave it out", "--network"]),
        (["--network", "lenet", "--num-features", "32"], ["--num-features 32", "leave it out"]),
        (["--network", "lenet", "--num-inducing", "none"], ["--num-inducing none", "leave it out"]),
        (["--network", "lenet", "--num-inducing", "auto"], ["--num-inducing auto", "leave it out"]),
        (["--sampling-rate", "1"], ["--sampling-rate 1", "leave it out", "signals"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_options_that_do_not_apply_are_refused(images, tmp_path, capsys, arguments, messages):
    assert main(["fit", str(images), "--out", str(tmp_path / "run"), *arguments]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("bayesinv: error: ")
    for message in messages:
        assert message in line
    assert not (tmp_path / "run").exists()


def test_padding_is_refused_for_signals(signals, tmp_path, capsys):
    command = ["fit", str(signals), "--kind", "signals", "--out", str(tmp_path / "run"), "--padding", "zeros"]
    assert main(command) == 2
    assert "--padding zeros: expected nothing with signals" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "expected"), [([], "auto"), (["--num-inducing", "none"], None), (["--num-inducing", "7"], 7)]
)
def test_inducing_values_reach_the_model(images, tmp_path, monkeypatch, given, expected):
    seen = []

    def caught(model, *arguments, max_steps, training, **others):
        seen.append((model.backbone.space, model.backbone.num_inducing, max_steps, training))
        raise ValueError("enough")

    monkeypatch.setattr(bayesinv, "fit", caught)
    assert main(["fit", str(images), "--out", str(tmp_path / "run"), *given]) == 2
    spaces = {"auto": ("features", None), None: ("exact", None), 7: ("inducing", 7)}
    assert seen == [(*spaces[expected], None, None)]


def test_epochs_and_batches_reach_the_training(images, tmp_path, monkeypatch):
    seen = []

    def caught(*arguments, training, **others):
        seen.append((training.epochs, training.batch_size))
        raise ValueError("enough")

    monkeypatch.setattr(bayesinv, "fit", caught)
    fit = ["fit", str(images), "--out", str(tmp_path / "run"), "--network", "lenet"]
    assert main(fit) == main([*fit, "--epochs", "2.5", "--batch-size", "7"]) == 2
    assert seen == [(60.0, 100), (2.5, 7)]


def advised(text):
    """The options that a message of the library advises on the command line, each with its value."""
    return [shlex.split(found) for found in re.findall(r"--[a-z-]+(?:[ =][\w.-]+)?", in_shell_words(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("use num_inducing=None for some hundred examples", ["--num-inducing", "none"]),
        ("give a number of inducing values, such as num_inducing=150", ["--num-inducing=150"]),
        ('random features (num_inducing="auto")', ["--num-inducing", "auto"]),
        ("y is real: likelihood='gaussian' if they are real targets", ["--likelihood", "gaussian"]),
        ("as classes; pass labels=False if they are real targets", ["--likelihood", "gaussian"]),
        ('sample with inference="nuts"', ["--inference", "nuts"]),
        ('try guide="flow"', ["--guide", "flow"]),
        ("where white is less, say so: divide_by=4095", ["--divide-by", "4095"]),
        ("expected pictures of one size, such as size=32", ["--size", "32"]),
        ("pass overwrite=True", ["--overwrite"]),
    ],
)
def test_options_that_are_advised_parse(text, expected):
    assert advised(text) == [expected]
    make_parser().parse_args(["fit", "x.npz", "--out", "run", *expected])


def test_every_name_in_shell_words_is_an_option():
    (commands,) = [a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    known = {option for each in commands.choices.values() for option in each._option_string_actions}
    assert {f"--{name.replace('_', '-')}" for name in _OPTIONS} <= known


def test_a_short_training_is_told_to_raise_an_option_that_networks_take():
    text = "need at least 30 to cross their range: raise epochs 30-fold, or max_steps where it is given"
    assert in_shell_words(text) == "need at least 30 to cross their range: raise --epochs 30-fold"
    assert (
        in_shell_words("raise epochs or batch_size, or give it up") == "raise --epochs or --batch-size, or give it up"
    )


def test_a_fit_that_ended_early_is_told_to_raise_an_option_of_its_own(images, tmp_path, capsys):
    fit = ["fit", str(images), "--out", str(tmp_path / "run"), "--symmetries", "rotation", "--quiet", "--no-figures"]
    sizes = ["--num-orbit-samples", "2", "--num-draws", "10"]
    assert main([*fit, *sizes, "--network", "lenet", "--epochs", "1"]) == 0
    output = capsys.readouterr().out
    assert "raise --epochs" in output and "max-steps" not in output
    assert main([*fit, *sizes, "--overwrite", "--num-features", "16", "--max-steps", "1"]) == 0
    assert "raise --max-steps" in capsys.readouterr().out


def test_a_broken_picture_names_the_option_that_leaves_it_out(tmp_path, capsys):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.png").write_text("no picture")
    assert main(["fit", str(tmp_path / "photos"), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "its format is not known" in said and "--skip-broken leaves such out" in said and "<_io" not in said


@pytest.mark.parametrize(
    ("typo", "known", "others"), [("rotaton", "rotation", ["flip_x", "hue"]), ("flip_xx", "flip_x", ["rotation"])]
)
def test_a_misspelt_symmetry_is_answered_with_what_was_meant(tmp_path, capsys, typo, known, others):
    assert main(["fit", str(tmp_path / "missing.npz"), "--out", str(tmp_path / "run"), "--symmetries", typo]) == 2
    said = capsys.readouterr().err
    assert f"did you mean '{known}'?" in said
    assert all(name in said for name in others)
