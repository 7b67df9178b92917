"""The numbers in other libraries' units do there what the extents do here."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from bayesinv.export import Augmentation
from bayesinv.transforms import (
    Affine2d,
    Asymmetric,
    Colour,
    Compose,
    CyclicRotation,
    Flip,
    GaussianBlur,
    GaussianNoise,
    PerInput,
    TimeShift,
)

HEIGHT, WIDTH = 24, 32
EXTENTS = {"translate_x": 0.25, "translate_y": 0.125, "rotation": 0.5, "scale_x": 0.3, "scale_y": 0.3, "shear": 0.2}


def smooth() -> torch.Tensor:
    x = torch.rand(1, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return v2.functional.gaussian_blur(x, [9, 9], [2.0, 2.0])


def moved_there(name: str, section: dict) -> torch.Tensor:
    """What torchvision does at the end of the range that belongs to a positive amount."""
    affine = section["RandomAffine"]
    call = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    if name == "rotation":
        call["angle"] = -affine["degrees"]  # clockwise there
    elif name == "translate_x":
        call["translate"] = [round(affine["translate"][0] * WIDTH), 0]
    elif name == "translate_y":
        call["translate"] = [0, round(affine["translate"][1] * HEIGHT)]
    elif name == "shear":
        call["shear"] = [affine["shear"][1], 0.0]
    else:
        call["scale"] = affine["scale"][1]
    return v2.functional.affine(smooth(), **call, interpolation=InterpolationMode.BILINEAR)


@pytest.mark.parametrize("name", ["rotation", "translate_x", "translate_y", "shear", "scale"])
def test_torchvision_moves_by_as_much(name):
    names = ["scale_x", "scale_y"] if name == "scale" else [name]
    transform, extents = Affine2d(names), torch.tensor([[EXTENTS[n] for n in names]])
    aug = Augmentation(transform, extents, (1, HEIGHT, WIDTH))
    here = transform.transform(smooth(), extents.double())
    assert (here - moved_there(name, aug.numbers()["torchvision"])).abs().max() < 1e-5
    assert (here - smooth()).abs().max() > 0.05


def test_arguments_are_those_of_the_classes():
    """Every argument is accepted; ranges are in the units of the class."""
    parts = [Affine2d(), Flip(), Flip(-2), Colour(), GaussianBlur(), GaussianNoise(), CyclicRotation(4)]
    given = [*EXTENTS.values(), 0.5, 0.25, 0.1, 0.2, 0.3, 0.4, 0.05, 0.1, 0.5]
    found = Augmentation(Compose(parts), torch.tensor([given]), (3, HEIGHT, WIDTH)).numbers()
    made = {name: getattr(v2, name)(**arguments) for name, arguments in converted(found["torchvision"]).items()}
    assert set(made) == {
        *("RandomAffine", "RandomHorizontalFlip", "RandomVerticalFlip", "ColorJitter", "GaussianBlur", "GaussianNoise")
    }
    assert made["RandomAffine"].degrees == pytest.approx([-28.6479, 28.6479], abs=1e-3)
    assert made["RandomAffine"].translate == pytest.approx([0.125, 0.0625 * WIDTH / HEIGHT], abs=1e-5)
    assert made["RandomAffine"].scale == pytest.approx([math.exp(-0.3), math.exp(0.3)], abs=1e-5)
    assert made["RandomAffine"].shear[:2] == pytest.approx([-11.3099, 11.3099], abs=1e-3)
    assert (made["RandomHorizontalFlip"].p, made["RandomVerticalFlip"].p) == (0.5, 0.25)
    assert made["ColorJitter"].contrast == pytest.approx([math.exp(-0.2), math.exp(0.2)], abs=1e-5)
    assert made["ColorJitter"].hue == pytest.approx([-0.4 / (2 * math.pi), 0.4 / (2 * math.pi)], abs=1e-5)
    assert made["GaussianBlur"].sigma == pytest.approx([0.001, 0.025 * WIDTH], abs=1e-5)
    assert found["kornia"]["RandomAffine"]["scale"] == pytest.approx([math.exp(-0.3), math.exp(0.3)] * 2, abs=1e-5)
    assert found["without_counterpart"] == ["brightness", "turns_4"]
    assert {note.split(":")[0] for note in found["approximations"]} == {
        *("scale", "order", "contrast", "saturation", "hue", "brightness", "noise")
    }


ENDS = {"rotation": (0.1, 0.5), "scale": (0.3, 0.1), "shear": (0.4, 0.2)}


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", ENDS)
def test_ranges_with_two_ends_reach_as_far_in_torchvision(name, side):
    """Either end of torchvision's range is what happens here at that end."""
    names = ["scale_x", "scale_y"] if name == "scale" else [name]
    transform = Affine2d(names)
    found = Augmentation(Asymmetric(transform), torch.tensor([ENDS[name] * len(names)]), (1, HEIGHT, WIDTH)).numbers()
    affine = found["torchvision"]["RandomAffine"]
    amount = -ENDS[name][0] if side == 0 else ENDS[name][1]
    call = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    if name == "rotation":
        call["angle"] = affine["degrees"][1 - side]  # clockwise there: its upper end is the lower one here
    elif name == "scale":
        call["scale"] = affine["scale"][side]
    else:
        call["shear"] = [affine["shear"][side], 0.0]
    there = v2.functional.affine(smooth(), **call, interpolation=InterpolationMode.BILINEAR)
    here = transform.transform(smooth(), torch.full((1, len(names)), amount, dtype=torch.float64))
    assert (here - there).abs().max() < 1e-5
    assert "lower" in found["symmetries"][0] and "without_counterpart" in found and not found["without_counterpart"]


