"""Volumes: conformance, whole voxels, millimetres, directions, and masks."""

import json
import math

import numpy as np
import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.testing.transforms import TransformConformance, smooth_images
from bayesinv.transforms import Affine2d, AffineVolume, Flip, Rotation3d


def smooth_volumes(batch=2, channel=1, depth=14, height=16, width=18):
    """Soft blobs away from the sides."""
    generator = torch.Generator().manual_seed(0)
    z, y, x = torch.meshgrid(
        *(torch.linspace(-1, 1, n, dtype=torch.float64) for n in (depth, height, width)), indexing="ij"
    )
    centres = torch.rand(3, 3, batch, channel, 1, 1, 1, generator=generator, dtype=torch.float64) - 0.5
    return sum(torch.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 0.12) for a, b, c in centres)


class TestVolumes(TransformConformance):
    inverse_tolerance = 0.35  # two trilinear samplings blur, and corners leave

    def make_transform(self):
        return AffineVolume(spacing=(3.0, 1.0, 0.8), largest_shift=10.0)

    def make_input(self):
        return smooth_volumes()


class TestShears(TransformConformance):
    inverse_tolerance = 0.35

    def make_transform(self):
        return AffineVolume(["shear_xy", "shear_xz", "shear_yz"], padding="border")

    def make_input(self):
        return smooth_volumes()


def column(*values):
    return torch.tensor([values], dtype=torch.float64)


def noise(*shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "dim", "spacing"), [("translate_z", 2, 5.0), ("translate_y", 3, 0.7), ("translate_x", 4, 0.9)]
)
def test_whole_voxels_are_exact(name, dim, spacing):
    x = noise(1, 2, 6, 7, 8)
    moved = AffineVolume([name], spacing=(5.0, 0.7, 0.9))(x, column(2 * spacing))
    expected = x.roll(2, dim)
    expected.narrow(dim, 0, 2).zero_()
    torch.testing.assert_close(moved, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("axis", "dims"), [("x", (3, 2)), ("y", (2, 4)), ("z", (4, 3))])
def test_quarter_turns_are_exact_on_cubes(axis, dims):
    # About x, what lies at +y goes to +z: towards the second of both axes.
    x = noise(1, 1, 5, 5, 5)
    moved = AffineVolume([f"rotation_{axis}"])(x, column(math.pi / 2))
    torch.testing.assert_close(moved, x.rot90(1, dims), atol=1e-12, rtol=0)


def test_a_quarter_turn_of_anisotropic_voxels_is_rigid():
    # 4 slices 3 mm apart and 12 rows 1 mm apart: a block of 6 mm in z and 12 mm in y.
    x = torch.zeros(1, 1, 4, 12, 3, dtype=torch.float64)
    x[0, 0, 1:3, :, 1] = 1.0
    moved = AffineVolume(["rotation_x"], spacing=(3.0, 1.0, 1.0))(x, column(math.pi / 2))[0, 0, :, :, 1]
    # Afterwards 12 mm in z and 6 mm in y, with the ramp of 3 mm from slice to slice.
    torch.testing.assert_close(moved.sum(1), torch.full((4,), 6.0, dtype=torch.float64))
    assert float(moved[:, 4:8].min()) > 0.999 and float(moved[:, :2].max()) < 1e-9


def test_points_move_as_their_voxels_do():
    x, t = torch.zeros(1, 1, 21, 21, 21, dtype=torch.float64), column(0.4, -0.3, 0.5)
    x[0, 0, 13, 8, 15] = 1.0  # z, y, x
    names = ["rotation_x", "rotation_y", "rotation_z"]
    spacing = (2.0, 1.0, 1.5)
    blob = AffineVolume(["scale_x"], spacing)(x, column(0.0))
    moved = AffineVolume(names, spacing)(blob, t)[0, 0]
    grid = torch.meshgrid(*(d * (torch.arange(21.0, dtype=torch.float64) - 10) for d in spacing), indexing="ij")
    centre = torch.stack([(moved * g).sum() / moved.sum() for g in reversed(grid)])
    point = torch.tensor([[[5 * 1.5, -2 * 1.0, 3 * 2.0]]], dtype=torch.float64)
    torch.testing.assert_close(centre, Rotation3d(names)(point, t)[0, 0], atol=0.3, rtol=0)


