"""Ready-made ``features=`` of a Gaussian process, for data on which a kernel of the raw numbers is blind.

A kernel of raw numbers compares two signals sample by sample, and two clouds of points row by row, where what they
mean lies in frequencies and in space: every pair is then about as far apart as any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.errors import DataError
from bayesinv.numerics.arguments import as_integer, as_number

__all__ = ["GridDensity", "PowerSpectrum"]

FLOOR = 1e-6  # of the mean power, below which bands count as silent


class PowerSpectrum(nn.Module):
    """Logarithm of the power of every channel in bands of frequency.

        φ_{c,b}(x) = log(P_{c,b} + 10⁻⁶ P̄),    P_{c,b} = mean_{k in b} |Σ_τ w_τ x_{c,τ} exp(−2πi k τ / T)|² / Σ_τ w_τ²,

    w a Hann window or ones, P̄ the mean of P over channels and bands. A louder signal moves φ by a constant, and the
    phases drop out; without a window so does every circular shift.

    Args:
        num_bands: of equal width.
        low, high: what the bands cover, Hz, low excluded: 0 leaves out the mean. None is half the sampling rate.
        sampling_rate: samples a second.
        window: whether to use a Hann window, against the leakage of slow drifts into high frequencies.

    Raises:
        ValueError: no band, or an empty range. DataError: not (n, channels, time), or a band without a frequency.

    Example:
        >>> time = torch.arange(200) / 100
        >>> tone = torch.sin(2 * torch.pi * 12 * time)[None, None]
        >>> PowerSpectrum(5, sampling_rate=100.0)(tone).argmax()  # the second band of five: 10 to 20 Hz
        tensor(1)
    """

    def __init__(
        self,
        num_bands: int = 24,
        low: float = 0.0,
        high: float | None = None,
        sampling_rate: float = 1.0,
        window: bool = True,
    ) -> None:
        super().__init__()
        self.num_bands, self.window = as_integer("num_bands", num_bands), window
        self.sampling_rate = as_number("sampling_rate", sampling_rate)
        self.low, self.high = float(low), 0.5 * self.sampling_rate if high is None else float(high)
        if not 0 <= self.low < self.high <= 0.5 * self.sampling_rate:
            raise ValueError(
                f"low and high: expected 0 <= low < high <= {0.5 * self.sampling_rate:g} Hz, half the sampling rate, "
                f"got {self.low:g} and {self.high:g}"
            )

    def forward(self, x: Float[Tensor, n * event]) -> Float[Tensor, "n features"]:
        """φ, channel after channel, (n, channels · num_bands)."""
        if x.ndim != 3:
            raise DataError(f"PowerSpectrum: expected signals (n, channels, time), got shape {tuple(x.shape)}")
        bands = self._bands(x.shape[2]).to(x)  # (frequencies, bands), each column of mean weights
        w = torch.hann_window(x.shape[2], dtype=x.dtype, device=x.device) if self.window else torch.ones_like(x[0, 0])
        spectrum = torch.fft.rfft(w * x)
        power = (spectrum.real.square() + spectrum.imag.square()) / w.square().sum() @ bands  # (n, channels, bands)
        floor = FLOOR * power.mean((1, 2), keepdim=True) + torch.finfo(x.dtype).tiny
        return (power + floor).log().flatten(1)

    def _bands(self, num_times: int) -> Float[Tensor, "frequencies bands"]:
        """One column for each band: the weights of a mean over its frequencies.

        Raises:
            DataError: a band without a frequency.
        """
        frequency = torch.arange(num_times // 2 + 1, dtype=torch.float64) * self.sampling_rate / num_times
        place = (frequency - self.low) / (self.high - self.low) * self.num_bands
        number = (place - 1e-9).ceil().long() - 1  # low excluded, high included, whatever rounding does
        inside = (place > 1e-9) & (number < self.num_bands)
        member = nn.functional.one_hot(number.clamp(0, self.num_bands - 1), self.num_bands) * inside[:, None]
        count = member.sum(0)
        if bool((count == 0).any()):
            fits = int(inside.sum())
            raise DataError(
                f"PowerSpectrum: {num_times} samples at {self.sampling_rate:g} Hz hold {fits} frequencies between "
                f"{self.low:g} and {self.high:g} Hz, too few for {self.num_bands} bands; set num_bands to "
                f"{max(1, fits // 2)} or fewer"
            )
        return member.double() / count

    def extra_repr(self) -> str:
        return f"{self.num_bands}, {self.low:g}, {self.high:g}, {self.sampling_rate:g}, {self.window}"


class GridDensity(nn.Module):
    """The density of points on a cubic grid that stands still, whatever the order of the points.

        φ_{e,g}(x) = Σ_{a in e} exp(−|r_a − g|² / 2σ²),    g on a k × k × k grid over [−reach, reach]³

    Rotations and translations of the points move the density over the grid, which a kernel can tell. Gaussians are
    products over the axes, so that a point costs 3k exponentials and not k³.

    Args:
        reach: where the grid ends, in the unit of the points; points beyond it fade out.
        ticks: k, grid points along an axis.
        width: σ, in the unit of the points; None is 0.7 of the grid's spacing, below which points fall through.
        column: of x, which says what a point is (an atomic number, a mask); None counts all alike.
        kinds: the values of that column, one density for each; () is one density of all rows where it is not zero.

    Raises:
        ValueError: sizes that are not positive, or kinds without a column. DataError: not (n, points, 3 or more).

    Example:
        >>> cloud = torch.randn(2, 50, 3)
        >>> density = GridDensity(reach=2.0, ticks=4)
        >>> density(cloud).shape, torch.allclose(density(cloud), density(cloud.flip(1)), atol=1e-5)
        (torch.Size([2, 64]), True)
        >>> GridDensity(4.0, column=3, kinds=(1, 6, 7, 8))(torch.zeros(2, 29, 4)).shape  # of molecules
        torch.Size([2, 256])
    """

    def __init__(
        self,
        reach: float = 1.0,
        ticks: int = 4,
        width: float | None = None,
        column: int | None = None,
        kinds: Sequence[int | float] = (),
    ) -> None:
        super().__init__()
        reach, ticks = as_number("reach", reach), as_integer("ticks", ticks, 2)
        self.width = 0.7 * 2 * reach / (ticks - 1) if width is None else as_number("width", width)
        self.column, self.kinds = column, tuple(kinds)
        if column is not None:
            as_integer("column", column, 3)
        elif self.kinds:
            raise ValueError("kinds: expected column=, which says of what kind a point is, such as column=3")
        self.ticks: Tensor
        self.register_buffer("ticks", torch.linspace(-reach, reach, ticks))

    def forward(self, x: Float[Tensor, n * event]) -> Float[Tensor, "n features"]:
        """φ, the grid of each kind after the other, (n, kinds · k³)."""
        if x.ndim != 3 or x.shape[2] < max(3, 1 + (self.column or 0)):
            wanted = max(3, 1 + (self.column or 0))
            raise DataError(
                f"GridDensity: expected points (n, points, {wanted} columns or more), got shape {tuple(x.shape)}"
            )
        along = torch.exp(-0.5 * ((x[..., :3, None] - self.ticks.to(x)) / self.width).square())  # (n, points, 3, k)
        weight = self._membership(x)  # (n, points, kinds)
        return torch.einsum("npe,npi,npj,npk->neijk", weight, along[:, :, 0], along[:, :, 1], along[:, :, 2]).flatten(1)

    def _membership(self, x: Tensor) -> Float[Tensor, "n points kinds"]:
        if self.column is None:
            return torch.ones_like(x[..., :1])
        kind = x[..., self.column, None]
        return (kind == torch.tensor(self.kinds).to(x) if self.kinds else kind != 0).to(x.dtype)

    def extra_repr(self) -> str:
        reach, k = float(self.ticks[-1]), len(self.ticks)
        return f"{reach:g}, {k}, {self.width:g}, {self.column}, {self.kinds}"