def test_ends_of_colours_and_of_what_has_no_ends_there():
    parts = Compose([Asymmetric(Colour(["contrast", "hue", "brightness"])), Asymmetric("translate_x")])
    given = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0, 0.3, 0.0, 0.25]])
    assert parts.names[:4] == ("brightness_down", "brightness_up", "contrast_down", "contrast_up")
    found = Augmentation(parts, given, (3, HEIGHT, WIDTH)).numbers()
    jitter = found["torchvision"]["ColorJitter"]
    assert jitter["contrast"] == pytest.approx([math.exp(-0.3), math.exp(0.4)], abs=1e-5)
    assert jitter["hue"] == pytest.approx([0.0, 0.3 / (2 * math.pi)], abs=1e-5)
    assert found["torchvision"]["RandomAffine"]["translate"] == [0.125, 0.0]
    assert found["without_counterpart"] == ["brightness"]
    assert "translate" in {note.split(":")[0] for note in found["approximations"]}


def test_ranges_that_depend_on_the_input_have_no_counterpart():
    """The floor alone would say that all images move as little as those that move least."""
    x = torch.rand(9, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    turns = PerInput.near("rotation", x, num_landmarks=2)
    found = Augmentation(Compose([turns, Flip()]), torch.tensor([[0.1, 0.3, 0.0, 0.25]]), (1, HEIGHT, WIDTH)).numbers()
    assert list(found["torchvision"]) == ["RandomHorizontalFlip"] == list(found["kornia"])
    assert found["without_counterpart"] == ["rotation", "rotation_near_1", "rotation_near_2"]
    (note,) = found["approximations"]
    assert note.startswith("rotation, rotation_near_1, rotation_near_2: each image has a range of its own here")


def converted(section: dict) -> dict:
    """As a reader of the JSON does: the one argument that is not a number."""
    return {
        name: {k: InterpolationMode(v) if k == "interpolation" else v for k, v in arguments.items()}
        for name, arguments in section.items()
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")  # kornia scripts functions at import
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", ENDS)
def test_ranges_with_two_ends_reach_as_far_in_kornia(name, side):
    augmentation = pytest.importorskip("kornia.augmentation")
    names = ["scale_x", "scale_y"] if name == "scale" else [name]
    transform = Affine2d(names)
    found = Augmentation(Asymmetric(transform), torch.tensor([ENDS[name] * len(names)]), (1, HEIGHT, WIDTH)).numbers()
    affine = found["kornia"]["RandomAffine"]
    call = {"degrees": (0.0, 0.0), "p": affine["p"]}
    if name == "rotation":
        call["degrees"] = (affine["degrees"][1 - side],) * 2
    elif name == "scale":
        call["scale"] = (affine["scale"][side],) * 2 + (affine["scale"][2 + side],) * 2
    else:
        call["shear"] = (affine["shear"][side],) * 2
    amount = -ENDS[name][0] if side == 0 else ENDS[name][1]
    here = transform.transform(smooth(), torch.full((1, len(names)), amount, dtype=torch.float64))
    assert (here - augmentation.RandomAffine(**call)(smooth())).abs().max() < 1e-5
    assert (here - smooth()).abs().max() > 0.05


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_kornia_takes_the_arguments():
    augmentation = pytest.importorskip("kornia.augmentation")
    parts = [Affine2d(), Flip(), Colour(["contrast", "hue"]), GaussianBlur(), GaussianNoise()]
    aug = Augmentation(Compose(parts), torch.full((1, 11), 0.1), (3, HEIGHT, WIDTH))
    for name, arguments in aug.numbers()["kornia"].items():
        made = getattr(augmentation, name)(**{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})
        assert made(torch.rand(2, 3, HEIGHT, WIDTH)).shape == (2, 3, HEIGHT, WIDTH)


def test_people_read_medians_intervals_and_what_they_mean():
    draws = torch.linspace(0, 1, 101)[:, None] * torch.tensor([[math.pi, 0.5]])
    aug = Augmentation(Compose([Affine2d(["rotation"]), Flip()]), draws, (1, 8, 8), {"rotation": "von_mises"})
    rotation, flip = aug.numbers()["symmetries"]
    assert [rotation[k] for k in ("lower", "median", "upper", "unit")] == [9.0, 90.0, 171.0, "°"]
    assert (rotation["words"], rotation["distribution"], flip["distribution"]) == ("±90.0°", "von_mises", "group")
    assert flip["median"] == 25.0 and flip["unit"] == "% of copies"
    assert aug.numbers()["approximations"] == ["rotation: is von_mises here, uniform there"]


def test_signals_have_units_and_no_counterparts():
    found = Augmentation(TimeShift(100.0), torch.tensor([[0.2]]), (3, 60)).numbers()
    assert (found["symmetries"][0]["words"], "torchvision" in found) == ("±0.2 s", False)


def test_what_is_excluded_is_left_out():
    found = Augmentation(Compose([Affine2d(["rotation"]), Flip()]), torch.zeros(1, 2), (1, 8, 8)).numbers()
    assert found["torchvision"] == {} and found["kornia"] == {} and found["without_counterpart"] == []
