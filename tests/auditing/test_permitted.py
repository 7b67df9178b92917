"""Where predictions on left-out examples get worse."""

import numpy as np
import pytest

from bayesinv.auditing.permitted import SHARES, TOLERANCE, permitted


def rows(*means):
    return np.array(means)[:, None].repeat(30, 1)


def test_harmless_operations_are_permitted_to_the_end_and_harmful_ones_not_at_all():
    assert permitted(rows(*[0.3] * 6), 2.0).tolist() == [2.0] * 3
    end = permitted(rows(0.0, 1.0, 1.0, 1.0, 1.0, 1.0), 2.0)
    assert end == pytest.approx([2.0 * SHARES[1] * TOLERANCE] * 3)


def test_it_counts_from_the_best_extent_outwards():
    """Losses that fall first, as for what is needed: far out is worse than the best, though better than nothing."""
    end = permitted(rows(1.0, 0.5, 0.1, 0.12, 0.5, 0.6), 1.0)
    assert end == pytest.approx([0.375] * 3)


def test_the_interval_shows_how_few_examples_there_are():
    rng = np.random.default_rng(0)
    slopes = np.array(SHARES)[:, None]
    few = permitted(0.03 * slopes + slopes * rng.normal(0, 0.2, (1, 30)), 1.0)
    many = permitted(0.03 * slopes + slopes * rng.normal(0, 0.2, (1, 30_000)), 1.0)
    assert many[2] - many[0] < 0.3 * (few[2] - few[0])
    assert many[1] == pytest.approx(TOLERANCE / 0.03, rel=0.2)


def test_an_extent_without_predictions_is_not_permitted():
    table = rows(0.1, 0.1, 0.1, np.inf, np.inf, np.inf)
    assert permitted(table, 1.0)[2] < 0.26
