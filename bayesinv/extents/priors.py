"""Priors of one extent: distributions on an interval, checked, and written down and built again.

Bounds are in internal units (radians, fractions of the half-width, log factors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from bayesinv.errors import ExtentError
from bayesinv.numerics.probit import ProbitInterval
from bayesinv.transforms import Coordinate

# Of a distribution function without a closed inverse, and of a density without a distribution function.
BISECTIONS, NODES = 60, 8192
# Share of its mass from which a piece between nodes is divided, how often, and what may be left in one, as at a pole.
LARGEST_PIECE, ROUNDS, LARGEST_LEFT = 1e-3, 8, 0.05

# A Pyro distribution, checked by `checked_prior`; Pyro's mixin has no types that torch's stubs would accept.
Prior = Any
# Priors of this package that live in a module of their own, by class name; each has ``config`` and ``from_config``.
_REGISTERED: dict[str, Any] = {}


def register_prior(cls: Any) -> Any:
    """Class decorator: saved models know this prior by its name, ``config()`` and ``from_config(config)``."""
    _REGISTERED[cls.__name__] = cls
    return cls


class UniformExtent(dist.Uniform):
    """U(low, high) on a :class:`ProbitInterval`; the default prior is U(0, largest).

    Flat over everything that the symmetry can sensibly do, so that the interval reported is what the
    data say; the sum of evidence and prior needs no preference of ours.

    Example:
        >>> float(UniformExtent(0.0, 2.0).mean)
        1.0
    """

    def __init__(self, low: float | Tensor, high: float | Tensor, validate_args: bool | None = None):
        low, high = _number("UniformExtent", "low", low), _number("UniformExtent", "high", high)
        if not low < high:
            raise ExtentError(
                f"UniformExtent: expected low below high, got {float(low):g} and {float(high):g}; for an extent that "
                "is known give the number itself"
            )
        super().__init__(low, high, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> ProbitInterval:
        return ProbitInterval(self.low, self.high)


class Truncated(dist.TorchDistribution):
    """A distribution cut off at 0 and at ``high``, p(η) ∝ p_base(η) 1[0 ≤ η ≤ high].

    Args:
        base: any continuous scalar distribution that has a density (HalfNormal, Gamma, InverseGamma, Pareto, ...);
            where it has no ``cdf`` the density is summed up on a grid, and where it has no ``icdf`` the former is
            inverted.
        high: the bound, in the internal unit of the symmetry it is for.

    Raises:
        ExtentError: base is no continuous scalar distribution, high no positive number, or there is no mass on
            [0, high].

    Example:
        >>> prior = Truncated(dist.HalfNormal(0.5), high=1.0)
        >>> bool(prior.log_prob(torch.tensor(0.2)) > dist.HalfNormal(0.5).log_prob(torch.tensor(0.2)))
        True
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own convention)
    has_rsample = True

    def __init__(self, base: Prior, high: float, validate_args: bool | None = None):
        _check_scalar("Truncated", base)
        self.base = base = _in_double(base)
        self.high = _number("Truncated", "high", high)
        low = max(0.0, float(getattr(base.support, "lower_bound", 0.0)))
        top = min(float(self.high), float(getattr(base.support, "upper_bound", math.inf)))
        self._mass = self._low_mass = torch.zeros((), dtype=torch.float64)
        if low < top:
            self.low, self.high = torch.tensor(low, dtype=torch.float64), torch.tensor(top, dtype=torch.float64)
            self._table = None if _has(self._own_cdf, self.high) else _summed(base, low, top)
            self._low_mass = self._base_cdf(self.low)
            self._mass = self._base_cdf(self.high) - self._low_mass
        if not bool(self._mass > 0):
            raise ExtentError(f"Truncated: {base} has no mass on [0, {float(self.high):g}]; choose a larger `high`")
        super().__init__(torch.Size(), torch.Size(), validate_args=validate_args)

    def _own_cdf(self, value: Tensor) -> Tensor:
        """The base's distribution function, in the precision of its parameters where it takes no other."""
        value = _inside(self.base, value)
        try:
            mass: Tensor = self.base.cdf(value)
        except RuntimeError:
            mass = self.base.cdf(value.float())
        return mass.to(torch.float64)

    def _base_cdf(self, value: Tensor) -> Tensor:
        """Mass of the base below a value, up to a constant where it has no distribution function."""
        if self._table is None:
            return self._own_cdf(value)
        nodes, masses = self._table
        right = torch.searchsorted(nodes, value.contiguous()).clamp(1, len(nodes) - 1)
        share = ((value - nodes[right - 1]) / (nodes[right] - nodes[right - 1])).clamp(0.0, 1.0)
        return masses[right - 1] + share * (masses[right] - masses[right - 1])

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> ProbitInterval:
        return ProbitInterval(self.low, self.high)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draws by inverting the truncated distribution function."""
        return self.icdf(torch.rand(sample_shape, dtype=torch.float64))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(η); -inf outside [0, high]."""
        inside = (value >= self.low) & (value <= self.high)
        density = self.base.log_prob(_inside(self.base, value.clamp(float(self.low), float(self.high))))
        return torch.where(inside, density.to(torch.float64) - self._mass.log(), -torch.inf)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile function, p in [0, 1]."""
        mass = self._low_mass + value * self._mass
        if self._table is None and _has(self.base.icdf, mass):
            quantile: Tensor = self.base.icdf(mass)
            return quantile.to(torch.float64).clamp(float(self.low), float(self.high))
        low, high = self.low.expand(mass.shape), self.high.expand(mass.shape)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            below = self._base_cdf(middle) < mass
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)


def _in_double(base: Prior) -> Prior:
    """The same distribution with parameters in float64, where it can be written down; else as it is."""
    try:
        return build_prior(prior_config("base", base))
    except (ExtentError, TypeError, ValueError):
        return base


def _has(function: Callable[[Tensor], Tensor], value: Tensor) -> bool:
    """Whether a distribution implements this function of it, which torch's leave out where it has no closed form."""
    try:
        return bool(torch.isfinite(function(value)).all())
    except (NotImplementedError, AttributeError, RuntimeError, ValueError):
        return False


