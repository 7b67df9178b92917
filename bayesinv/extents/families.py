"""p(η): how far each symmetry may reach, as Pyro latent variables with bounded supports.

An extent η_k is a half-width in the coordinate's internal unit (radians, fraction of the half-width,
log factor); the coordinate is t_k ~ U[-η_k, η_k]. Each symmetry is one Pyro site, ``extent_<name>``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import pyro
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.errors import ExtentError
from bayesinv.extents.priors import (
    Outward,
    Prior,
    UniformExtent,
    build_prior,
    checked_prior,
    prior_config,
)
from bayesinv.numerics.randomness import seeded
from bayesinv.transforms import Coordinate

SITE_PREFIX = "extent_"

PriorSpec = Any  # a distribution, a number (fixed), or None (off)


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
        given = dict(as_priors(priors))
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

    def log_prior(self, eta: Float[Tensor, K * draws]) -> Float[Tensor, "*draws"]:
        """log p(η) over the latent symmetries, of one η or of many in columns; -inf outside the support."""
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


def as_priors(priors: Any) -> Mapping[str, PriorSpec]:
    """Priors by name; none at all is an empty mapping.

    Raises:
        ExtentError: no mapping.
    """
    if priors is not None and not isinstance(priors, Mapping):
        raise ExtentError(
            "priors: expected a mapping from the name of a symmetry to a distribution, a number or None, got "
            f"{priors!r}; such as priors={{'rotation': UniformExtent(0, 1)}}"
        )
    return priors or {}


def _checked_number(value: Any, coordinate: Coordinate) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, Real):
        came = type(value).__name__
        if isinstance(value, tuple | list) and len(value) == 2:
            came += f": bayesinv.UniformExtent{tuple(value)!r}"
        elif isinstance(value, type):
            came = f"the class {value.__name__}: write {value.__name__}(...)"
        raise ExtentError(f"priors[{coordinate.name!r}]: expected a Pyro distribution, a number or None, got {came}")
    if not (math.isfinite(value) and 0.0 <= float(value) <= coordinate.largest * (1 + 1e-9)):
        hint = ". Angles are in radians: math.radians(45)" if coordinate.unit == "°" else ""
        raise ExtentError(
            f"priors[{coordinate.name!r}]: expected a fixed extent from 0 to {coordinate.largest:g} (internal units; "
            f"{coordinate.words(coordinate.largest)}), got {value!r}{hint}"
        )
    return float(value)


def priors_from_config(config: Mapping[str, Any]) -> dict[str, PriorSpec]:
    """The inverse of :meth:`Extents.config`. Only distributions that Pyro itself exports are built."""
    return {name: value if isinstance(value, (int, float)) else build_prior(value) for name, value in config.items()}
