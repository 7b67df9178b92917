"""Gaussian blur of images; also the null of a warp, whose interpolation blurs."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, Transform, register, wrong_kind

__all__ = ["GaussianBlur"]


@register
class GaussianBlur(Transform):
    """An image convolved with a normal density of standard deviation t, drawn from [0, η].

        x ↦ C_h x C_wᵀ,    C[p, q] ∝ cos-transform of exp(-t² k² / 2), rows that sum to one

    The blur multiplies the coefficients of the discrete cosine transform, so that the image goes on as its mirror
    image beyond the frame: what is bright stays bright, T_0 is the identity exactly, and small t have a gradient (a
    sampled kernel has none below half a pixel). −t is no inverse.

    Args:
        largest: the largest sensible standard deviation, as a fraction of half the image's width; people read percent
            of the width.

    Raises:
        ValueError: an extent that is not positive.
        DataError: when called on something else than batch × channel × height × width.

    Example:
        >>> blurred = GaussianBlur()(torch.eye(8)[None, None], torch.tensor([[0.2]]))
        >>> round(blurred.sum().item(), 4), bool(blurred.max() < 1)
        (8.0, True)
    """

    fixes_frame = True

    def __init__(self, largest: float = 0.25) -> None:
        super().__init__()
        self.largest = float(largest)
        meaning = "Blurs with a normal density of this standard deviation."
        self._coordinates = (
            Coordinate.linear("blur", "% of width", self.largest, 50.0, meaning, distribution="one_sided"),
        )

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return self._coordinates

    def transform(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "batch K"]
    ) -> Float[Tensor, "batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        rows, columns = self._matrices(t[:, 0], x)
        return rows[:, None] @ x @ columns[:, None]

    def orbit(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "*orbit K"]
    ) -> Float[Tensor, "*orbit batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t)
        rows, columns = self._matrices(t[..., 0], x)  # (*orbit, height, height) and width: symmetric
        return rows[..., None, None, :, :] @ x @ columns[..., None, None, :, :]

    def check_input(self, x: object) -> None:
        super().check_input(x)
        if isinstance(x, Tensor) and x.ndim != 4:
            raise wrong_kind(self, "images, batch x channel x height x width", x)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "largest": self.largest}

    @staticmethod
    def _matrices(sigma: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The blurs of columns and of rows, (..., size, size)."""
        pixels = sigma.to(x.dtype) * (0.5 * x.shape[-1])
        return _blur_matrix(pixels, x.shape[-2]), _blur_matrix(pixels, x.shape[-1])


def _blur_matrix(sigma: Float[Tensor, "*draws"], size: int) -> Float[Tensor, "*draws size size"]:
    """I - D diag(1 - exp(-σ² ω² / 2)) Dᵀ, with D the orthonormal cosine transform and ω = πk/size radians a pixel.

    Equal to D diag(exp(-σ² ω² / 2)) Dᵀ, and the identity to the last bit at σ = 0.
    """
    k = torch.arange(size, dtype=torch.float64, device=sigma.device)  # angles of thousands of radians
    D = torch.cos(math.pi * (k[:, None] + 0.5) * k / size) * math.sqrt(2.0 / size)  # (pixel, k)
    D = torch.cat([D[:, :1] / math.sqrt(2.0), D[:, 1:]], 1).to(sigma.dtype)
    lost = -torch.expm1(-0.5 * (sigma[..., None] * (math.pi * k / size).to(sigma.dtype)).square())
    return torch.eye(size, dtype=sigma.dtype, device=sigma.device) - (D * lost[..., None, :]) @ D.T
