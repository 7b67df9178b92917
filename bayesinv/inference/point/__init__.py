"""What the field trains in place of this posterior, as baselines on the same networks: points, but for OPTIMA's q."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from bayesinv.inference.point.augerino import Augerino
from bayesinv.inference.point.augnet import AugNet, AugNetOrbit
from bayesinv.inference.point.base import MethodObjective, PointMethod, PointObjective, plug_in_copy
from bayesinv.inference.point.fixed import Fixed, NoInvariance
from bayesinv.inference.point.lila import Lila
from bayesinv.inference.point.optima import Optima
from bayesinv.inference.point.policy import POLICIES, Policy

__all__ = [
    "POINT_METHODS",
    "AugNet",
    "AugNetOrbit",
    "Augerino",
    "Fixed",
    "Lila",
    "MethodObjective",
    "NoInvariance",
    "Optima",
    "PointMethod",
    "PointObjective",
    "Policy",
    "as_point_method",
    "plug_in_copy",
]

POINT_METHODS: Mapping[str, Callable[[], PointMethod]] = MappingProxyType(
    {
        "augerino": Augerino,
        "augnet": AugNet,
        "fixed": Fixed,
        "lila": Lila,
        "none": NoInvariance,
        "optima": Optima,
        "policy": Policy,
        **{name: partial(Policy, name) for name in POLICIES},
    }
)
"""Names that ``fit(inference=...)`` takes, each with its default options."""


def as_point_method(method: str | PointMethod) -> PointMethod:
    """A point method by name, at its default options, or as it is.

    Raises:
        ValueError: an unknown name. TypeError: neither.

    Example:
        >>> as_point_method("none")
        NoInvariance(num_copies=1)
        >>> as_point_method("autoaugment")
        Policy(name='autoaugment', num_copies=1)
    """
    if isinstance(method, PointMethod):
        return method
    if not isinstance(method, str):
        raise TypeError(
            f"expected a point method or one of {list(POINT_METHODS)}, got "
            f"{'the class ' + method.__name__ if isinstance(method, type) else type(method).__name__}"
        )
    if method not in POINT_METHODS:
        raise ValueError(f"unknown point method {method!r}; known are {list(POINT_METHODS)}")
    return POINT_METHODS[method]()
