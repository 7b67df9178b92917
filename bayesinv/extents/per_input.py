"""Priors of extents that depend on the input."""

from __future__ import annotations

from collections.abc import Sequence

from pyro.distributions import HalfNormal

from bayesinv.extents.priors import Truncated
from bayesinv.numerics.arguments import as_number
from bayesinv.transforms import PerInput, Transform, as_transform

__all__ = ["in_common", "shrinkage"]


def shrinkage(transform: Transform | Sequence[Transform | str], share: float = 0.25) -> dict[str, Truncated]:
    """Priors that pull the extents of all inputs towards one: δ_m ~ HalfNormal(share · largest), cut at the largest.

    Args:
        transform: one, or a list as a model takes it, with one or several `PerInput` in it.
        share: of the largest extent, by how much inputs may differ.

    Returns:
        By name, for ``InvarianceModel(priors=...)``; the floors keep their own.

    Raises:
        ValueError: a share that is not positive, or a transform without `PerInput`.

    Example:
        >>> import torch
        >>> turns = PerInput.near("rotation", torch.rand(9, 1, 4, 4), num_landmarks=2)
        >>> sorted(shrinkage(turns))
        ['rotation_near_1', 'rotation_near_2']
    """
    transform, share = as_transform(transform), as_number("share", share)
    if share <= 0:
        raise ValueError(f"share: expected a positive share of the largest extent, got {share:g}")
    largest = {c.name: c.largest for c in transform.coordinates}
    return {name: Truncated(HalfNormal(share * largest[name]), high=largest[name]) for name in _beyond(transform)}


def in_common(transform: Transform | Sequence[Transform | str]) -> dict[str, float]:
    """The same extents for all inputs, δ = 0: what the Bayes factor compares with.

    Args:
        transform: one, or a list as a model takes it, with one or several `PerInput` in it.

    Raises:
        ValueError: a transform without `PerInput`.
    """
    return dict.fromkeys(_beyond(as_transform(transform)), 0.0)


def _beyond(transform: Transform) -> list[str]:
    """The names of all δ."""
    members = [stage for stage in transform.stages if isinstance(stage, PerInput)]
    if not members:
        raise ValueError(f"expected a transform with PerInput in it, got {type(transform).__name__}")
    return [name for stage in members for name in stage.names if name not in stage.inner.names]
