"""Data that the model cannot predict: the audit says so first, and recommends nothing."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

import bayesinv
from bayesinv.auditing.baseline import Baseline, against_constant
from bayesinv.auditing.page import table_rows
from tests.auditing.findings import SMALL, finding

NAMES = ["rotation", "flip_x"]


def audited(x, y, **options):
    return bayesinv.audit((x, y), operations=NAMES, **SMALL, **options)


@pytest.fixture(scope="module")
def turned():
    data = bayesinv.datasets.digits(rotation=0.785, num_train=70, size=8, seed=0).train
    return data.x, data.y


@pytest.fixture(scope="module")
def shuffled(turned):
    x, y = turned
    return audited(x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))])


def test_shuffled_labels_give_one_serious_note_before_all_others(shuffled):
    assert not shuffled.baseline.explained and not shuffled.baseline.predicted
    assert shuffled.notes[0].startswith("Serious: the fit explains the targets no better than a constant")
    assert shuffled.recommendations[0] == shuffled.notes[0]
    assert sum(note.startswith("Serious") for note in shuffled.notes) == 1
    assert len(shuffled.recommendations) == len(NAMES) + 1


def test_shuffled_labels_let_nothing_be_called_harmless(shuffled):
    for sentence in shuffled.sentences.values():
        assert "harmless" not in sentence and "no harm" not in sentence and ": yes" not in sentence
        assert "cannot be said" in sentence or "no recommendation" in sentence
    assert shuffled.table[["permitted", "permitted_lower", "permitted_upper"]].isna().all(axis=None)
    assert all(row[6:8] == ["–", "–"] for row in table_rows(shuffled))


def test_the_page_and_the_console_begin_with_the_note(shuffled, tmp_path):
    text = shuffled.report(tmp_path / "a.html").read_text(encoding="utf-8")
    assert text.index('<li class="serious">') < text.index('id="recommendations"')
    assert text.count("the fit explains the targets no better") == 1  # not below the recommendations again
    assert repr(shuffled).splitlines()[1].strip().startswith("Serious")


def test_what_is_in_without_a_model_is_left_out_of_the_augmentation(shuffled):
    doubtful = dataclasses.replace(
        shuffled,
        inside=(shuffled.findings[0].operation,),
        draws=torch.full((10, 1), 1.0, dtype=torch.float64),
    )
    x = torch.rand(3, *shuffled.event_shape)
    with pytest.warns(UserWarning, match="leaves out rotation"):
        augmentation = doubtful.augmentation(seed=0)
    assert torch.equal(augmentation(x), x)


def test_labels_that_pictures_tell_give_no_such_note(turned):
    found = audited(*turned)
    assert found.baseline.explained and found.baseline.predicted
    assert not any(note.startswith("Serious") for note in found.notes)
    assert len(found.recommendations) == len(NAMES)
    assert found.table["permitted"].notna().all()


@pytest.mark.parametrize(
    "probability, name, explained, sentence",
    [
        (
            0.99,
            "rotation",
            False,
            "rotation: no recommendation; P(in) = 0.99, but the fit explains no more than a constant",
        ),
        (0.7, "flip_x", False, "flip_x: no recommendation; P(in) = 0.70, but the fit explains no more than a constant"),
        (0.1, "rotation", False, "rotation: no evidence for it; whether it harms cannot be said"),
        (0.1, "flip_x", True, "flip_x: not needed; whether it harms cannot be said"),
        (0.1, "rotation", True, "rotation: not needed; whether it harms cannot be said"),
        (0.99, "rotation", True, "rotation: yes, within ±36.0° (90 % interval 18.0 to 54.0)"),
    ],
)
def test_sentences_without_predictions(probability, name, explained, sentence):
    """The evidence may still say yes where left-out examples say nothing, but nothing is permitted."""
    found = dataclasses.replace(finding(probability, 0.5, name), explained=explained, predicted=False)
    assert found.sentence == sentence


class Known(bayesinv.InvarianceModel):
    """A model of two classes whose evidence and predictions are given."""

    def __init__(self, value, own):
        super().__init__(bayesinv.GaussianProcess(num_features=4), bayesinv.transforms.SignFlip())
        self.value, self.own = value, own

    def log_evidence(self, extents, data):
        return torch.tensor(self.value)

    def predict(self, x, data, extents, y=None):
        probs = torch.full((len(x), 2), 1.0 - self.own)
        probs[torch.arange(len(x)), x[:, 0].long()] = self.own
        return SimpleNamespace(probs=probs)


def halves(n):
    y = torch.arange(n) % 2
    return bayesinv.Data(y[:, None].float(), y, 2)


@pytest.mark.parametrize("gain, explained", [(2.9, False), (3.1, True)])
def test_the_evidence_has_to_beat_equal_classes_by_three_nats(gain, explained):
    """n log 2 nats is what no inputs at all reach; with a penalty for frequencies, a constant would be 1.8 lower."""
    model = Known(-40 * math.log(2.0) + gain, 0.9)
    found = against_constant(model, halves(40), halves(40), torch.zeros(1))
    assert found.evidence_gain == pytest.approx(gain, abs=1e-4)
    assert (found.explained, found.predicted) == (explained, explained)
    assert bool(found.note) is not explained


@pytest.mark.parametrize("own, m, predicted", [(0.9, 30, True), (0.4, 30, False), (0.4, 10, True)])
def test_predictions_have_to_beat_the_frequencies_where_there_are_twenty(own, m, predicted):
    found = against_constant(Known(0.0, own), halves(40), halves(m), torch.zeros(1))
    assert (found.explained, found.predicted) == (True, predicted)
    assert found.note.startswith("Serious: left-out examples are predicted no better") is not predicted


def test_two_standard_errors_are_what_predictions_need():
    assert not Baseline(9.0, 0.19, 0.1, 40).predicted
    assert Baseline(9.0, 0.21, 0.1, 40).predicted
