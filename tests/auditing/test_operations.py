"""Candidates act on their kind of data, and a set of them is one transform."""

import pytest
import torch

from bayesinv.auditing.operations import candidates, kind_of, transform_of
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
