"""Masks of voxels go where the voxels of their volume go."""

import pytest
import torch
from torchvision import tv_tensors

from bayesinv.errors import DataError
from bayesinv.export import Augmentation
from bayesinv.transforms import AffineVolume, Asymmetric, Compose, Coordinate, Flip, GaussianNoise, Transform

SHAPE = (1, 8, 10, 12)


class Roll(Transform):
    coordinates = (Coordinate("roll", "", 1.0),)

    def transform(self, x, t):
        return x.roll(1, -1)


def turned(transform=None, extents=(0.4, 3.0), shape=SHAPE, **options):
    transform = transform or AffineVolume(["rotation_z", "translate_z"], spacing=(3.0, 1.0, 1.0))
    return Augmentation(transform, torch.tensor([extents]), shape, seed=0, **options)


def box(*lead):
    x = torch.zeros(*lead, *SHAPE)
    x[..., 2:6, 3:8, 3:9] = 1.0
    return x


@pytest.mark.parametrize("options", [{}, {"copies": 3}])
def test_a_mask_moves_with_its_volume(options):
    x, mask = box(4), tv_tensors.Mask(box(4)[:, 0].long())
    moved, labels = turned(**options)(x, mask)
    assert isinstance(labels, tv_tensors.Mask) and labels.dtype == torch.int64 and labels.shape[-3:] == SHAPE[1:]
    difference = (moved.squeeze(-4) - labels).abs()
    assert float((difference > 0.55).double().mean()) < 0.02  # nearest against trilinear: the half is the border
    assert float((labels != mask).double().mean()) > 0.02


def test_flips_ends_and_noise():
    transform = Compose([Flip(-3, "flip_z"), Asymmetric(AffineVolume(["translate_y"])), GaussianNoise()])
    always = turned(transform, (1.0, 0.0, 2.0, 0.1))
    mask = tv_tensors.Mask(box()[0].bool())
    moved, labels = always(box(), mask)
    assert labels.dtype == torch.bool and float(((moved[0] > 0.5) != labels).double().mean()) < 0.05


def test_everything_else_is_passed_on():
    sample = {"mask": tv_tensors.Mask(box()[0]), "scan": box(), "age": 54}
    moved = turned(extents=(3.0, 6.0))(sample)
    assert moved["age"] == 54 and not torch.equal(moved["scan"], sample["scan"])
    assert not torch.equal(moved["mask"], sample["mask"])


def test_what_cannot_move_is_refused():
    with pytest.raises(DataError, match="mask of voxels"):
        turned()(box(4), tv_tensors.Mask(torch.zeros(3, 8, 10, 12)))
    with pytest.raises(DataError, match="masks of voxels move"):
        turned(Roll(), (1.0,))(box(), tv_tensors.Mask(box()[0]))


def test_numbers_say_millimetres():
    words = [each["words"] for each in turned().numbers()["symmetries"]]
    assert words == ["±22.9°", "±3.0 mm"]
