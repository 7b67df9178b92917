"""Candidates act on their kind of data, and a set of them is one transform."""

import pytest
import torch

from bayesinv.auditing.operations import MOST_COLUMNS, candidates, columns_tried, kind_of, transform_of
from bayesinv.errors import DataError
from bayesinv.orbits.orbit import Orbit

SHAPES = {"images": (4, 3, 8, 8), "signals": (4, 2, 40), "points": (4, 6, 3), "tables": (4, 5)}


@pytest.mark.parametrize("kind", SHAPES)
def test_all_candidates_together_move_an_example(kind):
    x = torch.rand(SHAPES[kind])
    assert kind_of(x) == kind
    operations = candidates(kind, x)
    names = [operation.name for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        transform = transform_of([operation])
        assert transform.names == (operation.name,)
        largest = torch.tensor([transform.coordinates[0].largest], dtype=torch.float64)
        copies = transform.orbit(x, Orbit(transform, 4).coordinates(largest).to(x))
        assert copies.shape[1:] == x.shape
        assert not torch.allclose(copies, x.expand_as(copies), atol=1e-4), operation.name


def test_a_family_is_one_stage_and_order_is_that_of_the_candidates():
    operations = candidates("images", torch.rand(2, 3, 8, 8))
    assert len(operations) == 19
    chosen = [o for o in operations if o.name in ("hue", "rotation", "shear", "contrast")]
    transform = transform_of(chosen)
    assert transform.names == ("rotation", "shear", "contrast", "hue")
    assert len(transform.stages) == 2


def test_grey_images_have_no_colours_and_oblong_ones_no_quarter_turns():
    names = {o.name for o in candidates("images", torch.rand(2, 1, 8, 10))}
    assert not names & {"hue", "saturation", "channel_order", "turns_4"}
    assert {"brightness", "flip_x"} <= names


def test_columns_of_a_table_have_their_names_and_constant_ones_are_left_out():
    x = torch.rand(10, 3)
    x[:, 1] = 2.0
    names = [o.name for o in candidates("tables", x, columns=["age", "one", "dose"])]
    assert names[:2] == ["shift_age", "shift_dose"]
    assert "shift_one" not in names


def test_other_shapes_are_refused():
    with pytest.raises(DataError, match="expected images"):
        kind_of(torch.zeros(3))


def test_of_a_wide_table_the_columns_that_say_most_about_the_targets_are_tried():
    """The last two of 30: one for labels, one whose rank follows a real target."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 30, generator=generator)
    y = (x[:, 29] > 0).long()
    target = -(x[:, 28:29] ** 3)
    assert "29" in columns_tried(x, y, 2) and len(columns_tried(x, y, 2)) == MOST_COLUMNS
    assert "28" in columns_tried(x, target, None)
    chosen = columns_tried(x, y, 2)
    assert chosen == sorted(chosen, key=int)  # in the order of the table
    names = [f"c{i}" for i in range(30)]
    assert "c29" in columns_tried(x, y, 2, names)
    assert [o.name for o in candidates("tables", x, chosen=chosen)][:20] == [f"shift_{name}" for name in chosen]


def test_columns_that_were_asked_for_are_tried_too():
    x, y = torch.randn(50, 30, generator=torch.Generator().manual_seed(1)), torch.arange(50) % 2
    (left_out, *_) = sorted(set(map(str, range(30))) - set(columns_tried(x, y, 2)))
    assert left_out in columns_tried(x, y, 2, asked=[f"shift_{left_out}", "noise"])


def test_constant_columns_take_no_place():
    x, y = torch.randn(50, 22, generator=torch.Generator().manual_seed(1)), torch.arange(50) % 2
    x[:, :2] = 1.0
    assert columns_tried(x, y, 2) == list(map(str, range(2, 22)))