def _summed(base: Prior, low: float, high: float) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Nodes between two ends and the mass below each, by the trapezoid rule; dense at both ends, for peaks there.

    Where pieces hold much of the mass, as at a peak that is about as narrow as they are, they are divided again.
    """
    near = torch.logspace(-30, 0, NODES, dtype=torch.float64)
    share = torch.cat([torch.linspace(0, 1, NODES, dtype=torch.float64), near, 1.0 - near])
    nodes = low + (high - low) * share.unique()
    for _ in range(ROUNDS):
        try:
            logs = base.log_prob(_inside(base, nodes)).detach().double().nan_to_num(nan=-math.inf, posinf=-math.inf)
        except ValueError as error:  # torch refuses what rounding has put out of a support
            raise ExtentError(
                f"Truncated: the density of {base} cannot be computed up to the ends of its support; use another"
            ) from error
        largest = logs.max()
        pieces = torch.cumulative_trapezoid((logs - largest).exp(), nodes).diff(prepend=nodes.new_zeros(1))
        large = torch.nonzero(pieces > LARGEST_PIECE * pieces.sum())[:, 0].tolist()
        if not large:
            break
        left, right = (float(nodes[k]) for k in (max(0, large[0] - 2), min(len(nodes) - 1, large[-1] + 2)))
        nodes = torch.cat([nodes, torch.linspace(left, right, NODES, dtype=torch.float64)]).unique()
    if bool(pieces.max() > LARGEST_LEFT * pieces.sum()):
        raise ExtentError(
            f"Truncated: {base} has a peak that is too narrow for its mass to be summed up; expected one that is "
            "wider, or has a distribution function (cdf), or the number itself for an extent that is known"
        )
    return nodes, torch.cat([nodes.new_zeros(1), pieces.cumsum(0) * largest.exp()])


class Outward(dist.TorchDistribution):
    """A prior that pushes an extent outwards, p(η) ∝ exp(n λ η / high) on [0, high].

    With the plug-in likelihood it asks how far inputs can move before labels break: every example is worth λ nats of
    likelihood over the whole range. It grows with n as the likelihood does, so it is a decision about a trade-off,
    the regulariser of Augerino and AugNet read as a prior, and not a belief.

    Args:
        strength: λ > 0, nats per example over the whole range.
        high: the bound; None is the symmetry's largest sensible extent.
        num_total: n; None is the number of training examples, which ``fit`` fills in (until then n = 1).

    Raises:
        ExtentError: a strength that is not positive.

    Example:
        >>> prior = Outward(0.1, high=2.0, num_total=100)
        >>> round(float(prior.log_prob(torch.tensor(2.0)) - prior.log_prob(torch.tensor(0.0))), 6)
        10.0
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own convention)
    has_rsample = True

    def __init__(
        self,
        strength: float,
        high: float | None = None,
        num_total: int | None = None,
        validate_args: bool | None = None,
    ):
        self.strength = float(_number("Outward", "strength", strength, "for a flat prior leave it out"))
        self.given_high, self.num_total = high, num_total
        self.high = _number("Outward", "high", 1.0 if high is None else high)
        for name, value in (("strength", self.strength), ("high", float(self.high))):
            if value <= 0:
                raise ExtentError(f"Outward: expected a positive {name}, got {value:g}; for a flat prior leave it out")
        super().__init__(torch.Size(), torch.Size(), validate_args=validate_args)

    @property
    def rate(self) -> Tensor:
        """n λ / high."""
        return self.strength * (self.num_total or 1) / self.high

    def scaled(self, high: float, num_total: int | None) -> Outward:
        """The same with what was left open filled in."""
        return Outward(
            self.strength,
            high if self.given_high is None else self.given_high,
            num_total if self.num_total is None else self.num_total,
        )

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> ProbitInterval:
        return ProbitInterval(torch.zeros((), dtype=torch.float64), self.high)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draws by inverting the distribution function."""
        return self.icdf(torch.rand(sample_shape, dtype=torch.float64))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(η); -inf outside [0, high]."""
        total = self.rate * self.high
        # log of r / (exp(r·high) - 1), without overflow
        constant = self.rate.log() - total - torch.log(-torch.expm1(-total))
        inside = (value >= 0) & (value <= self.high)
        return torch.where(inside, constant + self.rate * value, -torch.inf)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile function, values in [0, 1]."""
        floor = torch.exp(-self.rate * self.high)
        return (self.high + torch.log(floor + value * (1.0 - floor)) / self.rate).clamp(0.0, float(self.high))


def _number(owner: str, name: str, value: Any, cure: str = "bounds are in internal units") -> Float[Tensor, ""]:
    """A finite number as float64; ``owner`` and ``name`` are for the error.

    Raises:
        ExtentError: it is none.
    """
    try:
        number = torch.as_tensor(value, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        number = torch.tensor([])
    if number.ndim or isinstance(value, bool) or not bool(torch.isfinite(number)):
        raise ExtentError(f"{owner}: {name}: expected a finite number, got {value!r}; {cure}")
    return number


def _check_scalar(where: str, prior: Prior) -> None:
    """Raise an ExtentError unless this is a continuous distribution of one number, without gradients."""
    if isinstance(prior, type):
        raise ExtentError(f"{where}: got the class {prior.__name__}; give an object of it, {prior.__name__}(...)")
    if not isinstance(prior, torch.distributions.Distribution):
        raise ExtentError(f"{where}: expected a Pyro distribution, got {prior!r}; such as HalfNormal(0.5)")
    if tuple(prior.batch_shape) or tuple(prior.event_shape):
        raise ExtentError(
            f"{where}: expected a scalar distribution, got shape {tuple(prior.batch_shape + prior.event_shape)}; make "
            "it of numbers"
        )
    try:
        support = prior.support
    except NotImplementedError:
        support = None
    if support is None or support.is_discrete:
        raise ExtentError(
            f"{where}: expected a continuous distribution on an interval, got {type(prior).__name__} with support "
            f"{support}; use UniformExtent(0, high), or Truncated(HalfNormal(...), high)"
        )
    try:
        density = prior.log_prob(_inside(prior, torch.tensor(0.5, dtype=torch.float64)))
    except Exception as error:  # whatever a distribution of somebody else raises
        raise ExtentError(
            f"{where}: {type(prior).__name__} has no density to compute ({type(error).__name__}: {error}); use another "
            "distribution"
        ) from error
    if density.requires_grad:
        raise ExtentError(
            f"{where}: the parameters of {type(prior).__name__} require gradients, and priors are fixed; give numbers, "
            "or value.detach()"
        )
    if bool(torch.isnan(density)):
        raise ExtentError(f"{where}: the density of {prior} is NaN; look at its parameters")


def _inside(base: Prior, value: Tensor) -> Tensor:
    """The value moved into the base's support, which may be open at zero (log-normal) or lie elsewhere."""
    low = float(getattr(base.support, "lower_bound", 0.0))
    open_at_low = not bool(base.support.check(torch.as_tensor(low)))
    return value.clamp(low + 1e-12 if open_at_low else low, float(getattr(base.support, "upper_bound", math.inf)))


