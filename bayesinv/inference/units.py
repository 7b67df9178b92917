"""Units and offsets of the data that decide the answer: what a model cannot take out of the numbers itself.

The default kernel, the noise and the means of a Gaussian process start at the scale of the data, and a network's
outputs are read as standardised targets. Left are the inputs of a network, the numbers in a kernel of the user's own,
columns whose extents are said in standard deviations, columns and targets of very different spread that share one scale
or noise, and what float32 has rounded before an offset was subtracted.
"""

from __future__ import annotations

import torch
from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones import GaussianProcess
from bayesinv.data.arrays import rounding
from bayesinv.data.container import Data
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.transforms.tables import ColumnTransform

# Networks: largest value below which, and root mean square or offset over spread above which, inputs are not of about
# one. Images in [0, 1] have a largest value of one, standardised inputs a root mean square of one.
SMALLEST_INPUT, LARGEST_INPUT, LARGEST_OFFSET = 0.3, 5.0, 10.0
LARGEST_FACTOR = 10.0  # between where a kernel of the user's own starts and the distances of the inputs
LARGEST_VARIANCE_FACTOR = 100.0  # between its variance and that of the targets, and the square of that between targets
LARGEST_SD_FACTOR = 3.0  # between one and the standard deviation of a column whose extents are said in those
LARGEST_SPREADS = 30.0  # between the standard deviations of columns that share a lengthscale, or a prior over weights
FEWEST_ROWS = 8  # of which a standard deviation is within LARGEST_SD_FACTOR of the true one
SHOWN = 3  # columns in a message
CURE = "standardise: (x - x.mean(0)) / x.std(0), here and where you predict, with numbers of the training data"


def unit_mistakes(model: InvarianceModel, data: Data) -> list[str]:
    """What to warn of before a fit, each with what to do.

    Args:
        model: initialised.
        data: some of the training data.

    Example:
        >>> from torch import nn
        >>> model = InvarianceModel(nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), "rotation")
        >>> data = Data(1e-5 * torch.ones(8, 1, 6, 6), torch.arange(8) % 2, 2)
        >>> unit_mistakes(model, data)[0].split(",")[0]
        'x reaches 1e-05'
    """
    x = data.x.double()
    found = _of_network(x) if model.is_network else _of_kernel(model, x, data)
    found += _of_columns(model, x)
    if not found and not _has_lengthscales_by_column(model):
        found = _of_spreads(x)
    found += _of_rounding(data.x, "x")
    if model.likelihood == "gaussian" and len(data) > 1:
        found += _of_rounding(data.y, "y")
        sizes = data.y.double().std(0)
        sizes = sizes[sizes > 0]
        if len(sizes) > 1 and float(sizes.max() / sizes.min()) > LARGEST_VARIANCE_FACTOR:
            found.append(
                f"the columns of y have standard deviations from {float(sizes.min()):.3g} to {float(sizes.max()):.3g} "
                "and share one noise, so that the largest decides alone; standardise each: (y - y.mean(0)) / y.std(0)"
            )
    return found


def _of_network(x: Float[Tensor, n * event]) -> list[str]:
    if len(x) < 2:
        return []
    largest, rms, spread = float(x.abs().max()), float(x.square().mean().sqrt()), float(x.std())
    if largest == 0:
        return []
    offset = abs(float(x.mean()))
    if largest >= SMALLEST_INPUT and rms <= LARGEST_INPUT and offset <= LARGEST_OFFSET * max(spread, 1e-12):
        return []
    cure = "(x - x.mean(0)) / x.std(0), column by column" if x.ndim == 2 else "(x - x.mean()) / x.std()"
    if x.ndim == 4 and float(x.min()) >= 0 and largest > 1:
        cure = "x / 255 for images of 8 bits"
    return [
        f"x reaches {largest:.3g}, with a root mean square of {rms:.2g} and a mean of {float(x.mean()):.2g}, and the "
        "prior over the weights of a network is made for inputs of about one; scale them, here and where you predict, "
        f"with numbers of the training data: {cure}"
    ]


