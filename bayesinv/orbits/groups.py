"""Groups in the data: the coordinates that they have, and the orbits of their examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bayesinv.data.groups import as_groups
from bayesinv.orbits.orbit import Orbit
from bayesinv.orbits.structure import Blocks
from bayesinv.transforms import Coordinate, Transform

__all__ = ["LARGEST_SPREAD", "Grouped", "GroupedOrbit", "spread_name"]

LARGEST_SPREAD = 2.0  # of τ, in standard deviations of the population; groups then lie at both ends
ALIKE = 0.1  # a spread below this moves a group by less than four hundredths of the largest extent


class Grouped(Blocks):
    """The coordinates of a transform: the population's, its spreads, and those of every group.

    Args:
        inner: T, with K coordinates.
        groups: what the G groups are called, in the order of their numbers in the data.

    Raises:
        ValueError: fewer than two groups, two of one name, or numbers for names that are not 0..G-1 in order.
        TypeError: no names.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> Grouped(Affine2d(["rotation"]), ["site A", "site B"]).names
        ('rotation', 'rotation spread', 'rotation[site A]', 'rotation[site B]')
    """

    def __init__(self, inner: Transform, groups: Any):
        super().__init__(inner, "group", groups, ("site A", "site B"))

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the G groups."""
        return self.blocks

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """Population, spreads, then group by group."""
        spreads = tuple(
            # An amount, which no copy draws: without a sign before it.
            Coordinate(
                spread_name(c.name),
                "sd",
                LARGEST_SPREAD,
                meaning=f"How far groups differ in {c.name}.",
                distribution="one_sided",
            )
            for c in self.inner.coordinates
        )
        return (*self.inner.coordinates, *spreads, *(c for group in self.groups for c in self.named(group)))

    def moves(self, t: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch blocks K"]:
        """Those of the population, and those of every group; spreads move nothing."""
        return torch.cat([t[:, None, : self.inner.num_coordinates], self.by_group(t)], 1)

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " columns"]:
        """Those of the transform for population and groups; a spread under which groups are alike."""
        inner = self.inner.negligible(event_shape)
        return torch.cat([inner, torch.full_like(inner, ALIKE), inner.repeat(len(self.groups))])

    def by_group(self, eta: Float[Tensor, "*draws columns"]) -> Float[Tensor, "*draws G K"]:
        """η_gk of every group.

        Raises:
            ValueError: another number of extents.
        """
        G, K = len(self.groups), self.inner.num_coordinates
        if eta.shape[-1:] != torch.Size([(G + 2) * K]):
            raise ValueError(
                f"expected {(G + 2) * K} extents, {K} of the population, {K} spreads and {K} for each of {G} groups, "
                f"got shape {tuple(eta.shape)}"
            )
        return eta[..., 2 * K :].unflatten(-1, (G, K))


class GroupedOrbit:
    """The orbit of every example within the extents of its group, {T_{t(ε_s; η_g(i))} x_i : s = 1 … S}.

    All groups share their base draws, so that with equal extents this is the orbit in common; it has as many copies.

    Args:
        structure: whose groups these are.
        orbit: of one group.
        groups: the group of each example, (n,) numbers; None until :meth:`of` says.
        new: extents of a group that training has not seen, (K,), which is then that of number -1.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> orbit = Orbit(Affine2d(["rotation"]), num_samples=8)
        >>> each = GroupedOrbit(Grouped(orbit.transform, ["a", "b"]), orbit).of([0, 1, 1])
        >>> eta = torch.tensor([0.3, 0.5, 0.0, 1.2])  # population, spread, a, b
        >>> each(torch.zeros(3, 1, 16, 16), eta).shape, each.coordinates(eta)[:, 0].abs().max()
        (torch.Size([8, 3, 1, 16, 16]), tensor(0.))
    """

    def __init__(
        self,
        structure: Grouped,
        orbit: Orbit,
        groups: Int64[Tensor, " n"] | None = None,
        new: Float[Tensor, " K"] | None = None,
    ):
        self.structure, self.inner, self.groups, self.new = structure, orbit, groups, new

    @property
    def num_copies(self) -> int:
        """Those of one example."""
        return self.inner.num_copies

    def of(self, groups: Any) -> GroupedOrbit:
        """The orbit of examples of these groups.

        Args:
            groups: (n,) numbers or names; see :func:`as_groups`.

        Raises:
            DataError: groups that are not there; one that training has not seen, without extents for it; none given.
        """
        size = 0 if groups is None else len(groups)
        numbers = as_groups(groups, self.structure.groups, size, training=self.new is None)
        return GroupedOrbit(self.structure, self.inner, numbers, self.new)

    def fresh_base(self) -> Float[Tensor, "S columns"]:
        """Base draws for all groups, from torch's global generator."""
        return self.inner.fresh_base()

    def coordinates(
        self, extents: Float[Tensor, " all"], base: Float[Tensor, "S columns"] | None = None
    ) -> Float[Tensor, "copies n columns"]:
        """t of every copy of every example.

        Raises:
            ValueError: another number of extents, or examples of unknown groups.
        """
        rows, which = self._rows(extents)
        return torch.stack([self.inner.coordinates(row, base) for row in rows], 1)[:, which]

    def weights(self, extents: Float[Tensor, " all"]) -> Float[Tensor, "copies n"] | None:
        """What every copy of every example counts; None if alike.

        Raises:
            ValueError: as `coordinates`.
        """
        rows, which = self._rows(extents)
        of_groups = [self.inner.weights(row) for row in rows]
        known = [w for w in of_groups if w is not None]
        return torch.stack(known, 1)[:, which] if known else None

    def __call__(
        self,
        x: Float[Tensor, n * event],
        extents: Float[Tensor, " all"],
        base: Float[Tensor, "S columns"] | None = None,
    ) -> Float[Tensor, "copies n *event"]:
        """The points, (copies, n, *event), group by group: copies of examples that share t cost less.

        Raises:
            ValueError: as `coordinates`, or examples of another number. DataError: if the transform cannot act on x.
        """
        rows, which = self._rows(extents)
        if len(which) != len(x):
            raise ValueError(f"expected {len(which)} examples, of as many groups, got {len(x)}")
        index = [torch.nonzero(which == g)[:, 0] for g in range(len(rows))]
        points = [self.inner(x[i], row, base) for i, row in zip(index, rows, strict=True)]
        return torch.cat(points, 1)[:, torch.cat(index).argsort()]

    def _rows(self, extents: Tensor) -> tuple[Float[Tensor, "present K"], Int64[Tensor, " n"]]:
        """Extents of the groups that the examples are of, and the row of each example."""
        if self.groups is None:
            raise ValueError("the orbit of an example depends on its group: say orbit.of(groups) first")
        each = self.structure.by_group(extents)
        if self.new is not None:
            each = torch.cat([each, self.new.to(each)[None]])  # the last, which -1 is
        present, which = self.groups.unique(return_inverse=True)
        return each[present.to(extents.device)], which.to(extents.device)


def spread_name(symmetry: str) -> str:
    """What the spread of the groups in a symmetry is called."""
    return f"{symmetry} spread"
