"""Augmentation policies of torchvision, as a baseline: nothing is learned beside the weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.inference.point.base import (
    PointMethod,
    PointObjective,
    check_count,
    copies_of,
    fix_extents,
    fixed_extents,
    plug_in_copy,
)
from bayesinv.inference.training import Training
from bayesinv.model.invariance_model import InvarianceModel

__all__ = ["POLICIES", "Policy"]

POLICIES = ("randaugment", "trivialaugment", "autoaugment")
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Policy(PointMethod):
    """A network trained on images that a published policy augments, one draw for each image at every step.

    The policies are torchvision's ``RandAugment``, ``TrivialAugmentWide`` and ``AutoAugment`` (the one found on
    CIFAR-10), at their own settings. They work on bytes: images in [0, 1] are mapped to 0..255 and back, others by the
    range that each channel has shown so far, which is part of the state; pixels are rounded to that grid. Predictions
    see the plain input, and every extent is reported as 0: a policy is no statement about a symmetry.

    Args:
        name: "randaugment", "trivialaugment" or "autoaugment".
        num_copies: of an input in a training step; their losses are averaged.

    Raises:
        ValueError: an unknown policy, or a number of copies below one.

    References:
        E. Cubuk, B. Zoph, J. Shlens, Q. Le (2019). RandAugment. arXiv:1909.13719.
        S. Müller, F. Hutter (2021). TrivialAugment. arXiv:2103.10158.
        E. Cubuk, B. Zoph, D. Mané, V. Vasudevan, Q. Le (2018). AutoAugment. arXiv:1805.09501.

    Example:
        >>> Policy("trivialaugment")
        Policy(name='trivialaugment', num_copies=1)
    """

    name: str = "randaugment"
    num_copies: int = 1

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise ValueError(f"name: expected one of {list(POLICIES)}, got {self.name!r}")
        check_count("num_copies", self.num_copies)

    def prepare(self, model: InvarianceModel) -> InvarianceModel:
        """A copy whose extents are all zero.

        Raises:
            ValueError: the backbone is no network.
        """
        fitted = plug_in_copy(model, self.name, "log_likelihood")
        fix_extents(fitted, {})
        return fitted

    def objective(self, model: InvarianceModel, training: Training, num_total: int, seed: int) -> "PolicyObjective":
        """What the training loop minimises."""
        return PolicyObjective(self, self.prepare(model))

    def check(self, data: Data) -> None:
        """Raise a DataError unless the inputs are images of one or three channels."""
        check_images(data.x, self.name)


class PixelRange(nn.Module):
    """From floating point images to bytes and back, by the range of each channel that has been seen."""

    def __init__(self) -> None:
        super().__init__()
        self.low: Tensor
        self.high: Tensor
        # As many as the most channels, so that a state fits whatever it is loaded into.
        self.register_buffer("low", torch.full((max(_CHANNELS),), torch.inf, dtype=torch.float64))
        self.register_buffer("high", torch.full((max(_CHANNELS),), -torch.inf, dtype=torch.float64))

    @torch.no_grad()
    def see(self, x: Float[Tensor, "n channel height width"]) -> None:
        """Widen the range to hold a batch, so that no pixel is ever cut off."""
        channels = x.shape[1]
        pixels = x.transpose(0, 1).flatten(1).to(self.low)  # (channel, n·height·width)
        self.low[:channels] = torch.minimum(self.low[:channels], pixels.amin(1))
        self.high[:channels] = torch.maximum(self.high[:channels], pixels.amax(1))

    def limits(self, channels: int) -> tuple[Float64[Tensor, " channel"], Float64[Tensor, " channel"]]:
        """What 0 and 255 stand for, by channel; [0, 1] for images inside it."""
        low, high = self.low[:channels], self.high[:channels]
        is_unit = (low.min() >= 0) & (high.max() <= 1)
        low, high = torch.where(is_unit, 0.0, low), torch.where(is_unit, 1.0, high)
        return low, torch.where(high > low, high, low + 1.0)  # a channel of one value has no range

    def to_bytes(self, x: Float[Tensor, "n channel height width"]) -> UInt8[Tensor, "n channel height width"]:
        """0..255, rounded."""
        low, high = (limit[:, None, None].to(x.dtype) for limit in self.limits(x.shape[1]))
        return ((x - low) * (255.0 / (high - low))).round().clamp(0, 255).to(torch.uint8)

    def to_floats(
        self, pixels: UInt8[Tensor, "n channel height width"], dtype: torch.dtype
    ) -> Float[Tensor, "n channel height width"]:
        """The inverse of `to_bytes`, but for rounding."""
        low, high = (limit[:, None, None].to(dtype) for limit in self.limits(pixels.shape[1]))
        return low + pixels.to(dtype) * ((high - low) / 255.0)


class PolicyObjective(PointObjective):
    """The likelihood of augmented images."""

    def __init__(self, method: Policy, model: InvarianceModel):
        self.range = PixelRange().to(model.orbit.base.device)
        self.augment = torchvision_policy(method.name)
        super().__init__(method, model, method.num_copies, 1, [self.range])

    def training_points(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "copies n *event"]:
        """Copies that are augmented one by one.

        Raises:
            DataError: no images of one or three channels.
        """
        check_images(x, self.method.name)
        self.range.see(x)
        copies = copies_of(self.range.to_bytes(x), self.training_copies).flatten(0, 1)
        augmented = torch.stack([self.augment(image) for image in copies])
        return self.range.to_floats(augmented, x.dtype).unflatten(0, (self.training_copies, len(x)))

    def extents(self) -> Float64[Tensor, " K"]:
        """Zeros."""
        return fixed_extents(self.model)

    def facts(self) -> dict[str, Any]:
        """The options, and the range that bytes stand for, by channel."""
        seen = torch.isfinite(self.range.low)
        limits = zip(self.range.low[seen].tolist(), self.range.high[seen].tolist(), strict=True)
        return {**super().facts(), "range_seen": [list(pair) for pair in limits]}


def torchvision_policy(name: str) -> Callable[[Tensor], Tensor]:
    """A policy on one image of bytes, (channel, height, width); it draws from torch's global generator."""
    from torchvision.transforms import v2  # here, since it is slow to import and most fits need none

    if name == "autoaugment":
        return v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    return {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}[name]()


def check_images(x: Tensor, name: str) -> None:
    """Raise a DataError unless x is (n, channel, height, width) with one or three channels."""
    if x.ndim != 4 or x.shape[1] not in _CHANNELS:
        raise DataError(
            f'inference="{name}" augments images, (n, channels, height, width) with 1 or 3 channels, and inputs of '
            f"shape {tuple(x.shape)} came; use Fixed, Augerino or AugNet with a transform for such inputs"
        )
