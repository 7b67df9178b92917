"""The learned extents as other libraries say them: degrees, shares of the width, factors, probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bayesinv.orbits.orbit import Orbit
from bayesinv.transforms import Coordinate, Transform
from bayesinv.transforms.asymmetric import base_name
from bayesinv.transforms.base import LOWER_END, PART, UPPER_END

__all__ = ["numbers"]

LEVELS = (0.05, 0.5, 0.95)
_AFFINE = ("translate_x", "translate_y", "rotation", "scale_x", "scale_y", "shear")
_ALIKE = {
    "scale": "torchvision draws one factor for both axes, here of the mean of both log factors; factors are uniform "
    "there and log-uniform here",
    "translate": "is symmetric there, here to the end that is farther",
    "order": "RandomAffine applies its parts one after the other, and here they are one exponential: equal for one at "
    "a time, close for small extents together",
    "contrast": "spreads about the image's mean grey there, about middle grey here",
    "saturation": "blends with another grey there (0.299, 0.587, 0.114), with the mean of the channels here",
    "hue": "turns in HSV there, about the grey axis here",
    "brightness": "is a factor there, and an amount added here: left out",
    "noise": "has one standard deviation there, and is drawn up to it here",
    "by input": "each image has a range of its own here, and all have the same there: left out",
}


@runtime_checkable
class Described(Protocol):
    """What the numbers are read from; see `Augmentation`."""

    orbit: Orbit
    extents: Tensor
    event_shape: tuple[int, ...]
    draws: str
    scales: Tensor | None

    @property
    def transform_family(self) -> Transform: ...

    @property
    def moves_images(self) -> bool: ...


def numbers(augmentation: Described) -> dict[str, Any]:
    """A JSON-able description of an augmentation, for people and for other libraries.

    Returns:
        "symmetries", one entry each: median and 90 % interval in people's units, in words, and the numbers that were
        used. For tables with scales "means" and "standard_deviations" of the columns. For images "torchvision" and
        "kornia": arguments, by class, that come closest at the medians; "approximations", where these differ from what
        was learned; "without_counterpart", what they cannot say.

    Example:
        >>> from bayesinv.export import Augmentation
        >>> from bayesinv.transforms import Affine2d
        >>> aug = Augmentation(Affine2d(["rotation"]), torch.tensor([[0.5]]), (1, 28, 28))
        >>> numbers(aug)["torchvision"]
        {'RandomAffine': {'degrees': 28.6479, 'interpolation': 'bilinear'}}
    """
    coordinates = augmentation.transform_family.coordinates
    levels = torch.quantile(augmentation.extents.cpu(), torch.tensor(LEVELS, dtype=torch.float64), dim=0)  # (3, K)
    symmetries = []
    for c, column, drawn in zip(coordinates, levels.T.tolist(), augmentation.orbit.distributions, strict=True):
        lower, median, upper = (_rounded(c.to_people(value)) for value in column)
        symmetries.append(
            {
                "name": c.name,
                "median": median,
                "lower": lower,
                "upper": upper,
                "unit": c.unit,
                "words": c.words(column[1]),
                "extent_is": c.extent_is,
                "distribution": "group" if c.is_discrete else drawn,
                "meaning": c.meaning,
            }
        )
    found: dict[str, Any] = {
        "draws": augmentation.draws,
        "num_draws": len(augmentation.extents),
        "level": round(LEVELS[2] - LEVELS[0], 6),
        "event_shape": list(augmentation.event_shape),
        "symmetries": symmetries,
    }
    if augmentation.scales is not None:  # one "sd" of a column is so many of its own units
        found["means"], found["standard_deviations"] = augmentation.scales.tolist()
    if augmentation.moves_images:
        found |= _elsewhere(_ranges(coordinates, levels[1].tolist()), augmentation)
    return found


def _ranges(coordinates: Sequence[Coordinate], extents: Sequence[float]) -> dict[str, tuple[float, float]]:
    """From where to where each amount reaches, internal units, of those that move at all; ends of a range as one.

    Without those of `PerInput`, whose range is another for each input.
    """
    found: dict[str, tuple[float, float]] = {}
    for c, value in zip(coordinates, extents, strict=True):
        if c.distribution == PART:
            continue
        name = base_name(c)
        low, high = found.get(name, (0.0, 0.0))
        if c.distribution == LOWER_END:
            found[name] = (-value, high)
        elif c.distribution == UPPER_END:
            found[name] = (low, value)
        else:
            found[name] = (-value, value)
    return {name: ends for name, ends in found.items() if ends != (0.0, 0.0)}


def _elsewhere(ranges: dict[str, tuple[float, float]], augmentation: Described) -> dict[str, Any]:
    """Arguments of classes of torchvision and kornia for ranges that are not empty."""
    _, height, width = augmentation.event_shape
    extents = {name: max(-low, high) for name, (low, high) in ranges.items()}
    one_range = {name: low != -high for name, (low, high) in ranges.items()}
    torchvision: dict[str, Any] = {}
    kornia: dict[str, Any] = {}
    notes: list[str] = []

    affine = {name: extents[name] for name in _AFFINE if name in extents}
    if affine:
        common: dict[str, Any] = {"degrees": _rounded(math.degrees(affine.get("rotation", 0.0)))}
        if one_range.get("rotation"):  # clockwise there
            common["degrees"] = [_rounded(math.degrees(-end)) for end in reversed(ranges["rotation"])]
        if {"translate_x", "translate_y"} & set(affine):  # of half the width, also down
            down = min(1.0, 0.5 * affine.get("translate_y", 0.0) * width / height)
            common["translate"] = [_rounded(min(1.0, 0.5 * affine.get("translate_x", 0.0))), _rounded(down)]
            if one_range.get("translate_x") or one_range.get("translate_y"):
                notes.append(f"translate: {_ALIKE['translate']}")
        if "shear" in affine:  # degrees, of one axis
            common["shear"] = [_rounded(math.degrees(math.atan(end))) for end in ranges["shear"]]
        one, each = dict(common), dict(common)
        if {"scale_x", "scale_y"} & set(affine):
            wide, tall = ranges.get("scale_x", (0.0, 0.0)), ranges.get("scale_y", (0.0, 0.0))
            one["scale"] = _factors([0.5 * (a + b) for a, b in zip(wide, tall, strict=True)])
            each["scale"] = [*_factors(wide), *_factors(tall)]
            notes.append(f"scale: {_ALIKE['scale']}")
        torchvision["RandomAffine"] = {**one, "interpolation": "bilinear"}
        kornia["RandomAffine"] = {**each, "p": 1.0}
        notes += [f"order: {_ALIKE['order']}"] if len(affine) > 1 else []

    for name, kind in (("flip_x", "RandomHorizontalFlip"), ("flip_y", "RandomVerticalFlip")):
        if name in extents:
            torchvision[kind] = kornia[kind] = {"p": _rounded(extents[name])}

    colour: dict[str, Any] = {name: _factors(ranges[name]) for name in ("contrast", "saturation") if name in extents}
    if "hue" in extents:  # in turns
        colour["hue"] = [_rounded(max(-0.5, min(0.5, end / (2.0 * math.pi)))) for end in ranges["hue"]]
    if colour:
        torchvision["ColorJitter"], kornia["ColorJitter"] = colour, {**colour, "p": 1.0}
    notes += [f"{name}: {_ALIKE[name]}" for name in ("contrast", "saturation", "hue", "brightness") if name in extents]

    if "blur" in extents:  # of half the width; a kernel of three standard deviations to either side
        sigma = 0.5 * extents["blur"] * width
        size = 2 * max(1, math.ceil(3.0 * sigma)) + 1
        torchvision["GaussianBlur"] = {"kernel_size": size, "sigma": [1e-3, _rounded(max(sigma, 1e-3))]}
        kornia["RandomGaussianBlur"] = {**torchvision["GaussianBlur"], "p": 1.0}
    if "noise" in extents:
        torchvision["GaussianNoise"] = {"sigma": _rounded(extents["noise"]), "clip": False}
        kornia["RandomGaussianNoise"] = {"std": _rounded(extents["noise"]), "p": 1.0}
        notes.append(f"noise: {_ALIKE['noise']}")

    said = {*_AFFINE, "flip_x", "flip_y", "contrast", "saturation", "hue", "blur", "noise"}
    pairs = zip(augmentation.transform_family.coordinates, augmentation.orbit.distributions, strict=True)
    drawn = {base_name(c): distribution for c, distribution in pairs}
    usual = ("uniform", "one_sided", LOWER_END, UPPER_END)
    notes += [f"{n}: is {drawn[n]} here, uniform there" for n in extents if n in said and drawn[n] not in usual]
    by_input = [c.name for c in augmentation.transform_family.coordinates if c.distribution == PART]
    notes += [f"{', '.join(by_input)}: {_ALIKE['by input']}"] if by_input else []
    return {
        "torchvision": torchvision,
        "kornia": kornia,
        "approximations": notes,
        "without_counterpart": [*(name for name in extents if name not in said), *by_input],
    }


def _factors(log_factors: Sequence[float]) -> list[float]:
    return [_rounded(math.exp(end)) for end in log_factors]


def _rounded(value: Any) -> float:
    return float(f"{float(value):.6g}")
