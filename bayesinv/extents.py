"""p(η): how far each symmetry may reach, as Pyro latent variables with bounded supports.

An extent η_k is a half-width in the coordinate's internal unit (radians, fraction of the half-width,
log factor); the coordinate is t_k ~ U[-η_k, η_k]. Each symmetry is one Pyro site, ``extent_<name>``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import biject_to, constraints, transform_to, transforms

from bayesinv.errors import ExtentError
from bayesinv.randomness import seeded
from bayesinv.transforms import Coordinate

SITE_PREFIX = "extent_"

# A Pyro distribution, checked by `checked_prior`; Pyro's mixin has no types that torch's stubs would accept.
Prior = Any
PriorSpec = Any  # a distribution, a number (fixed), or None (off)

# Priors of this package that live in a module of their own, by class name; each has ``config`` and ``from_config``.
_REGISTERED: dict[str, Any] = {}


def register_prior(cls: Any) -> Any:
    """Class decorator: saved models know this prior by its name, ``config()`` and ``from_config(config)``."""
    _REGISTERED[cls.__name__] = cls
    return cls


class ProbitInterval(constraints.interval):
    """An interval that guides and samplers reach through the normal distribution function.

    η = low + (high - low) Φ(z). A uniform prior is then exactly N(0, 1) in z, and a posterior that
    piles up at a bound has a Gaussian tail there; under the usual logistic map its tail is
    exponential, which a normal guide cannot follow (Pareto k̂ rises).
    """


class _NormalCDF(transforms.Transform):
    """z -> Φ(z), through erfc so that small extents keep their relative precision."""

    domain = constraints.real
    codomain = constraints.unit_interval
    bijective = True
    sign = +1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NormalCDF)

    __hash__ = transforms.Transform.__hash__

    def _call(self, x: Tensor) -> Tensor:
        return 0.5 * torch.erfc(-x / math.sqrt(2.0))

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.special.ndtri(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -0.5 * (x * x + math.log(2.0 * math.pi))


@transform_to.register(ProbitInterval)  # what Pyro's flow guides ask for
@biject_to.register(ProbitInterval)
def _probit_bijection(constraint: ProbitInterval) -> transforms.Transform:
    low = torch.as_tensor(constraint.lower_bound, dtype=torch.float64)
    width = torch.as_tensor(constraint.upper_bound, dtype=torch.float64) - low
    return transforms.ComposeTransform([_NormalCDF(), transforms.AffineTransform(low, width)])


class UniformExtent(dist.Uniform):
    """U(low, high) on a :class:`ProbitInterval`; the default prior is U(0, largest).

    Flat over everything that the symmetry can sensibly do, so that the interval reported is what the
    data say; the sum of evidence and prior needs no preference of ours.

    Example:
        >>> float(UniformExtent(0.0, 2.0).mean)
        1.0
    """

    def __init__(self, low: float | Tensor, high: float | Tensor, validate_args: bool | None = None):
        low = torch.as_tensor(low, dtype=torch.float64)
        high = torch.as_tensor(high, dtype=torch.float64)
        super().__init__(low, high, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> ProbitInterval:
        return ProbitInterval(self.low, self.high)


class Truncated(dist.TorchDistribution):
    """A distribution on the half-line cut off at ``high``, p(η) ∝ p_base(η) 1[0 ≤ η ≤ high].

    Args:
        base: any scalar distribution with ``cdf`` and ``icdf`` (HalfNormal, Exponential, LogNormal, ...).
        high: the bound, in the internal unit of the symmetry it is for.

    Raises:
        ExtentError: base is not a scalar, or has no mass on [0, high].

    Example:
        >>> prior = Truncated(dist.HalfNormal(0.5), high=1.0)
        >>> bool(prior.log_prob(torch.tensor(0.2)) > dist.HalfNormal(0.5).log_prob(torch.tensor(0.2)))
        True
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own convention)
    has_rsample = True

    def __init__(self, base: Prior, high: float, validate_args: bool | None = None):
        if base.batch_shape or base.event_shape:
            raise ExtentError(f"Truncated: expected a scalar distribution, got batch shape {tuple(base.batch_shape)}")
        low = getattr(base.support, "lower_bound", None)
        if low is not None and float(low) > 0:
            raise ExtentError(
                f"Truncated: expected a distribution that starts at 0 or below, but {base} starts at {low}"
            )
        self.base = base
        self.high = torch.as_tensor(high, dtype=torch.float64)
        try:
            base.cdf(_inside(base, self.high))
        except NotImplementedError:
            raise ExtentError(
                f"Truncated: {type(base).__name__} has no cdf, which truncation needs; use HalfNormal, Exponential, "
                "LogNormal, or a UniformExtent"
            ) from None
        self._low_mass = base.cdf(_inside(base, torch.zeros((), dtype=torch.float64)))
        self._mass = base.cdf(_inside(base, self.high)) - self._low_mass
        if not bool(self._mass > 0):
            raise ExtentError(f"Truncated: {base} has no mass on [0, {float(self.high):g}]; choose a larger `high`")
        super().__init__(torch.Size(), torch.Size(), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> ProbitInterval:
        return ProbitInterval(torch.zeros((), dtype=torch.float64), self.high)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draws by inverting the truncated distribution function."""
        return self.icdf(torch.rand(sample_shape, dtype=torch.float64))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(η); -inf outside [0, high]."""
        inside = (value >= 0) & (value <= self.high)
        density = self.base.log_prob(_inside(self.base, value.clamp(0.0, float(self.high)))) - self._mass.log()
        return torch.where(inside, density, -torch.inf)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile function, values in [0, 1]."""
        return self.base.icdf(self._low_mass + value * self._mass).clamp(0.0, float(self.high))


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
        if not (math.isfinite(strength) and strength > 0):
            raise ExtentError(f"Outward: expected a positive strength, got {strength!r}; for a flat prior leave it out")
        self.strength = float(strength)
        self.given_high, self.num_total = high, num_total
        self.high = torch.as_tensor(1.0 if high is None else high, dtype=torch.float64)
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


def _inside(base: Prior, value: Tensor) -> Tensor:
    """The value moved into the base's support, which may be open at zero (log-normal) or lie elsewhere."""
    low = float(getattr(base.support, "lower_bound", 0.0))
    open_at_low = not bool(base.support.check(torch.as_tensor(low)))
    return value.clamp(low + 1e-12 if open_at_low else low, float(getattr(base.support, "upper_bound", math.inf)))


def sample_extents(extents: Extents) -> Float[Tensor, " K"]:
    """Sample every extent inside a Pyro model: one site ``extent_<name>`` per latent symmetry.

    Args:
        extents: the priors and fixed numbers.

    Returns:
        η, shape (K,), internal units, float64, in the order of the transform's coordinates.
    """
    return extents.assemble(extents.sample())


class Extents(nn.Module):
    """The prior over extents: a distribution, a fixed number, or off, for every coordinate.

    Extents are K numbers and stay on the CPU in float64 whatever device the data are on: the guide and
    the priors are then plain Pyro objects without device handling, at the cost of K numbers a step.

    Args:
        coordinates: the transform's coordinates.
        priors: by name; a Pyro distribution (latent), a number (fixed, internal unit), or None (off,
            the same as 0). Names left out get U(0, largest).

    Raises:
        ExtentError: an unknown name, a number outside [0, largest], or a distribution whose support is
            not inside [0, largest].

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> extents = Extents(Affine2d(["rotation", "shear"]).coordinates, {"shear": None})
        >>> extents.active, extents.fixed
        (('rotation',), {'shear': 0.0})
    """

    def __init__(self, coordinates: Sequence[Coordinate], priors: Mapping[str, PriorSpec] | None = None):
        super().__init__()
        self.coordinates = tuple(coordinates)
        self.symmetries = tuple(c.name for c in coordinates)
        given = dict(priors or {})
        unknown = sorted(set(given) - set(self.symmetries))
        if unknown:
            raise ExtentError(f"priors: unknown symmetries {unknown}; this model's are {list(self.symmetries)}")
        self.priors: dict[str, Prior] = {}
        self.fixed: dict[str, float] = {}
        for coordinate in coordinates:
            value = given.get(coordinate.name, UniformExtent(0.0, coordinate.largest))
            if isinstance(value, Outward):
                value = value.scaled(coordinate.largest, None)
            if isinstance(value, torch.distributions.Distribution):
                self.priors[coordinate.name] = checked_prior(value, coordinate)
            else:
                self.fixed[coordinate.name] = _checked_number(value, coordinate)

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the latent symmetries, in the order of the coordinates."""
        return tuple(name for name in self.symmetries if name in self.priors)

    @property
    def sites(self) -> dict[str, int | list[int]]:
        """Where the value of each Pyro site goes in η: a column, or the columns of a vector."""
        return {SITE_PREFIX + name: k for k, name in enumerate(self.symmetries) if name in self.priors}

    def sample(self) -> dict[str, Tensor]:
        """Sample every latent extent inside a Pyro model; the values by site."""
        return {SITE_PREFIX + name: pyro.sample(SITE_PREFIX + name, prior) for name, prior in self.priors.items()}

    def assemble(self, values: Mapping[str, Tensor]) -> Float[Tensor, " K"]:
        """η from the values of the sites and the fixed numbers, internal units, float64."""
        columns = [torch.tensor(self.fixed.get(name, 0.0), dtype=torch.float64) for name in self.symmetries]
        for site, where in self.sites.items():
            value = values[site].to(torch.float64)
            for i, k in enumerate([where] if isinstance(where, int) else where):
                columns[k] = value if isinstance(where, int) else value[i]
        return torch.stack(columns)

    def log_marginal_prior(self, name: str, values: Float[Tensor, " J"]) -> Float[Tensor, " J"]:
        """log p(η_k) of one latent symmetry at several values, the others integrated out."""
        return self.priors[name].log_prob(values)

    def resolve(self, num_total: int) -> None:
        """Tell the priors that depend on it how many training examples there are."""
        for name, prior in self.priors.items():
            if isinstance(prior, Outward):
                self.priors[name] = prior.scaled(float(prior.high), num_total)

    def log_prior(self, eta: Float[Tensor, " K"]) -> Float[Tensor, ""]:
        """log p(η) over the latent symmetries; -inf outside the support."""
        total = torch.zeros((), dtype=torch.float64)
        for k, name in enumerate(self.symmetries):
            if name in self.priors:
                prior = self.priors[name]
                inside = prior.support.check(eta[k])
                safe = torch.where(inside, eta[k], _middle(prior))
                total = total + torch.where(inside, prior.log_prob(safe), -torch.inf)
        return total

    def sample_prior(self, num_samples: int, seed: int = 0) -> Float[Tensor, "num_samples K"]:
        """Draws from p(η), internal units; fixed symmetries are constant columns."""
        with seeded(seed):
            columns = [
                self.priors[name].sample(torch.Size([num_samples])).to(torch.float64)
                if name in self.priors
                else torch.full((num_samples,), self.fixed[name], dtype=torch.float64)
                for name in self.symmetries
            ]
        return torch.stack(columns, dim=1)

    def prior_quantile(self, p: float) -> Float[Tensor, " K"]:
        """The p-quantile of every prior, from ``icdf`` where there is one, else from 4,096 draws."""
        level = torch.tensor(p, dtype=torch.float64)
        values = []
        for k, name in enumerate(self.symmetries):
            if name in self.fixed:
                values.append(torch.tensor(self.fixed[name], dtype=torch.float64))
                continue
            try:
                values.append(self.priors[name].icdf(level).to(torch.float64))
            except NotImplementedError:
                values.append(self.sample_prior(4096)[:, k].quantile(level))
        return torch.stack(values)

    def config(self) -> dict[str, Any]:
        """A JSON-able description, from which :func:`priors_from_config` rebuilds ``priors``."""
        described: dict[str, Any] = dict(self.fixed)
        described.update({name: prior_config(name, prior) for name, prior in self.priors.items()})
        return described


def _middle(prior: Prior) -> Tensor:
    return 0.5 * (torch.as_tensor(prior.support.lower_bound) + torch.as_tensor(prior.support.upper_bound))


def _checked_number(value: Any, coordinate: Coordinate) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        came = type(value).__name__
        if isinstance(value, tuple | list) and len(value) == 2:
            came += f": bayesinv.UniformExtent{tuple(value)!r}"
        elif isinstance(value, type):
            came = f"the class {value.__name__}: write {value.__name__}(...)"
        raise ExtentError(f"priors[{coordinate.name!r}]: expected a Pyro distribution, a number or None, got {came}")
    if not (math.isfinite(value) and 0.0 <= value <= coordinate.largest * (1 + 1e-9)):
        hint = ". Angles are in radians: math.radians(45)" if coordinate.unit == "°" else ""
        raise ExtentError(
            f"priors[{coordinate.name!r}]: expected a fixed extent from 0 to {coordinate.largest:g} (internal units; "
            f"{coordinate.words(coordinate.largest)}), got {value!r}{hint}"
        )
    return float(value)


def checked_prior(prior: Prior, coordinate: Coordinate) -> Prior:
    """The prior, if its support is an interval inside [0, largest] of the coordinate.

    A ``Uniform`` becomes a :class:`UniformExtent`, the same distribution with a better-behaved
    unconstrained space.

    Raises:
        ExtentError: naming the symmetry, the support that came, and what to use instead.
    """
    where = f"priors[{coordinate.name!r}]"
    if tuple(prior.batch_shape) or tuple(prior.event_shape):
        raise ExtentError(f"{where}: expected a scalar distribution, got shape {tuple(prior.shape())}")
    try:
        support = prior.support
    except NotImplementedError:
        support = None
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    largest = coordinate.largest
    if support is None or support.is_discrete or (low is None and high is None):
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
        return UniformExtent(prior.low, prior.high)
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
    known = isinstance(prior, UniformExtent) or getattr(dist, type(prior).__name__, None) is type(prior)
    if not known or not prior.arg_constraints:
        raise ExtentError(
            f"priors[{name!r}]: {type(prior).__name__} cannot be written down; when loading, pass the model: "
            "load(path, model=model)"
        )
    parameters = {key: float(getattr(prior, key)) for key in prior.arg_constraints}
    return {"type": type(prior).__name__, "parameters": parameters}


def priors_from_config(config: Mapping[str, Any]) -> dict[str, PriorSpec]:
    """The inverse of :meth:`Extents.config`. Only distributions that Pyro itself exports are built."""
    return {name: value if isinstance(value, (int, float)) else build_prior(value) for name, value in config.items()}


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
