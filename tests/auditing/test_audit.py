"""The audit end to end on small data: tables, sentences, augmentation and page."""

import numpy as np
import pandas as pd
import pytest
import torch

import bayesinv
from bayesinv.errors import DataError
from tests.auditing.findings import SMALL, finding, two_rhythms


@pytest.fixture(scope="module")
def waves():
    x, y = two_rhythms()
    return bayesinv.audit((x, np.array(["slow", "fast"])[y]), operations=["time_shift", "noise"], **SMALL)


def test_a_shift_that_is_needed_is_found(waves):
    table = waves.table
    assert table.index[0] == "time_shift"
    assert table.loc["time_shift", "answer"] == "yes"
    assert table.loc["time_shift", "inclusion"] > 0.95
    assert table.loc["time_shift", "needed_lower"] <= table.loc["time_shift", "needed"]
    assert waves.recommendations[0].startswith("time_shift: yes, within ±")
    assert waves.kind == "signals"
    assert waves.classes == ("fast", "slow")
    assert (waves.num_train, waves.num_held_out) == (42, 18)


def test_a_number_of_threads_changes_no_result():
    """Operations next to each other, each in one thread."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 1, 12)).astype(np.float32), np.arange(40) % 2
    before = torch.get_num_threads()
    tables = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found = bayesinv.audit((x, y), operations=["time_shift", "sign_flip", "noise"], **SMALL)
            tables.append(found.table)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    pd.testing.assert_frame_equal(*tables)


def test_the_augmentation_moves_by_what_is_in_alone(waves):
    augmentation = waves.augmentation(seed=0)
    assert augmentation.transform_family.names == tuple(o.name for o in waves.inside)
    x = torch.rand(5, 1, 16)
    assert augmentation(x).shape == x.shape
    assert not torch.allclose(augmentation(x), x)


def test_without_anything_in_inputs_stay():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    found = bayesinv.audit((pd.DataFrame(x, columns=["a", "b", "c"]), y), operations=["shift_a", "sign_flip"], **SMALL)
    assert found.kind == "tables"
    assert not (found.table["inclusion"] > 0.95).any()
    rows = torch.rand(4, 3)
    if not found.inside:
        assert torch.equal(found.augmentation()(rows), rows)
    assert any("standardised" in note for note in found.notes)
    with pytest.raises(ValueError, match="no picture"):
        found.plot_orbit("shift_a")


def test_a_note_names_the_columns_of_a_wide_table_that_are_left_out():
    rng = np.random.default_rng(3)
    x = pd.DataFrame(rng.normal(size=(60, 22)), columns=[f"c{i}" for i in range(22)])
    y = x["c21"].to_numpy() + 0.1 * rng.normal(size=60)
    found = bayesinv.audit((x, y), operations=["shift_c21", "column_order"], **SMALL)
    (note,) = (note for note in found.notes if "columns" in note and "left out" in note)
    assert note.startswith("2 of 22 columns are left out")
    assert "c21" not in note
    found = bayesinv.audit((x, y), operations=["shift_c21"], **SMALL)  # asked for by name: none is missed
    assert not any("left out" in note for note in found.notes)


def test_the_page_has_a_picture_of_every_operation(waves, tmp_path):
    path = waves.report(tmp_path / "a.html", command="bayesinv audit x")
    text = path.read_text(encoding="utf-8")
    assert text.count("<img ") == 2
    for words in (*waves.recommendations, "bayesinv audit x"):
        assert words.replace("'", "&#x27;") in text
    with pytest.raises(FileExistsError):
        waves.report(path)


def test_bad_arguments_are_refused():
    x, y = torch.rand(30, 1, 6, 6), torch.arange(30) % 2
    with pytest.raises(ValueError, match=r"operations: expected some of .*rotation.*, got rotatoin"):
        bayesinv.audit((x, y), operations=["rotatoin"])
    with pytest.raises(ValueError, match="kind: expected auto"):
        bayesinv.audit((x, y), kind="pictures")
    with pytest.raises(DataError, match="expected at least 20"):
        bayesinv.audit((x[:10], y[:10]))


@pytest.mark.parametrize(
    "probability, permitted, name, sentence",
    [
        (0.99, 0.5, "rotation", "rotation: yes, within ±36.0° (90 % interval 18.0 to 54.0); harmless up to ±90.0°"),
        (0.99, 0.1, "rotation", "rotation: yes, within ±36.0° (90 % interval 18.0 to 54.0)"),
        (0.7, 1.0, "rotation", "rotation: perhaps (P = 0.70), within ±36.0° (90 % interval 18.0 to 54.0)"),
        (0.1, 1.0, "rotation", "rotation: not needed; harmless"),
        (0.1, 0.5, "rotation", "rotation: not needed; harmless up to ±90.0°"),
        (0.1, 0.02, "rotation", "rotation: no; predictions get worse with it"),
        (0.99, 1.0, "flip_x", "flip_x: yes, in 10.0 % of copies (90 % interval 5.0 to 15.0)"),
        (0.1, 0.3, "flip_x", "flip_x: no; whether it harms is not clear"),
        (0.1, 1.0, "flip_x", "flip_x: no; it would do no harm"),
    ],
)
def test_sentences(probability, permitted, name, sentence):
    assert finding(probability, permitted, name).sentence == sentence


def test_a_flip_harms_where_the_whole_interval_says_so():
    assert finding(0.1, 0.3, "flip_x", furthest=0.6).sentence == "flip_x: no; predictions get worse with it"