def checked_prior(prior: Prior, coordinate: Coordinate) -> Prior:
    """The prior, if its support is an interval inside [0, largest] of the coordinate.

    A ``Uniform`` becomes a :class:`UniformExtent`, the same distribution with a better-behaved
    unconstrained space.

    Raises:
        ExtentError: naming the symmetry, the support that came, and what to use instead.
    """
    where = f"priors[{coordinate.name!r}]"
    _check_scalar(where, prior)
    support = prior.support
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    largest = coordinate.largest
    if low is None and high is None:
        raise ExtentError(
            f"{where}: expected a continuous distribution on an interval inside [0, {largest:g}], "
            f"got support {support}; "
            f"use UniformExtent(0, {largest:g}), or Truncated(HalfNormal(...), high={largest:g})"
        )
    if low is None or float(low) < 0:
        raise ExtentError(f"{where}: an extent is a half-width and cannot be negative, but the support is {support}")
    if high is None:
        raise ExtentError(
            f"{where}: the support {support} has no upper bound, but {coordinate.name} reaches at most "
            f"{largest:g} ({coordinate.words(largest)}); "
            f"wrap it: Truncated({type(prior).__name__}(...), high={largest:g})"
        )
    if float(high) > largest * (1 + 1e-6):
        raise ExtentError(
            f"{where}: the support reaches {float(high):g}, beyond the largest extent {largest:g} "
            f"({coordinate.words(largest)}). Priors are in internal units: radians, half-widths, log factors"
        )
    if type(prior) in (dist.Uniform, torch.distributions.Uniform):
        return UniformExtent(prior.support.lower_bound, prior.support.upper_bound)  # as given: low is in float32
    return prior


