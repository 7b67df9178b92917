"""Extents by class on four digits, from end to end on a small stand-in for the data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bayesinv import fit
from models import per_class_digits

TINY = ["--num-train", "40", "--num-test", "16", "--num-orbit-samples", "2", "--num-inducing", "8", "--max-steps", "5"]
NAMES = [f"rotation[{digit}]" for digit in per_class_digits.DIGITS]

pytestmark = pytest.mark.filterwarnings(
    "ignore::bayesinv.errors.NotConvergedWarning", "ignore::bayesinv.errors.ImportanceWarning"
)  # five steps are no fit


def run(folder, *options):
    return per_class_digits.main([*TINY, "--root", str(folder), "--device", "cpu", "--quiet", *map(str, options)])


def small(folder, seed=0, **options):
    tiny = {"num_train": 40, "num_test": 16, "num_orbit_samples": 2, "num_inducing": 8}
    return per_class_digits.build(**tiny, seed=seed, root=folder, **options)


@pytest.fixture(scope="module")
def posterior(data_folder):
    model, train, _ = small(data_folder)
    return fit(model, train, seed=0, device="cpu", max_steps=5)


def test_build(data_folder):
    model, train, test = small(data_folder)
    assert list(model.symmetries) == NAMES
    assert model.orbit.num_samples == 2
    assert train.x.shape[1:] == (1, 28, 28)
    assert 25 <= len(train) <= 55 and 6 <= len(test) <= 28  # of 100 and 40 of all ten digits
    assert set(train.y.tolist()) == {0, 1, 2, 3} and train.num_classes == 4


def test_labels_are_places_among_the_four(data_folder):
    """The images of each class are those of its digit, and of no other."""
    from bayesinv.datasets import mnist

    train = small(data_folder, half_angle=0.0)[1]
    all_ten = mnist(data_folder, num_train=100, num_test=40, rotation=0.0, seed=0).train
    for place, digit in enumerate(per_class_digits.DIGITS):
        assert torch.equal(train.x[train.y == place], all_ten.x[all_ten.y == digit])


def test_the_seed_and_the_angle_decide_the_images(data_folder):
    first, same, other, upright = (
        small(data_folder, **options)[1].x for options in ({}, {}, {"seed": 1}, {"half_angle": 0.0})
    )
    assert torch.equal(first, same)
    assert first.shape != other.shape or not torch.equal(first, other)
    assert first.shape == upright.shape and not torch.allclose(first, upright, atol=0.1)


def with_draws(posterior, degrees, log_weights=None):
    draws = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    changed = type(posterior).__new__(type(posterior))
    changed.__dict__.update(posterior.__dict__)
    changed.result = replace(posterior.result, extents=draws[None], log_weights=log_weights)
    return changed


def test_difference_is_of_the_means_and_draw_by_draw(posterior):
    same = [[90.0, 60.0, 70.0, 40.0]] * len(posterior.result.draws)
    assert per_class_digits.difference(with_draws(posterior, same)) == pytest.approx(30.0)


def test_difference_takes_the_weights(posterior):
    num = len(posterior.result.draws)
    degrees = [[90.0, 60.0, 70.0, 40.0]] + [[50.0, 60.0, 50.0, 40.0]] * (num - 1)
    log_weights = torch.full((num,), -100.0, dtype=torch.float64)
    log_weights[0] = 0.0  # all of the weight, to 1e-40
    log_weights = log_weights.log_softmax(0)
    assert per_class_digits.difference(with_draws(posterior, degrees, log_weights)) == pytest.approx(30.0)
    unweighted = per_class_digits.difference(with_draws(posterior, degrees))
    assert np.median(unweighted) == pytest.approx(0.0, abs=1e-9)


def test_figure_says_what_is_drawn(posterior):
    left, right = per_class_digits.figure(posterior, half_angle=60.0).axes
    assert "(°)" in left.get_xlabel() and "(°)" in right.get_xlabel()
    assert [label.get_text() for label in left.get_yticklabels()] == ["0", "6", "8", "9"]
    named = left.get_legend_handles_labels()[1] + right.get_legend_handles_labels()[1]
    assert len(named) == len(set(named)) == 5
    assert "images rotated within ±60°" in named
    assert len(left.lines) == 3 * 4 + 1
    assert len(per_class_digits.figure(posterior).axes[0].lines) == 3 * 4


def test_a_network_has_extents_of_every_digit_too(data_folder, capsys):
    model = small(data_folder, backbone="network")[0]
    assert model.is_network and model.evidence_name == "laplace" and list(model.symmetries) == NAMES
    assert run(data_folder, "--backbone", "network") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)
    with pytest.raises(ValueError, match="backbone: expected one of gp, network, got 'tree'"):
        small(data_folder, backbone="tree")


def test_results_are_what_is_printed_and_not_replaced(data_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(data_folder, "--out", out) == 0
    printed = capsys.readouterr().out
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert list(found["extents"]) == NAMES
    for name, extent in found["extents"].items():
        assert 0 <= extent["lower"] < extent["median"] < extent["upper"] <= 180
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert f"{extent['median']:.1f}" in line
    low, middle, high = found["difference"]
    assert f"{middle:.1f}°, 90 % interval {low:.1f}° to {high:.1f}°" in printed
    assert f"accuracy on {found['num_test']} test images: {found['accuracy']:.3f}" in printed
    with Image.open(out / "per_class_digits.png") as picture:
        assert min(picture.size) > 300
    with pytest.raises(SystemExit):
        run(data_folder, "--out", out)
    assert "add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "expected a whole number from 0 to 2**32 - 1"),
        (["--half-angle", "181"], "expected a number from 0 to 180, got '181'"),
        (["--device", "abacus"], 'expected "auto", "cpu"'),
        (["--num-train", "1000"], "num_train is 2500; expected 1..200"),
    ],
)
def test_wrong_arguments_end_with_the_cure(options, message, data_folder, capsys):
    with pytest.raises(SystemExit) as ended:
        run(data_folder, *options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_data_end_with_where_they_should_be(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path)
    assert "Nothing is downloaded" in capsys.readouterr().err
