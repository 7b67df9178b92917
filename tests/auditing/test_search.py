"""Which operations a search tries, and which it takes in, with evidences that are known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import bayesinv
from bayesinv.auditing.one_more import OneMore
from bayesinv.auditing.operations import Operation
from bayesinv.auditing.search import MOST_IN, Search
from bayesinv.data import Data
from bayesinv.transforms import Affine2d, SignFlip


class Known(Search):
    """A search whose log Bayes factors come from a function of (name, the others)."""

    def __init__(self, names, gain):
        bar = SimpleNamespace(n=0, total=0, set_description=lambda *_, **__: None, refresh=lambda: None)
        bar.update = lambda: setattr(bar, "n", bar.n + 1)
        tried = tuple(Operation(name, lambda names: SignFlip()) for name in names)
        super().__init__(Data(torch.zeros(2, 1), torch.tensor([0, 1]), 2), tried, {}, 0.5, 0, bar)
        self.gain, self.asked, self.remaining = gain, [], []

    def without(self, eta, steps):
        return 0.0

    def _settled(self, eta):
        return dict(eta), 0.0

    def _draws(self, base, probability):
        return torch.zeros(1, len(base), dtype=torch.float64)

    def expect(self, parts):
        super().expect(parts)
        self.remaining.append((self.bar.n, self.bar.total))

    def tried_on(self, eta, names, without, what):
        self.asked += [(name, frozenset(eta)) for name in names]
        self.bar.n += len(names)
        return {name: OneMore(self.gain(name, set(eta)), np.array([0.0, 1.0]), np.zeros(2)) for name in names}


NAMES = [f"o{i}" for i in range(12)]


def test_only_leaders_are_tried_again_and_all_that_are_out_in_the_end():
    alone = dict(zip(NAMES, [9.0, 7.0, 5.0, *[-2.0] * 9], strict=True))

    def gain(name, others):  # o1 imitates o0
        return -1.0 if name == "o1" and "o0" in others else alone[name]

    search = Known(NAMES, gain)
    found = search.run()
    assert set(found.base) == {"o0", "o2"}
    assert found.alone["o1"].log_bf == 7.0 and found.given["o1"].log_bf == -1.0
    forwards = search.asked[12:]
    # On top of o0: o1, which loses its lead, and o2, which joins. On top of both: the ten others. Backwards: the two.
    assert [name for name, others in forwards if others == {"o0"}] == ["o1", "o2", "o2"]
    last = [name for name, others in forwards if others == {"o0", "o2"}]
    assert sorted(last) == sorted(set(NAMES) - {"o0", "o2"})
    assert len(search.asked) == 12 + 2 + 10 + 2


def test_an_operation_that_gains_only_on_top_of_another_joins():
    def gain(name, others):
        if name == "o3":
            return 4.0 if "o0" in others else -2.5
        return 6.0 if name == "o0" else -2.0

    found = Known(NAMES, gain).run()
    assert set(found.base) == {"o0", "o3"}


@pytest.mark.parametrize("seed", range(20))
def test_what_is_out_was_tried_on_top_of_all_that_are_in(seed):
    rng = np.random.default_rng(seed)
    worth = {(a, b): rng.normal(0.0, 3.0) for a in NAMES for b in NAMES}

    def gain(name, others):
        return worth[name, name] + sum(worth[name, other] for other in others) / 3

    search = Known(NAMES, gain)
    base, given = search._forwards({}, search.tried_on({}, NAMES, 0.0, "alone"))
    outside = [name for name in NAMES if name not in base]
    assert {(name, frozenset(base)) for name in outside} <= set(search.asked)
    assert len(base) == MOST_IN or all(given[name].inclusion(0.5) <= 0.5 for name in outside)


def test_one_that_the_later_ones_replace_is_dropped():
    def gain(name, others):
        if name == "o0":
            return 8.0 if "o1" not in others else -1.0
        return 7.0 if name == "o1" else -2.0

    assert set(Known(NAMES, gain).run().base) == {"o1"}


def test_the_bar_knows_what_is_left():
    search = Known(NAMES, lambda name, others: 5.0 if name == "o0" else -2.0)
    search.run()
    assert all(total >= n + len(NAMES) for n, total in search.remaining)
    last = search.remaining[-1]  # before the only member is tried without: that, and a prediction for each operation
    assert last[1] - last[0] == 1 + len(NAMES)


def test_nothing_is_tried_twice_where_nothing_is_found():
    search = Known(NAMES, lambda name, others: -2.0)
    assert search.run().base == {}
    assert len(search.asked) == len(NAMES)
    assert search.remaining[-1] == (pytest.approx(12), pytest.approx(24))


def test_extents_are_drawn_in_proportion_to_the_evidence(monkeypatch):
    """A draw that holds nine tenths of the weight is nine tenths of the extents."""
    far, near = math.radians(100), math.radians(20)

    def known(target, modes, num_draws, *_, **__):
        return SimpleNamespace(
            extents=torch.tensor([[far], [near]], dtype=torch.float64),
            log_weights=torch.tensor([0.9, 0.1], dtype=torch.float64).log(),
        )

    monkeypatch.setattr("bayesinv.auditing.search.approximate", known)
    train = bayesinv.datasets.digits(0.8, size=8, num_train=24, seed=0).train
    bar = SimpleNamespace(n=0, total=0, set_description=lambda *_, **__: None, refresh=lambda: None)
    tried = (Operation("rotation", lambda names: Affine2d(["rotation"])),)
    settings = {"num_features": 16, "num_orbit_samples": 4}
    draws = Search(train, tried, settings, 0.5, 0, bar)._draws({"rotation": 0.5}, {"rotation": 1.0})
    assert float((draws == far).double().mean()) == pytest.approx(0.9, abs=0.01)
