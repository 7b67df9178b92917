"""From a posterior to its augmentation: which draws, and whose extents where there are several."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from bayesinv.export.augmentation import Augmentation
from bayesinv.orbits.groups import Grouped
from bayesinv.orbits.structure import Blocks, PerOutput, by_output

if TYPE_CHECKING:
    from bayesinv.fitted.fitted_model import FittedModel

__all__ = ["augmentation_of"]

KINDS = ("posterior", "median", "mean")
MOVED_ALONG = ("image", "volume")  # outputs that a call moves beside their input, as `tv_tensors.Mask`
MOST_DRAWS = 1000  # a file of 50 kB for six extents


def augmentation_of(
    posterior: FittedModel,
    copies: int = 1,
    draws: str = "posterior",
    seed: int | None = None,
    of: str | None = None,
    scales: tuple[ArrayLike, ArrayLike] | None = None,
) -> Augmentation:
    """What `InvariancePosterior.augmentation` returns.

    Args:
        posterior: of any fit.
        copies: how many copies of an input; see `Augmentation`.
        draws: extents drawn from the posterior anew for every copy, or fixed at their medians or means.
        seed: of a generator of its own; None for torch's global one.
        of: the output or the group whose extents to use. None: of groups the population's; of outputs, in each draw,
            the smallest of all outputs, which is safe for an input of any class.
        scales: of a table, see `Augmentation`.

    Warns:
        UserWarning: the model's outputs move with its inputs, and no call of the augmentation moves such targets.

    Raises:
        ValueError: unknown draws, an unknown output or group, or scales that do not fit.
    """
    if draws not in KINDS:
        raise ValueError(f"draws: expected one of {', '.join(map(repr, KINDS))}, got {draws!r}")
    if draws == "median":
        extents = posterior.quantile(0.5)[None]
    else:
        extents = posterior.sample(min(MOST_DRAWS, len(posterior.result.draws)))
    extents = _of(posterior.model.transform, extents, of)  # (J, K)
    if draws == "mean":
        extents = extents.mean(0, keepdim=True)
    orbit = posterior.model.orbit
    transform = copy.deepcopy(orbit.transform).cpu()  # that of the model may lie on another device
    action = None if posterior.model.output_action is None else posterior.model.output_action.name
    if action not in (None, *MOVED_ALONG):
        warnings.warn(
            f"the outputs of this model move with its inputs (output_action={action!r}), and this augmentation moves "
            "inputs alone: move the targets of each copy as well, by augmentation.draw and augmentation.move",
            UserWarning,
            stacklevel=3,
        )
    shape = posterior.data.event_shape
    return Augmentation(transform, extents, shape, orbit.augmentation, copies, draws, seed, scales, action)


def _of(transform: object, extents: Float[Tensor, "J all"], of: str | None) -> Float[Tensor, "J K"]:
    """The extents of one output or group, or of any."""
    if not isinstance(transform, Blocks):
        if of is not None:
            raise ValueError(f"of: this posterior has one set of extents for all, and {of!r} came; leave it out")
        return extents
    if of is not None and str(of) not in transform.blocks:
        raise ValueError(f"of: expected one of the {transform.kind}s {', '.join(transform.blocks)}, got {of!r}")
    if isinstance(transform, PerOutput):
        each = by_output(transform, extents)  # (J, C, K)
        return each.amin(1) if of is None else each[:, transform.blocks.index(str(of))]
    if isinstance(transform, Grouped) and of is not None:
        return transform.by_group(extents)[:, transform.blocks.index(str(of))]
    return extents[:, : transform.inner.num_coordinates]
