"""Scores of predictions, against numbers worked out by hand and against other libraries."""

import math
from inspect import unwrap

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss as sklearn_log_loss

from bayesinv import metrics
from bayesinv.evidence.prediction import Prediction

PROBS = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7]])
LABELS = torch.tensor([0, 1, 1, 0])


def random_predictions(n: int = 300, num_classes: int = 5):
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(n, num_classes, generator=generator, dtype=torch.float64).softmax(1)
    return probs, torch.randint(num_classes, (n,), generator=generator)


def test_classification_by_hand():
    assert metrics.accuracy(PROBS, LABELS).tolist() == [1, 0, 1, 0]
    expected = [-math.log(p) for p in (0.8, 0.4, 0.9, 0.3)]
    np.testing.assert_allclose(metrics.log_loss(PROBS, LABELS), expected, rtol=1e-6)
    np.testing.assert_allclose(metrics.brier_score(PROBS, LABELS), [0.08, 0.72, 0.02, 0.98], rtol=1e-6)


def test_log_loss_is_that_of_scikit_learn_and_finite_at_zero():
    probs, y = random_predictions()
    assert float(metrics.log_loss(probs, y).mean()) == pytest.approx(sklearn_log_loss(y, probs))
    worst = metrics.log_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert float(worst) == pytest.approx(-math.log(1e-12))


def test_calibration_error_by_hand():
    by_hand = sum(abs(c - r) for c, r in [(0.8, 1), (0.6, 0), (0.9, 1), (0.7, 0)]) / 4
    assert metrics.calibration_error(PROBS, LABELS) == pytest.approx(by_hand)
    # In one bin together they are 75 % sure and half right; apart they are wrong by more.
    assert metrics.calibration_error(PROBS, LABELS, num_bins=1) == pytest.approx(0.25)


def test_calibration_error_counts_each_bin_by_its_share():
    confidence = torch.tensor([0.95] * 6 + [0.55] * 2, dtype=torch.float64)
    probs = torch.stack([1 - confidence, confidence], 1)
    y = torch.tensor([1, 1, 1, 0, 0, 0, 1, 0])
    # .95 sure and .5 right in 6 of 8; .55 sure and .5 right in 2 of 8
    assert metrics.calibration_error(probs, y) == pytest.approx(0.75 * 0.45 + 0.25 * 0.05)


def test_calibration_error_vanishes_for_labels_drawn_from_the_probabilities():
    probs, _ = random_predictions(20_000)
    y = torch.multinomial(probs, 1, generator=torch.Generator().manual_seed(1))[:, 0]
    # 15 bins of about 1,300: each is off by sqrt(p (1 - p) / 1,300) < .014
    assert metrics.calibration_error(probs, y) < 0.02
    certain = torch.nn.functional.one_hot(probs.argmax(1), 5).double()
    right = float(metrics.accuracy(probs, y).mean())
    assert metrics.calibration_error(certain, y) == pytest.approx(1 - right)


def test_full_confidence_shares_the_last_bin():
    probs = torch.tensor([[1.0, 0.0], [0.95, 0.05]], dtype=torch.float64)
    assert metrics.calibration_error(probs, torch.tensor([1, 0])) == pytest.approx(0.975 - 0.5)


def test_regression_by_hand():
    mean, variance, y = torch.zeros(3, 1), torch.full((3, 1), 4.0), torch.tensor([[0.0], [2.0], [4.0]])
    assert metrics.rmse(mean, y) == pytest.approx(math.sqrt(20 / 3))
    expected = -torch.distributions.Normal(0.0, 2.0).log_prob(y)[:, 0]
    np.testing.assert_allclose(metrics.gaussian_log_loss(mean, variance, y), expected, rtol=1e-6)
    assert metrics.interval_coverage(mean, variance, y) == pytest.approx(2 / 3)  # 1.645 · 2 = 3.29
    assert metrics.interval_coverage(mean, variance, y, level=0.96) == 1  # 2.054 · 2 = 4.11
    two = metrics.gaussian_log_loss(mean.repeat(1, 2), variance.repeat(1, 2), y.repeat(1, 2))
    np.testing.assert_allclose(two, 2 * expected, rtol=1e-6)


def test_coverage_is_the_level_for_targets_drawn_from_the_prediction():
    y = torch.randn(10_000, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for level in (0.5, 0.9):
        share = metrics.interval_coverage(torch.full_like(y, 3.0), torch.full_like(y, 4.0), 3.0 + 2.0 * y, level)
        assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / len(y)))


