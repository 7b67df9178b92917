"""Orbits: the base draws ε, the points T_{t(ε; η)} x and their weights, and the two averages over them."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.numerics.arguments import as_integer
from bayesinv.orbits.augmentation import checked_distribution, draw
from bayesinv.transforms import Transform

__all__ = ["Orbit", "base_draws"]

# Copies that finite groups may multiply an orbit by; beyond it one forward pass no longer fits most machines.
_LARGEST_GROUP = 256

_KINDS = ("sobol", "monte_carlo")


def base_draws(
    num_samples: int,
    num_coordinates: int,
    kind: str = "sobol",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Float[Tensor, "num_samples num_coordinates"]:
    """Base draws ε of the augmentation distribution, each uniform on [−1, 1].

        t_s = η · ε_s,    ε_s ~ U[−1, 1]^K,    s = 1 … S

    Args:
        num_samples: S, the size of the sampled orbit.
        num_coordinates: K.
        kind: ``"sobol"`` for scrambled Sobol points, even over the cube, or ``"monte_carlo"`` for
            independent ones.
        seed: of the scrambling or of the draws. The global generator is neither used nor changed.
        dtype, device: of the result. The numbers are drawn on the CPU, so they are the same on
            every device.

    Returns:
        (S, K), each column marginally uniform on [−1, 1].

    Raises:
        ValueError: if a size is not a positive integer, or ``kind`` is unknown.

    Reference:
        A. B. Owen (1998). Scrambling Sobol' and Niederreiter-Xing points. Journal of Complexity 14.

    Example:
        >>> base_draws(4, 2, seed=1).shape
        torch.Size([4, 2])
        >>> bool((base_draws(4, 2, seed=1) == base_draws(4, 2, seed=1)).all())
        True
    """
    num_samples, num_coordinates = (
        as_integer(name, size) for name, size in (("num_samples", num_samples), ("num_coordinates", num_coordinates))
    )
    seed = as_integer("seed", seed, 0, 2**32 - 1)
    if kind == "sobol":
        engine = torch.quasirandom.SobolEngine(num_coordinates, scramble=True, seed=seed)
        unit = engine.draw(num_samples, dtype=torch.float64)  # (S, K) in [0, 1)
    elif kind == "monte_carlo":
        generator = torch.Generator().manual_seed(seed)
        unit = torch.rand(num_samples, num_coordinates, generator=generator, dtype=torch.float64)
    else:
        raise ValueError(f"unknown kind of base draws {kind!r}; known are {', '.join(_KINDS)}")
    return (2.0 * unit - 1.0).to(dtype=dtype, device=device)


class Orbit(torch.nn.Module):
    """The sampled orbit {T_{t_s} x : s = 1 … S}, with base draws ε that stay fixed.

        t_s = Q(ε_s; η),    for uniform coordinates η · ε_s

    With fixed ε everything computed from the orbit is a deterministic, almost everywhere
    differentiable function of the extents η. The draws are a buffer: they move with the module and
    are saved in its ``state_dict``. Over a finite group the average is exact: every draw of the
    other coordinates meets every element g, with weight 1 - η for the identity and η / (G - 1) for
    each of the others.

    Args:
        transform: T_t, with K coordinates.
        num_samples: S, draws of what is continuous. A finite S is a model of its own, not only an
            approximation.
        draws: the kind of base draws, ``"sobol"`` or ``"monte_carlo"``.
        seed: of the base draws.
        augmentation: distributions by coordinate, other than the coordinates' own; see
            `bayesinv.orbits.augmentation`.

    Raises:
        ValueError: as `base_draws`; an unknown name or distribution; groups of more than 256
            elements together.
        TypeError: an ``augmentation`` that is not a mapping.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> orbit = Orbit(Affine2d(["rotation", "translate_x"]), num_samples=8)
        >>> orbit(torch.zeros(5, 1, 16, 16), torch.tensor([0.5, 0.1])).shape
        torch.Size([8, 5, 1, 16, 16])
    """

    def __init__(
        self,
        transform: Transform,
        num_samples: int = 24,
        draws: str = "sobol",
        seed: int = 0,
        augmentation: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.draws = draws
        num_samples, self.seed = as_integer("num_samples", num_samples), as_integer("seed", seed, 0, 2**32 - 1)
        if augmentation is not None and not isinstance(augmentation, Mapping):
            raise TypeError(
                f"augmentation: expected a mapping from symmetry to distribution, got {augmentation!r}; "
                f'for example {{"{transform.names[0]}": "gaussian"}}'
            )
        self.augmentation = dict(augmentation or {})
        unknown = sorted(set(self.augmentation) - set(transform.names))
        if unknown:
            raise ValueError(f"augmentation: unknown symmetries {unknown}; this model's are {list(transform.names)}")
        coordinates = transform.coordinates
        self.distributions = tuple(
            checked_distribution(self.augmentation.get(c.name, c.distribution), c) for c in coordinates
        )
        self._columns = transform.columns
        self._groups = tuple(c.order for c in coordinates if c.is_discrete)
        is_drawn = [k is None or not (coordinates[k].is_discrete or coordinates[k].is_fixed) for k in self._columns]
        self.num_samples = num_samples
        # Without a continuous column every draw would be the same.
        self._num_draws = num_samples if any(is_drawn) else 1
        self.elements: Tensor
        self.register_buffer("elements", _elements(self._groups), persistent=False)  # (G, number of groups)
        base = torch.zeros(self._num_draws, len(self._columns), dtype=torch.float64)
        if any(is_drawn):
            base[:, is_drawn] = base_draws(num_samples, sum(is_drawn), draws, seed)
        self.drawn: Tensor
        self.register_buffer("drawn", torch.tensor(is_drawn), persistent=False)
        self.base: Tensor
        self.register_buffer("base", base)  # (S, columns of t); 0 where a group's elements or ends go

    def part(self, num_draws: int) -> "Orbit":
        """The orbit of the first draws alone; of Sobol points these are spread evenly too."""
        other = copy.copy(self)
        other._buffers = {**self._buffers, "base": self.base[:num_draws]}
        other._num_draws = len(other.base)
        return other

    @property
    def num_copies(self) -> int:
        """How many points the orbit of one example holds: S times the elements of the finite groups."""
        return self._num_draws * len(self.elements)

    def fresh_base(self) -> Float[Tensor, "S columns"]:
        """The base draws moved by one uniform shift modulo their range, drawn from torch's global generator.

        A shifted Sobol set is as evenly spread, and its averages are unbiased over shifts (Cranley & Patterson,
        1976), so that a stochastic objective sees the whole orbit and not S fixed points of it.
        """
        shift = 2.0 * torch.rand(self.base.shape[1], dtype=self.base.dtype)
        shift = shift.to(self.base.device, non_blocking=True)  # else every step would wait for the device
        return torch.where(self.drawn, (self.base + 1.0 + shift) % 2.0 - 1.0, self.base)

    def coordinates(
        self, extents: Float[Tensor, "*each K"], base: Float[Tensor, "S columns"] | None = None
    ) -> Float[Tensor, "copies columns"]:
        """t of every point, draws within elements of the finite groups.

        Args:
            extents: η in internal units, (K,), or (S, K) with a row for each base draw.
            base: other base draws than the orbit's own, such as `fresh_base()`.

        Returns:
            (S·G, columns) in the dtype and on the device of ``extents``; (S, K) for a transform
            without groups and auxiliaries.

        Raises:
            ValueError: if ``extents`` does not end in K.
        """
        self._check_extents(extents, each=True)
        t = self._continuous((self.base if base is None else base).to(extents), extents)  # (S, columns)
        if not self._groups:
            return t
        elements = self.elements.to(extents)  # (G, groups)
        t = t.expand(len(elements), *t.shape).clone()  # (G, S, columns)
        for i, column in enumerate(self._discrete_columns()):
            t[..., column] = elements[:, i, None]
        return t.flatten(0, 1)

    def weights(self, extents: Float[Tensor, "*each K"]) -> Float[Tensor, " copies"] | None:
        """The weight of every point, summing to one and differentiable in the extents; None if equal.

        Args:
            extents: as in `coordinates`.

        Raises:
            ValueError: if ``extents`` does not end in K.
        """
        self._check_extents(extents, each=True)
        if not self._groups:
            return None
        weights = extents.new_ones(len(self.elements), self._num_draws)  # (G, S)
        for i, column in enumerate(self._discrete_columns()):
            probability = extents[..., self._columns[column]]
            is_identity = self.elements[:, i, None].to(extents.device) == 0
            other = probability / (self._groups[i] - 1)
            weights = weights * torch.where(is_identity, 1.0 - probability, other)
        return (weights / self._num_draws).flatten()

    def random_coordinates(self, extents: Float[Tensor, " K"], shape: Sequence[int]) -> Float[Tensor, "*shape columns"]:
        """t ~ p(t | η) from torch's global generator on the CPU, so that devices share their numbers.

        Elements of finite groups are drawn too, which leaves no gradient in their extents.

        Args:
            extents: η in internal units, (K,).
            shape: leading dimensions.
        """
        self._check_extents(extents)
        eps = 2.0 * torch.rand(*shape, len(self._columns), dtype=torch.float64) - 1.0
        return self.coordinates_at(eps.to(extents.device), extents)

    def coordinates_at(
        self, eps: Float[Tensor, "*draws columns"], extents: Float[Tensor, "*each K"]
    ) -> Float[Tensor, "*draws columns"]:
        """t = Q(ε; η) of given numbers, elements of finite groups among them.

        Args:
            eps: uniform on [−1, 1], (*draws, columns).
            extents: η in internal units, (K,) for all draws or (*draws, K), a row for each.

        Raises:
            ValueError: if ``extents`` does not end in K.
        """
        self._check_extents(extents, each=True)
        t = self._continuous(eps.to(extents), extents)
        if not self._groups:
            return t
        t = t.clone()
        for i, column in enumerate(self._discrete_columns()):
            share = 0.5 * (eps[..., column] + 1.0)  # uniform on [0, 1)
            probability = extents[..., self._columns[column]].detach().to(share)
            # Below the probability the same number, stretched, says which element.
            which = 1.0 + (share / probability.clamp_min(1e-300) * (self._groups[i] - 1)).floor()
            t[..., column] = torch.where(share < probability, which.clamp_max(self._groups[i] - 1), 0.0).to(t)
        return t

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        extents: Float[Tensor, " K"],
        base: Float[Tensor, "S columns"] | None = None,
    ) -> Float[Tensor, "copies batch *event"]:
        """The points T_{t_s} x_i of one orbit shared by the batch.

        Args:
            x: the examples, (batch, *event).
            extents: η in internal units, (K,).
            base: other base draws than the orbit's own, such as `fresh_base()`.

        Returns:
            (S·G, batch, *event), in the dtype of ``x`` and differentiable in both; `weights` says
            how much each counts.

        Raises:
            ValueError: if ``extents`` is not of shape (K,).
            DataError: if the transform cannot act on ``x``.
        """
        return self.transform.orbit(x, self.coordinates(extents, base))

    def config(self) -> dict[str, Any]:
        """A JSON-able description; ``"transform"`` is for `bayesinv.transforms.from_config`, the
        rest for `Orbit`.
        """
        return {
            "transform": self.transform.config(),
            "num_samples": self.num_samples,
            "draws": self.draws,
            "seed": self.seed,
            **({"augmentation": self.augmentation} if self.augmentation else {}),
        }

    def _continuous(self, eps: Float[Tensor, "*draws columns"], extents: Tensor) -> Float[Tensor, "*draws columns"]:
        """t, with zeros where the elements of groups go."""
        plain = self._columns == tuple(range(extents.shape[-1])) and not self._groups
        if plain and set(self.distributions) == {"uniform"}:
            return extents * eps
        columns = []
        for column, k in enumerate(self._columns):
            values = eps[..., column]
            if k is None:
                columns.append(values)
            elif self.transform.coordinates[k].is_discrete:
                columns.append(torch.zeros_like(values))
            else:
                columns.append(draw(self.distributions[k], values, extents[..., k]))
        return torch.stack(columns, -1)

    def _discrete_columns(self) -> list[int]:
        coordinates = self.transform.coordinates
        return [j for j, k in enumerate(self._columns) if k is not None and coordinates[k].is_discrete]

    def _check_extents(self, extents: Tensor, each: bool = False) -> None:
        names = self.transform.names
        if tuple(extents.shape[-1:] if each else extents.shape) != (len(names),):
            raise ValueError(
                f"expected one extent for each of {', '.join(names)}, shape ({len(names)},), and shape "
                f"{tuple(extents.shape)} came"
            )


def _elements(orders: Sequence[int]) -> Float[Tensor, "G groups"]:
    """Every combination of elements of groups of these orders; one empty row without any."""
    total = math.prod(orders)
    if total > _LARGEST_GROUP:
        raise ValueError(
            f"an orbit holds every combination of the elements of its finite groups, {_LARGEST_GROUP} at most, and "
            f"{' x '.join(map(str, orders))} = {total} came; take one of the groups out of the transforms, or "
            "replace it by a smaller one (CyclicRotation(8) by CyclicRotation(4)); a prior of 0 leaves it in"
        )
    if not orders:
        return torch.zeros(1, 0, dtype=torch.float64)
    return torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) for n in orders]).reshape(total, len(orders))
