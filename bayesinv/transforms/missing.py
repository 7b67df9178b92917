"""What is missing from an image: a square, or patches."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.numerics.arguments import as_integer
from bayesinv.transforms.base import Coordinate, Transform, register, wrong_kind
from bayesinv.transforms.signals.base import positive, soft_window
from bayesinv.transforms.warp import pixel_centres
from bayesinv.transforms.white_noise import white_noise

__all__ = ["CutOut", "PatchDropout"]


class _Missing(Transform):
    """Pixels that give way to the mean of their channel over the image: x ↦ x + m (mean(x) − x), m a mask on [0, 1]."""

    fixes_frame = True

    def check_input(self, x: object) -> None:
        super().check_input(x)
        if isinstance(x, Tensor) and x.ndim != 4:
            raise wrong_kind(self, "images, batch x channel x height x width", x)


def _without(
    x: Float[Tensor, "batch channel height width"], mask: Float[Tensor, "batch height width"]
) -> Float[Tensor, "batch channel height width"]:
    return torch.lerp(x, x.mean((2, 3), keepdim=True).expand_as(x), mask[:, None].to(x.dtype))


@register
class CutOut(_Missing):
    """A square of side t becomes grey: the mean of each channel over the image; its edges are logistic.

    t is drawn from [0, η], in units of half the width; two auxiliary columns say where the middle lies, anywhere in
    the image, so that a square may be cut off by the border.

    Args:
        largest: the largest sensible side, in half widths; people read percent of the width.
        edge: the width of the edges, in half widths. Much less than a pixel leaves no gradient in the side.

    Raises:
        ValueError: a number that is not positive.
        DataError: when called on something else than batch × channel × height × width.

    Reference:
        T. DeVries, G. W. Taylor (2017). Improved regularization of convolutional neural networks with cutout.
        arXiv:1708.04552 (one size, and zeros in place of the mean).

    Example:
        >>> x = torch.zeros(1, 1, 8, 8)
        >>> x[..., 3:5, 3:5] = 16.0
        >>> cut = CutOut(edge=1e-3)(x, torch.tensor([[0.5, 0.0, 0.0]]))  # 2 of 8 pixels, in the middle
        >>> cut.unique().round().tolist()
        [0.0, 1.0]
    """

    num_auxiliary = 2

    def __init__(self, largest: float = 1.0, edge: float = 0.05) -> None:
        super().__init__()
        self.largest, self.edge = positive("largest", largest), positive("edge", edge)
        meaning = "Covers a square of this side by the mean."
        self._coordinates = (Coordinate.linear("cut_out", "% of width", self.largest, 50.0, meaning, "one_sided"),)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def transform(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        height, width = x.shape[-2:]
        ratio = height / width  # half a height in half widths
        across = soft_window(pixel_centres(width, t), t[:, 1:2], t[:, :1], self.edge)  # (batch, width)
        down = soft_window(ratio * pixel_centres(height, t), ratio * t[:, 2:], t[:, :1], self.edge)
        return _without(x, down[:, :, None] * across[:, None])

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " K"]:
        """A pixel; at most half of the largest side."""
        return torch.tensor([min(2.0 / event_shape[-1], 0.5 * self.largest)], dtype=torch.float64)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "largest": self.largest, "edge": self.edge}


@register
class PatchDropout(_Missing):
    """Square patches of the image become grey, each with probability t: tokens that a vision transformer does not see.

        m_p = σ((t − u_p)/w) − σ(−u_p/w),    u_p on [0, 1] from four auxiliary columns, w = 0.02

    t is drawn from [0, η]. As in `ChannelDropout` the gate has a slope in t, so that η has a gradient. The patches lie
    on a grid from the upper left corner; those at the right and lower border may be smaller.

    Args:
        patch: side of a patch, pixels; that of the tokens of the network.

    Raises:
        ValueError: a side that is no positive integer.
        DataError: when called on something else than batch × channel × height × width.

    Reference:
        K. He, X. Chen, S. Xie, Y. Li, P. Dollár, R. Girshick (2022). Masked autoencoders are scalable vision learners.
        CVPR, arXiv:2111.06377 (patches that are left out).

    Example:
        >>> x = 2 * torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> dropped = PatchDropout(2)(x, torch.tensor([[0.5, 0.3, 0.1, -0.7, 0.2]]))
        >>> dropped[0, 0, :2].round().abs().tolist()  # the second patch is lost
        [[0.0, 2.0, 15.0, 15.0], [8.0, 10.0, 15.0, 15.0]]
    """

    num_auxiliary = 4
    _WIDTH = 0.02

    def __init__(self, patch: int = 4) -> None:
        super().__init__()
        self.patch = as_integer("patch", patch)
        meaning = "Covers every patch by the mean with this probability."
        self._coordinates = (Coordinate.linear("patch_dropout", "% of patches", 1.0, 100.0, meaning, "one_sided"),)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def transform(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        rows, columns = (-(-size // self.patch) for size in x.shape[-2:])
        u = torch.special.ndtr(white_noise(t[:, 1:], rows * columns))  # uniform on [0, 1] if it is normal
        lost = torch.sigmoid((t[:, :1] - u) / self._WIDTH) - torch.sigmoid(-u / self._WIDTH)
        patches = lost.reshape(-1, rows, columns)
        mask = patches.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)
        return _without(x, mask[:, : x.shape[-2], : x.shape[-1]])

    def config(self) -> dict[str, Any]:
        return {**super().config(), "patch": self.patch}
