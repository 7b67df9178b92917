"""Masks, boxes and key points go where the pixels of the image go."""

import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.export.frames import Frame
from bayesinv.transforms import (
    Affine2d,
    Asymmetric,
    Colour,
    Compose,
    CyclicRotation,
    Dihedral,
    Elastic,
    Flip,
    Permutation,
    Perspective,
)

SIZE = (30, 40)  # not square
FINE = 24  # a mask of so many pixels for one: its box is known to 1/24 of a pixel
CASES = {
    "affine": (Affine2d(), 0.25),
    "perspective": (Compose([Affine2d(["rotation"]), Perspective()]), 0.4),
    "elastic": (Elastic(), 0.5),
    "all": (Compose([Flip(), Affine2d(["shear", "rotation"]), Colour(), Elastic(2), Flip(-2)]), 0.25),
    "half turns": (CyclicRotation(2), 1.0),
    "thirds": (CyclicRotation(3), 1.0),
    "dihedral": (Dihedral(3), 1.0),
    "two ends": (Asymmetric(Affine2d(["rotation", "translate_x", "shear"]), ["rotation", "shear"]), 0.25),
}


def drawn(name: str, seed: int) -> tuple[list, list, torch.Tensor]:
    """Stages, and one draw for each of them: continuous ones up to a share of the largest, groups any element."""
    transform, share = CASES[name]
    generator = torch.Generator().manual_seed(seed)
    columns = []
    for k in transform.columns:
        unit = 2.0 * torch.rand(1, generator=generator, dtype=torch.float64) - 1.0
        if k is not None:
            c = transform.coordinates[k]
            unit = ((unit + 1) / 2 * c.order).floor() if c.is_discrete else unit * share * c.largest
        columns.append(unit)
    t = torch.stack(columns, -1)  # (1, columns)
    parts = t.split([stage.num_columns for stage in transform.stages], -1)
    return list(transform.stages), list(parts), t


