"""The learned extents as other libraries say them: degrees, shares of the width, factors, probabilities."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bayesinv.orbits.orbit import Orbit
from bayesinv.transforms import Transform

__all__ = ["numbers"]

LEVELS = (0.05, 0.5, 0.95)
_AFFINE = ("translate_x", "translate_y", "rotation", "scale_x", "scale_y", "shear")
_ALIKE = {
    "scale": "torchvision draws one factor for both axes, here of the mean of both log factors; factors are uniform "
    "there and log-uniform here",
    "order": "RandomAffine applies its parts one after the other, and here they are one exponential: equal for one at "
    "a time, close for small extents together",
    "contrast": "spreads about the image's mean grey there, about middle grey here",
    "saturation": "blends with another grey there (0.299, 0.587, 0.114), with the mean of the channels here",
    "hue": "turns in HSV there, about the grey axis here",
    "brightness": "is a factor there, and an amount added here: left out",
    "noise": "has one standard deviation there, and is drawn up to it here",
}


@runtime_checkable
class Described(Protocol):
    """What the numbers are read from; see `Augmentation`."""

    orbit: Orbit
    extents: Tensor
    event_shape: tuple[int, ...]
    draws: str

    @property
    def transform_family(self) -> Transform: ...

    @property
    def moves_images(self) -> bool: ...


def numbers(augmentation: Described) -> dict[str, Any]:
    """A JSON-able description of an augmentation, for people and for other libraries.

    Returns:
        "symmetries", one entry each: median and 90 % interval in people's units, in words, and the numbers that were
        used. For images "torchvision" and "kornia": arguments, by class, that come closest at the medians;
        "approximations", where these differ from what was learned; "without_counterpart", what they cannot say.

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
    if augmentation.moves_images:
        medians = dict(zip((c.name for c in coordinates), levels[1].tolist(), strict=True))
        found |= _elsewhere({name: value for name, value in medians.items() if value > 0}, augmentation)
    return found


def _elsewhere(extents: dict[str, float], augmentation: Described) -> dict[str, Any]:
    """Arguments of classes of torchvision and kornia for extents above zero."""
    _, height, width = augmentation.event_shape
    torchvision: dict[str, Any] = {}
    kornia: dict[str, Any] = {}
    notes: list[str] = []

    affine = {name: extents[name] for name in _AFFINE if name in extents}
    if affine:
        common: dict[str, Any] = {"degrees": _rounded(math.degrees(affine.get("rotation", 0.0)))}
        if {"translate_x", "translate_y"} & set(affine):  # of half the width, also down
            down = min(1.0, 0.5 * affine.get("translate_y", 0.0) * width / height)
            common["translate"] = [_rounded(min(1.0, 0.5 * affine.get("translate_x", 0.0))), _rounded(down)]
        if "shear" in affine:  # degrees, of one axis
            angle = math.degrees(math.atan(affine["shear"]))
            common["shear"] = [_rounded(-angle), _rounded(angle)]
        one, each = dict(common), dict(common)
        if {"scale_x", "scale_y"} & set(affine):
            wide, high = affine.get("scale_x", 0.0), affine.get("scale_y", 0.0)
            one["scale"] = _factors(0.5 * (wide + high))
            each["scale"] = [*_factors(wide), *_factors(high)]
            notes.append(f"scale: {_ALIKE['scale']}")
        torchvision["RandomAffine"] = {**one, "interpolation": "bilinear"}
        kornia["RandomAffine"] = {**each, "p": 1.0}
        notes += [f"order: {_ALIKE['order']}"] if len(affine) > 1 else []

    for name, kind in (("flip_x", "RandomHorizontalFlip"), ("flip_y", "RandomVerticalFlip")):
        if name in extents:
            torchvision[kind] = kornia[kind] = {"p": _rounded(extents[name])}

    colour: dict[str, Any] = {name: _factors(extents[name]) for name in ("contrast", "saturation") if name in extents}
    if "hue" in extents:
        turn = _rounded(min(0.5, extents["hue"] / (2.0 * math.pi)))  # in turns
        colour["hue"] = [-turn, turn]
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
    drawn = dict(zip(augmentation.transform_family.names, augmentation.orbit.distributions, strict=True))
    usual = ("uniform", "one_sided")
    notes += [f"{n}: is {drawn[n]} here, uniform there" for n in extents if n in said and drawn[n] not in usual]
    return {
        "torchvision": torchvision,
        "kornia": kornia,
        "approximations": notes,
        "without_counterpart": [name for name in extents if name not in said],
    }


def _factors(log_factor: float) -> list[float]:
    return [_rounded(math.exp(-log_factor)), _rounded(math.exp(log_factor))]


def _rounded(value: Any) -> float:
    return float(f"{float(value):.6g}")