def prior_config(name: str, prior: Prior) -> dict[str, Any]:
    """A JSON-able description of a prior, from which :func:`build_prior` makes it again; ``name`` is for errors."""
    if type(prior) is _REGISTERED.get(type(prior).__name__):
        return prior.config()
    if isinstance(prior, Truncated):
        return {
            "type": "Truncated",
            "base": prior_config(name, prior.base),
            "high": float(prior.high),
        }
    if isinstance(prior, Outward):
        return {
            "type": "Outward",
            "strength": prior.strength,
            "high": float(prior.high),
            "num_total": prior.num_total,
        }
    kind = type(prior).__name__
    own = (getattr(dist, kind, None), getattr(torch.distributions, kind, None))
    known = isinstance(prior, UniformExtent) or type(prior) in own
    text = f"priors[{name!r}]: {kind} cannot be written down; when loading, pass the model: load(path, model=model)"
    if not known or not prior.arg_constraints:
        raise ExtentError(text)
    config = {"type": kind, "parameters": {key: float(getattr(prior, key)) for key in prior.arg_constraints}}
    try:
        _check_scalar(name, build_prior(config))
    except (ExtentError, TypeError, ValueError) as error:  # such as one that takes probs or logits, and has both
        raise ExtentError(text) from error
    return config


def build_prior(config: Mapping[str, Any]) -> Prior:
    """The inverse of :func:`prior_config`."""
    kind = config["type"]
    if kind in _REGISTERED:
        return _REGISTERED[kind].from_config(config)
    if kind == "Truncated":
        return Truncated(build_prior(config["base"]), high=config["high"])
    if kind == "Outward":
        return Outward(config["strength"], config["high"], config["num_total"])
    cls: Any = UniformExtent if kind == "UniformExtent" else getattr(dist, kind, None)
    known = isinstance(cls, type) and issubclass(cls, torch.distributions.Distribution)
    if not known:
        raise ExtentError(f"unknown prior {kind!r}: expected a distribution that pyro.distributions exports")
    parameters = {key: torch.tensor(value, dtype=torch.float64) for key, value in config["parameters"].items()}
    return cls(**parameters)