def test_a_slice_turns_against_affine2d():
    # y points down: x towards y is clockwise as seen.
    x = smooth_images(1, 2, 16, 16)
    flat = AffineVolume(["rotation_z"])(x[:, :, None].expand(-1, -1, 3, -1, -1), column(0.5))
    torch.testing.assert_close(flat[:, :, 1], Affine2d(["rotation"])(x, column(-0.5)), atol=1e-10, rtol=0)


def test_masks_are_read_at_the_nearest_voxel():
    labels = torch.randint(0, 1000, (1, 1, 5, 5, 5), generator=torch.Generator().manual_seed(0))
    transform = AffineVolume(["rotation_z", "translate_z"], spacing=(4.0, 1.0, 1.0))
    assert torch.equal(transform.moved_masks(labels, column(0.0, 0.0)), labels)
    turned = transform.moved_masks(labels, column(math.pi / 2, 1.0))  # a quarter of a slice is nearest to none
    assert torch.equal(turned, labels.rot90(1, (4, 3)))
    part = transform.moved_masks(labels, column(0.3, 0.0))
    assert set(part.unique().tolist()) <= {0, *labels.unique().tolist()}


def test_negligible_extents_are_half_a_voxel():
    transform = AffineVolume(["translate_z", "rotation_z", "scale_x"], spacing=(4.0, 1.0, 2.0))
    expected = [2.0, min(2.0 / 12, 1.0 / 40), math.log1p(1 / 20)]  # sides: 12 mm in y, 40 mm in x
    assert transform.negligible((1, 8, 12, 20)).tolist() == pytest.approx(expected)


def test_flips_of_volumes():
    x = noise(2, 1, 3, 4, 5)
    assert torch.equal(Flip(-3, "flip_z")(x, torch.ones(2, 1)), x.flip(2))


def test_errors_say_what_to_do():
    with pytest.raises(DataError, match=r"x\[:, None\]"):
        AffineVolume().check_input(torch.zeros(2, 8, 8, 8))
    with pytest.raises(DataError, match="movedim"):
        AffineVolume().check_input(torch.zeros(2, 8, 8, 8, 1))
    with pytest.raises(DataError, match="AffineVolume"):
        Affine2d().check_input(torch.zeros(2, 1, 8, 8, 8))
    for wrong in ((1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, math.inf)):
        with pytest.raises(ValueError, match=r"dz, dy, dx.*depth, height and width.*reverse of what SimpleITK"):
            AffineVolume(spacing=wrong)
    with pytest.raises(ValueError, match="padding"):
        AffineVolume(padding="wrap")
    with pytest.raises(ValueError, match="largest_shift"):
        AffineVolume(largest_shift=0.0)
    with pytest.raises(ValueError, match=r"did you mean rotation_x, rotation_y, rotation_z\?"):
        AffineVolume(["rotation"])


@pytest.mark.parametrize(
    "spacing",
    [
        np.array([5.0, 1, 0.5]),
        np.array([5, 1, 0.5], dtype=np.float32),
        torch.tensor([5.0, 1.0, 0.5]),
        list(torch.tensor([5.0, 1.0, 0.5])),
        iter([5, 1, 0.5]),
    ],
)
def test_spacings_are_taken_as_they_come(spacing):
    transform = AffineVolume(spacing=spacing)
    assert transform.spacing == (5.0, 1.0, 0.5) and all(type(d) is float for d in transform.spacing)
    assert "5.0" in json.dumps(transform.config())


@pytest.mark.parametrize(("padding", "outside"), [("zeros", 0), ("border", 7)])
def test_masks_outside_are_as_padding_says(padding, outside):
    masks = torch.full((1, 1, 3, 3, 3), 7)
    moved = AffineVolume(["translate_z"], padding=padding).moved_masks(masks, column(1.0))
    assert moved[0, 0, :, 1, 1].tolist() == [outside, 7, 7]