def seen(mask: torch.Tensor) -> torch.Tensor:
    """left, top, right, bottom of what is not zero."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_boxes_are_those_of_the_moved_mask(name, seed):
    frame = Frame(*drawn(name, seed)[:2])
    for box in ([12.0, 8.0, 25.0, 20.0], [1.0, 2.0, 12.0, 28.0], [-3.0, -2.0, 45.0, 33.0]):  # the last covers all
        left, top, right, bottom = (max(0, round(v * FINE)) for v in box)
        mask = torch.zeros(1, 1, SIZE[0] * FINE, SIZE[1] * FINE, dtype=torch.uint8)
        mask[..., top:bottom, left:right] = 1
        expected = seen(frame.masks(mask)[0, 0] > 0) / FINE
        moved = frame.boxes(torch.tensor([box]).clamp_min(0).minimum(torch.tensor([40.0, 30.0, 40.0, 30.0])), SIZE)
        assert (moved[0] - expected).abs().max() < 0.1, (box, moved, expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_key_points_are_in_the_middle_of_the_moved_spot(name, seed):
    frame = Frame(*drawn(name, seed)[:2])
    for x, y in ((20.0, 15.0), (13.0, 18.0), (24.0, 9.0)):
        down, across = torch.meshgrid(torch.arange(SIZE[0] * FINE), torch.arange(SIZE[1] * FINE), indexing="ij")
        spot = ((across + 0.5) / FINE - x).square() + ((down + 0.5) / FINE - y).square() < 0.3**2
        where = frame.masks(spot[None, None])[0, 0].nonzero().double().mean(0).flip(0)
        expected = (where + 0.5) / FINE
        moved = frame.points(torch.tensor([[x, y]], dtype=torch.float64), SIZE)[0]
        if expected.isfinite().all():  # else it has left the image
            assert (moved - expected).abs().max() < 0.1, (moved, expected)
        else:
            assert not bool(((moved > 0.3) & (moved < torch.tensor([39.7, 29.7]))).all())


@pytest.mark.parametrize("name", CASES)
def test_masks_are_read_where_the_image_is_read(name):
    """A smooth image of large numbers: its nearest pixels are within a pixel of the interpolated ones."""
    stages, parts, t = drawn(name, 5)
    ramp = (torch.arange(40.0) + 100)[None, None, None].expand(1, 1, 30, 40)
    moved = CASES[name][0].transform(ramp.expand(1, 3, 30, 40), t)[:, :1]
    if name == "all":
        moved = stages[0].transform(ramp, parts[0])  # without its colours
        for stage, part in zip(stages[1:], parts[1:], strict=True):
            moved = moved if isinstance(stage, Colour) else stage.transform(moved, part)
    frame = Frame(stages, parts)
    mask = frame.masks(ramp.int())
    # Away from the edges, where interpolated values fade.
    outside = torch.nn.functional.pad((mask == 0).float(), (2, 2, 2, 2), value=1.0)
    inside = torch.nn.functional.max_pool2d(outside, 5, 1) == 0
    assert inside.double().mean() > 0.2
    assert (moved - mask)[inside].abs().max() < 1.5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_key_points_are_where_the_image_has_gone(name, seed):
    """Images of their own coordinates, moved by the library: at a moved point they read where it came from."""
    stages, parts = drawn(name, seed)[:2]
    height, width = SIZE
    down, across = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    moved = torch.stack([across, down])[None].double()
    for stage, part in zip(stages, parts, strict=True):
        moved = moved if isinstance(stage, Colour) else stage.transform(moved, part.double())
    points = torch.tensor([[20.0, 15.0], [13.0, 18.0], [24.0, 9.0]], dtype=torch.float64)
    there = Frame(stages, parts).points(points, SIZE)
    seen_there = ((there > 2.0) & (there < torch.tensor([width - 2.0, height - 2.0]))).all(1)
    place = 2.0 * there / torch.tensor([width, height]) - 1.0
    read = torch.nn.functional.grid_sample(moved, place[None, None], align_corners=False)[0, :, 0].T
    assert seen_there.any()
    assert (read - points)[seen_there].abs().max() < 0.1


def test_a_quarter_turn_in_pixels():
    """Counter-clockwise as seen, about (20, 15): 10 to the right becomes 10 up."""
    frame = Frame([Affine2d(["rotation"])], [torch.tensor([[torch.pi / 2]])])
    assert torch.allclose(frame.points(torch.tensor([[30.0, 15.0]]), SIZE), torch.tensor([[20.0, 5.0]]), atol=1e-5)


def test_boxes_that_are_not_seen_are_empty_and_whole_numbers_stay_whole():
    frame = Frame([Affine2d(["translate_x"])], [torch.tensor([[1.0]])])  # by 20 pixels
    moved = frame.boxes(torch.tensor([[30, 5, 35, 9], [1, 2, 3, 4], [15, 2, 25, 4]]), SIZE)
    assert moved.tolist() == [[0, 0, 0, 0], [21, 2, 23, 4], [35, 2, 40, 4]]


def test_large_labels_survive():
    labels = torch.tensor([2**30 + 1, 2**30 + 3])[None, None, None].expand(1, 1, 2, 2)
    moved = Frame([Flip()], [torch.ones(1, 1)]).masks(labels)
    assert torch.equal(moved, labels.flip(-1))


def test_what_stays_stays_and_what_cannot_be_said_is_refused():
    stays = [Colour(), Permutation.cyclic(3, -3), Flip(-3)]
    frame = Frame(stays, [torch.ones(1, 4), torch.ones(1, 1), torch.ones(1, 1)])
    assert frame.points(torch.tensor([[3.0, 4.0]]), SIZE).tolist() == [[3.0, 4.0]]
    with pytest.raises(DataError, match="does not say how"):
        Frame([Permutation.cyclic(30, -2)], [torch.ones(1, 1)])
