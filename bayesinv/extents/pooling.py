"""Extents of groups in the data, partially pooled: every subject, sensor or site turns as far as it turns.

    η_gk = L_k Φ(m_k + τ_k z_gk),   z_gk ~ N(0, 1),   m_k = Φ⁻¹(η_k / L_k),     g = 1..G,

with L_k the largest extent of symmetry k, η_k that of a typical group (the population's median) and τ_k the spread of
the groups (in the density √(τ_k² + 0.02²), which is finite at τ_k = 0). A group with few examples stays near the
population, one with many goes its own way. Examples of a group share its orbit, f(x_i) = E_{t ~ p(t | η_{g(i)})}
h(T_t x_i), and all groups share h.

η is the vector of K population extents, K spreads and G·K extents of groups, so that guides, samplers, tables, plots
and files treat them as they treat any others. The groups of a symmetry are one Pyro site in a plate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.errors import ExtentError
from bayesinv.extents.families import SITE_PREFIX, Extents, as_priors
from bayesinv.extents.priors import ProbitInterval, Truncated, UniformExtent
from bayesinv.numerics.randomness import seeded
from bayesinv.orbits.groups import LARGEST_SPREAD, Grouped, spread_name
from bayesinv.transforms import Coordinate

__all__ = ["PooledExtent", "PooledExtents"]

TYPICAL_SPREAD = 0.5
_SMALLEST_SPREAD = 0.02  # density of the groups stays finite where they are all but equal
_EDGE = 1e-12


class PooledExtent(dist.TorchDistribution):
    """p(η_g | η, τ): the extent of a group, given the population's.

        log p(η_g) = log N(z; m, s²) - log(L φ(z)),   z = Φ⁻¹(η_g / L),   m = Φ⁻¹(η / L),   s² = τ² + 0.02².

    Args:
        population: η, the median of the groups, internal units; any shape, which is the batch shape.
        spread: τ, in standard deviations after Φ⁻¹(η_g / L).
        high: L, the largest extent.

    Example:
        >>> prior = PooledExtent(torch.tensor(0.5), torch.tensor(0.3), 1.0)
        >>> float(prior.icdf(torch.tensor(0.5)))
        0.5
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's own convention)
    has_rsample = True

    def __init__(self, population: Tensor, spread: Tensor, high: float, validate_args: bool | None = None):
        self.high = torch.as_tensor(high, dtype=torch.float64)
        self._location = _probit(torch.as_tensor(population, dtype=torch.float64) / self.high)
        self._scale = (torch.as_tensor(spread, dtype=torch.float64).square() + _SMALLEST_SPREAD**2).sqrt()
        shape = torch.broadcast_shapes(self._location.shape, self._scale.shape)
        super().__init__(shape, torch.Size(), validate_args=validate_args)

    @property
    def support(self) -> ProbitInterval:
        return ProbitInterval(torch.zeros((), dtype=torch.float64), self.high)

    def expand(self, batch_shape: Any, _instance: Any = None) -> PooledExtent:
        """The same for each of a batch, which a plate asks for."""
        new = self._get_checked_instance(PooledExtent, _instance)
        new.high, new._location, new._scale = (
            self.high,
            self._location.expand(batch_shape),
            self._scale.expand(batch_shape),
        )
        super(PooledExtent, new).__init__(torch.Size(batch_shape), torch.Size(), validate_args=False)
        return new

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draws, high · Φ(m + τ z)."""
        z = torch.randn((*sample_shape, *self.batch_shape), dtype=torch.float64)
        return self.high * torch.special.ndtr(self._location + self._scale * z)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(η_g); -inf outside [0, high]."""
        z = _probit(value.to(torch.float64) / self.high)
        # Change of variables: dz/dη = 1 / (high φ(z)).
        log_ratio = 0.5 * (z.square() - ((z - self._location) / self._scale).square()) - self._scale.log()
        inside = (value >= 0) & (value <= self.high)
        return torch.where(inside, log_ratio - self.high.log(), -torch.inf)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile function, values in [0, 1]."""
        return self.high * torch.special.ndtr(self._location + self._scale * torch.special.ndtri(value))


def _probit(share: Tensor) -> Tensor:
    return torch.special.ndtri(share.clamp(_EDGE, 1.0 - _EDGE))


class PooledExtents(Extents):
    """The prior over population, spreads and groups.

    Args:
        structure: the coordinates.
        priors: by symmetry: the population's prior, or a number or None for an extent that all groups share; by
            "<symmetry> spread": the prior of τ on [0, 2], by default a half-normal of 0.5 cut off there, or a number.

    Raises:
        ExtentError: an unknown name, a prior of its own for one group, a spread of an extent that is fixed, or what
            :class:`Extents` refuses.
    """

    def __init__(self, structure: Grouped, priors: Mapping[str, Any] | None = None):
        inner = structure.inner.coordinates
        given = dict(as_priors(priors))
        known = {c.name for c in inner} | {spread_name(c.name) for c in inner}
        unknown = sorted(set(given) - known)
        if unknown:
            raise ExtentError(
                f"priors: unknown symmetries {unknown}; this model takes priors for {sorted(known)}, and a group's is "
                "given by the population's and the spread"
            )
        complete: dict[str, Any] = {}
        pooled = []
        for c in inner:
            population = given.get(c.name, UniformExtent(0.0, c.largest))
            latent = isinstance(population, torch.distributions.Distribution)
            if not latent and given.get(spread_name(c.name)) not in (None, 0.0):
                raise ExtentError(
                    f"priors[{spread_name(c.name)!r}]: {c.name} is fixed at {population!r} for all groups, which "
                    f"leaves no spread; leave it out, or give {c.name} a distribution"
                )
            default = Truncated(dist.HalfNormal(TYPICAL_SPREAD), high=LARGEST_SPREAD) if latent else 0.0
            complete[c.name] = population
            complete[spread_name(c.name)] = given.get(spread_name(c.name), default)
            # The support is what a group's own entry is for; its density is in log_prior.
            complete |= {
                f"{c.name}[{g}]": UniformExtent(0.0, c.largest) if latent else population for g in structure.groups
            }
            if latent:
                pooled.append(c)
        super().__init__(structure.coordinates, complete)
        self.groups = structure.groups
        self._pooled = tuple(pooled)
        self._given = given

    @property
    def sites(self) -> dict[str, int | list[int]]:
        """One site for a population extent and a spread, one vector for the groups of a symmetry."""
        own = {c.name for c in self._pooled} | {spread_name(c.name) for c in self._pooled}
        found: dict[str, int | list[int]] = {
            SITE_PREFIX + name: k for k, name in enumerate(self.symmetries) if name in own and name in self.priors
        }
        for c in self._pooled:
            found[_site_of_groups(c)] = self._columns(c)
        return found

    def sample(self) -> dict[str, Tensor]:
        """Sample inside a Pyro model: population and spread, then the groups in a plate."""
        values: dict[str, Tensor] = {}
        for site, where in self.sites.items():
            if isinstance(where, int):
                values[site] = pyro.sample(site, self.priors[self.symmetries[where]])
        with pyro.plate("groups", len(self.groups)):
            for c in self._pooled:
                prior = PooledExtent(values[SITE_PREFIX + c.name], self._spread_of(c, values), c.largest)
                values[_site_of_groups(c)] = pyro.sample(_site_of_groups(c), prior)
        return values

    def log_prior(self, eta: Float[Tensor, columns * draws]) -> Float[Tensor, "*draws"]:
        """log p(η), populations, spreads and groups; -inf outside the support."""
        values = {SITE_PREFIX + name: eta[k] for k, name in enumerate(self.symmetries)}
        total = torch.zeros((), dtype=torch.float64)
        for where in self.sites.values():
            if isinstance(where, int):
                prior = self.priors[self.symmetries[where]]
                inside = prior.support.check(eta[where])
                middle = 0.5 * (float(prior.support.lower_bound) + float(prior.support.upper_bound))
                safe = torch.where(inside, eta[where], middle)
                total = total + torch.where(inside, prior.log_prob(safe), -torch.inf)
        for c in self._pooled:
            prior = PooledExtent(values[SITE_PREFIX + c.name], self._spread_of(c, values), c.largest)
            total = total + prior.log_prob(eta[self._columns(c)]).sum(0)
        return total

    def sample_prior(self, num_samples: int, seed: int = 0) -> Float[Tensor, "num_samples columns"]:
        """Draws from p(η), internal units."""
        with seeded(seed), torch.no_grad():
            draws = torch.stack(
                [torch.full((num_samples,), self.fixed.get(n, 0.0), dtype=torch.float64) for n in self.symmetries], 1
            )
            for site, where in self.sites.items():
                if isinstance(where, int):
                    draws[:, where] = self.priors[self.symmetries[where]].sample(torch.Size([num_samples])).double()
                else:
                    draws[:, where] = self._group_prior(site, draws).sample(torch.Size([len(where)])).T
        return draws

    def sample_group(self, eta: Float[Tensor, " columns"]) -> Float[Tensor, " K"]:
        """Extents of one more group, given the population's, from torch's global generator."""
        K = len(self.symmetries) // (len(self.groups) + 2)
        pooled = {c.name for c in self._pooled}
        values = []
        for k, c in enumerate(self.coordinates[:K]):
            values.append(PooledExtent(eta[k], eta[K + k], c.largest).sample() if c.name in pooled else eta[k])
        return torch.stack(values)

    def prior_quantile(self, p: float) -> Float[Tensor, " columns"]:
        """The p-quantile of every marginal prior; that of groups from 4,096 draws."""
        values = super().prior_quantile(p)
        draws = self.sample_prior(4096)
        for c in self._pooled:
            columns = self._columns(c)
            values[columns] = draws[:, columns].quantile(torch.tensor(p, dtype=torch.float64))
        return values

    def log_marginal_prior(self, name: str, values: Float[Tensor, " J"]) -> Float[Tensor, " J"]:
        """log p(η_k) with the others integrated out, over 512 draws of population and spread for a group."""
        for c in self._pooled:
            if self.symmetries.index(name) in self._columns(c):
                draws = self.sample_prior(512)
                log_p = self._group_prior(_site_of_groups(c), draws).log_prob(values[:, None])  # (J, 512)
                return log_p.logsumexp(1) - math.log(len(draws))
        return super().log_marginal_prior(name, values)

    def config(self) -> dict[str, Any]:
        """A JSON-able description of what was given."""
        own = set(self.coordinates[k].name for k in range(2 * len(self.symmetries) // (len(self.groups) + 2)))
        return {name: value for name, value in super().config().items() if name in own}

    def _columns(self, coordinate: Coordinate) -> list[int]:
        return [self.symmetries.index(f"{coordinate.name}[{group}]") for group in self.groups]

    def _spread_of(self, coordinate: Coordinate, values: Mapping[str, Tensor]) -> Tensor:
        name = spread_name(coordinate.name)
        if name in self.priors:
            return values[SITE_PREFIX + name]
        return torch.tensor(self.fixed[name], dtype=torch.float64)

    def _group_prior(self, site: str, draws: Float[Tensor, "J columns"]) -> PooledExtent:
        """Of one group, at every draw of population and spread."""
        c = next(c for c in self._pooled if _site_of_groups(c) == site)
        population, spread = (draws[:, self.symmetries.index(name)] for name in (c.name, spread_name(c.name)))
        return PooledExtent(population, spread, c.largest)


def _site_of_groups(coordinate: Coordinate) -> str:
    return f"{SITE_PREFIX}{coordinate.name}[groups]"