def test_standard_error_by_hand():
    assert metrics.standard_error(torch.tensor([1.0, 2.0, 3.0, 6.0])) == pytest.approx(math.sqrt(14 / 3) / 2)
    assert math.isnan(metrics.standard_error(torch.tensor([1.0])))


@pytest.mark.parametrize("score", [metrics.accuracy, metrics.log_loss, metrics.brier_score, metrics.calibration_error])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (LABELS[:, None], "one label for each of 4"),  # would broadcast to (4, 4)
        (LABELS[:3], "one label for each of 4"),
        (LABELS + 1, r"labels 0\.\.1 as in probs, got 1\.\.2"),
        (LABELS - 1, r"got -1\.\.0"),
    ],
)
def test_labels_that_do_not_fit(score, y, message):
    with pytest.raises(ValueError, match=message):
        score(PROBS, y)


def test_targets_and_options_that_do_not_fit():
    one = torch.ones(3, 1)
    for y in (torch.ones(3), torch.ones(2, 1), torch.ones(3, 2)):
        for call in (
            lambda y: metrics.rmse(one, y),
            lambda y: metrics.gaussian_log_loss(one, one, y),
            lambda y: metrics.interval_coverage(one, one, y),
        ):
            with pytest.raises(ValueError, match="the shape of the predictions"):
                call(y)
    with pytest.raises(ValueError, match=r"n >= 1"):
        metrics.accuracy(torch.ones(0, 2), torch.ones(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="the smallest is 0"):
        metrics.gaussian_log_loss(one, torch.tensor([[1.0], [0.0], [1.0]]), one)
    with pytest.raises(ValueError, match=r"between 0 and 1, got 90\.0"):
        metrics.interval_coverage(one, one, one, level=90.0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        metrics.calibration_error(PROBS, LABELS, num_bins=0)


def maps():
    """Two maps of four cells: one half right, one without the label on either side."""
    probs = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.6, 0.4]]).repeat(2, 1, 1)
    probs[1] = torch.tensor([0.7, 0.3])
    return probs, torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0]])


def test_maps_by_hand():
    probs, y = maps()
    assert metrics.accuracy(probs, y).tolist() == [0.5, 1.0]
    expected = -(math.log(0.9) + math.log(0.2) + math.log(0.9) + math.log(0.4))
    assert float(metrics.log_loss(probs, y)[0]) == pytest.approx(expected, rel=1e-6)
    assert float(metrics.brier_score(probs, y)[1]) == pytest.approx(2 * 0.3**2, rel=1e-6)
    flat = metrics.calibration_error(probs.flatten(0, 1), y.flatten())
    assert metrics.calibration_error(probs, y) == pytest.approx(flat)


def test_intersection_over_union():
    probs, y = maps()
    # found {0, 1}, true {0, 3}: one in both, three in either; nothing in the second map
    assert metrics.intersection_over_union(probs, y).tolist() == pytest.approx([1 / 3, 1.0])
    assert metrics.pooled_intersection_over_union(probs, y) == pytest.approx(1 / 3)
    assert metrics.intersection_over_union(probs, y, label=0).tolist() == pytest.approx([1 / 3, 1.0])
    assert metrics.pooled_intersection_over_union(probs, y, label=0) == pytest.approx(5 / 7)
    with pytest.raises(ValueError, match="expected one label for each of the predictions"):
        metrics.intersection_over_union(probs, y[:, :3])


def test_what_is_no_tensor_is_told_what_to_pass():
    prediction = Prediction(torch.zeros(2, 2), probs=torch.full((2, 2), 0.5))
    accuracy, rmse = unwrap(metrics.accuracy), unwrap(metrics.rmse)  # without the types that only the tests check
    y = torch.tensor([0, 1])
    with pytest.raises(TypeError, match=r"probs: expected a tensor, got a Prediction; pass prediction\.probs"):
        accuracy(prediction, y)
    with pytest.raises(TypeError, match=r"got a list; torch\.as_tensor\(y\)"):
        accuracy(prediction.probs, [0, 1])
    with pytest.raises(TypeError, match=r"mean: expected a tensor.*pass prediction\.mean"):
        rmse(Prediction(torch.ones(2, 1), mean=torch.zeros(2, 1)), torch.zeros(2, 1))
    with pytest.raises(TypeError, match=r"got a ndarray; torch\.as_tensor\(\.\.\.\)"):
        accuracy(prediction.probs.numpy(), y)
