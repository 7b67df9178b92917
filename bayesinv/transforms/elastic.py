"""Elastic deformation of images: a smooth random field of displacements."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.base import Coordinate, Transform, register, wrong_kind
from bayesinv.transforms.warp import PADDINGS, pixel_centres, sample, sample_orbit

MOST_FREQUENCIES = 100  # 2F² coefficients; a Sobol sequence has 21,201 dimensions

__all__ = ["Elastic"]


@register
class Elastic(Transform):
    """Elastic deformation: pixels are displaced by a smooth field that vanishes at the edges.

        (T_t x)(p) = x(p − t u(p)),    u_c(p) = w Σ_jk a_cjk sin(jπ (p_x + 1)/2) sin(kπ (p_y + 1)/2),   j, k = 1..F

    p runs from −1 to 1 between the edges along both axes. The 2F² coefficients a ~ U[−1, 1] are auxiliary columns of t,
    and w = √12 / F makes the root mean square of each component of u, over pixels and coefficients, exactly one; t is
    that of the displacement, in units of half the width. Only |t| means something: −t is another draw of a. There is no
    inverse in these coordinates. With three waves, 1 % of the fields fold somewhere at t = 0.06 and 75 % at 0.106.

    Args:
        frequencies: F; the higher, the finer the waves.
        padding: what lies outside the image: ``"zeros"``, ``"border"`` or ``"reflection"``.

    Raises:
        ValueError: no frequency or more than 100, or an unknown padding.
        DataError: when called on something else than floating point images, batch × channel × height × width.

    Reference:
        P. Simard, D. Steinkraus, J. Platt (2003). Best practices for convolutional neural networks applied to visual
        document analysis. ICDAR (elastic distortions, there of white noise that is smoothed).

    Example:
        >>> elastic = Elastic(frequencies=2)
        >>> elastic.num_auxiliary, elastic.coordinates[0].words(0.1)
        (8, 'up to 5.0 % of width')
    """

    def __init__(self, frequencies: int = 3, padding: str = "zeros") -> None:
        super().__init__()
        if (
            not isinstance(frequencies, int)
            or isinstance(frequencies, bool)
            or not 1 <= frequencies <= MOST_FREQUENCIES
        ):
            raise ValueError(f"frequencies: expected a whole number from 1 to {MOST_FREQUENCIES}, got {frequencies!r}")
        if padding not in PADDINGS:
            raise ValueError(f"unknown padding {padding!r}; known are {', '.join(PADDINGS)}")
        self.frequencies, self.padding = frequencies, padding

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        meaning = "Displaces pixels smoothly, by this much in root mean square along each axis."
        # Beyond it, with three waves along an axis, nearly every field folds somewhere.
        return (Coordinate.linear("elastic", "% of width", 0.1, 50.0, meaning, "one_sided"),)

    @property
    def num_auxiliary(self) -> int:  # type: ignore[override]
        """2F², a coefficient for each pair of frequencies and each component."""
        return 2 * self.frequencies**2

    def transform(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t, batch=x.shape[0])
        return sample(x, self.grid(t, x), self.padding, "bilinear")

    def orbit(
        self, x: Float[Tensor, "batch channel height width"], t: Float[Tensor, "*orbit columns"]
    ) -> Float[Tensor, "*orbit batch channel height width"]:
        self.check_input(x)
        self.check_coordinates(t)
        grid = self.grid(t.reshape(-1, t.shape[-1]), x)
        return sample_orbit(x, grid, self.padding, "bilinear").reshape(*t.shape[:-1], *x.shape)

    def grid(self, t: Tensor, x: Tensor) -> Float[Tensor, "draws height width 2"]:
        """Where each pixel is read, in the coordinates of ``grid_sample``."""
        height, width = x.shape[-2:]
        F = self.frequencies
        t = t.to(x.dtype)
        across, down = pixel_centres(width, t), pixel_centres(height, t)
        waves = 0.5 * math.pi * torch.arange(1, F + 1, dtype=t.dtype, device=t.device)
        along_x = torch.sin(waves[:, None] * (across + 1.0))  # (F, width)
        along_y = torch.sin(waves[:, None] * (down + 1.0))  # (F, height)
        a = t[:, :1] * t[:, 1:] * (math.sqrt(12.0) / F)
        u = torch.einsum("dcjk,jw,kh->dchw", a.reshape(-1, 2, F, F), along_x, along_y)  # in half widths
        pixels = torch.stack([across.expand(height, width), down[:, None].expand(height, width)])
        # Half widths are that many half heights.
        per_half = torch.tensor([1.0, width / height], dtype=u.dtype, device=u.device)[:, None, None]
        return (pixels - per_half * u).permute(0, 2, 3, 1)

    def displacement(
        self, t: Float[Tensor, "draws columns"], points: Float[Tensor, "draws points 2"], ratio: float
    ) -> Float[Tensor, "draws points 2"]:
        """t u(p), in units of half the width.

        Args:
            t: the coordinate and its auxiliaries, (draws, 1 + 2F²).
            points: p in units of half the width from the middle, (draws, points, 2), y down.
            ratio: height / width.
        """
        F = self.frequencies
        waves = 0.5 * math.pi * torch.arange(1, F + 1, dtype=points.dtype, device=points.device)
        sines = torch.sin((points / points.new_tensor([1.0, ratio]) + 1.0)[..., None] * waves)  # (draws, points, 2, F)
        a = (t[:, :1] * t[:, 1:] * (math.sqrt(12.0) / F)).to(points.dtype).reshape(-1, 2, F, F)
        return torch.einsum("dcjk,dpj,dpk->dpc", a, sines[..., 0, :], sines[..., 1, :])

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " K"]:
        """The extent at which the root mean square is half a pixel."""
        return torch.tensor([min(1.0 / event_shape[-1], 0.05)], dtype=torch.float64)

    def check_input(self, x: object) -> None:
        super().check_input(x)
        if isinstance(x, Tensor) and x.ndim != 4:
            raise wrong_kind(self, "images, batch x channel x height x width", x)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "frequencies": self.frequencies, "padding": self.padding}

    def extra_repr(self) -> str:
        return f"frequencies={self.frequencies}, padding={self.padding!r}"