def _of_columns(model: InvarianceModel, x: Float[Tensor, n * event]) -> list[str]:
    """Columns whose extents are said in standard deviations, and are in another unit."""
    if x.ndim != 2 or len(x) < FEWEST_ROWS:
        return []
    sizes = _spreads(x)
    moved = {
        name: float(sizes[at])
        for stage in model.orbit.transform.stages
        if isinstance(stage, ColumnTransform) and stage.coordinates[0].unit == "sd"
        for at, name in zip(stage.columns_at, stage.column_names, strict=True)
    }
    far = {k: sd for k, sd in moved.items() if sd > 0 and not 1 / LARGEST_SD_FACTOR <= sd <= LARGEST_SD_FACTOR}
    if not far:
        return []
    shown = ", ".join(f"{sd:.3g} in column {name}" for name, sd in list(far.items())[:SHOWN])
    return [
        "extents of shifts and noise of columns are in the unit of x and written as standard deviations (sd), which "
        f"takes columns of about 1, and x has a standard deviation of {shown}{', ...' * (len(far) > SHOWN)}; {CURE}"
    ]


def _spreads(x: Float[Tensor, "n columns"]) -> Float[Tensor, " columns"]:
    """Standard deviations, 0 where a column differs by rounding alone."""
    return x.std(0).where(x.std(0) > 1e-12 * x.abs().amax(0), 0.0)


def _of_spreads(x: Float[Tensor, n * event]) -> list[str]:
    """Columns of very different spread, of which the widest alone tells inputs apart."""
    if x.ndim != 2 or len(x) < FEWEST_ROWS:
        return []
    sizes = _spreads(x)
    widest, narrowest = int(sizes.argmax()), int(sizes.where(sizes > 0, torch.inf).argmin())
    if float(sizes[widest]) <= LARGEST_SPREADS * float(sizes[narrowest]):
        return []
    return [
        f"the columns of x have standard deviations from {float(sizes[narrowest]):.3g} (column {narrowest}) to "
        f"{float(sizes[widest]):.3g} (column {widest}) and one scale for all, so that the narrow ones hardly count; "
        f"{CURE}"
    ]


def _has_lengthscales_by_column(model: InvarianceModel) -> bool:
    backbone = model.backbone
    parts = backbone.kernel.modules() if isinstance(backbone, GaussianProcess) else ()
    return any(isinstance(part, Kernel) and part.ard_num_dims not in (None, 1) for part in parts)


def _of_kernel(model: InvarianceModel, x: Float[Tensor, n * event], data: Data) -> list[str]:
    """A kernel of the user's own whose numbers are far from the scale of the data; the default starts there."""
    backbone = model.backbone
    if not isinstance(backbone, GaussianProcess) or backbone.is_default_kernel:
        return []
    found = []
    Z = backbone.inducing.detach()
    with torch.no_grad():
        typical = Z.var(0).sum().mul(2).sqrt()  # root mean square of the distances
        for part in backbone.kernel.modules():
            if not isinstance(part, Kernel) or not part.has_lengthscale or part.ard_num_dims not in (None, 1):
                continue
            lengthscale = float(part.lengthscale)
            if typical > 0 and not 1 / LARGEST_FACTOR <= lengthscale / float(typical) <= LARGEST_FACTOR:
                found.append(
                    f"the lengthscale of {type(part).__name__} starts at {lengthscale:.3g} and inputs are about "
                    f"{float(typical):.3g} apart, too far off for it to be learned; set kernel.lengthscale near "
                    f"{float(typical):.2g}, or scale x"
                )
        if model.likelihood == "gaussian":
            prior, variance = float(backbone.kernel(Z, diag=True).mean()), float(data.y.double().var(0).mean())
            factor = LARGEST_VARIANCE_FACTOR
            if variance > 0 and not 1 / factor <= prior / variance <= factor:
                found.append(
                    f"the variance of {type(backbone.kernel).__name__} starts at {prior:.3g} and that of y is "
                    f"{variance:.3g}; put it into a ScaleKernel with an outputscale near {variance:.2g}, or scale y: "
                    "(y - y.mean(0)) / y.std(0)"
                )
    return found


def _of_rounding(values: Tensor, name: str) -> list[str]:
    """What single precision has rounded; half precision is named where the data are read."""
    text = rounding(values, name)
    return [] if text is None else [text]
