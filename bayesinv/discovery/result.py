"""What ``bayesinv.discover`` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.discovery.permutations import FoundPermutation
from bayesinv.discovery.plot import plot_discovery
from bayesinv.discovery.subspaces import angles
from bayesinv.transforms import ImageFlow, LinearFlow, Permutation, Transform

if TYPE_CHECKING:
    import matplotlib.figure

    from bayesinv.posterior.invariance_posterior import InvariancePosterior

__all__ = ["Discovery"]

_PERMUTATION = "permutation"  # the coordinate of the group
# Degrees above which a cone says that the function is hardly resolved, so that the number may be wrong: right ones
# had medians of 0.7 to 3.0, a wrong one of too few features 7.6 (docs/discover.md).
WIDE = 5.0


@dataclass(frozen=True, eq=False)  # comparing tensors has no single answer
class Discovery:
    """Generators that the data call for, their number with probabilities, and how sure the directions are.

    Attributes:
        dimension: k, the likeliest number of generators.
        probabilities: of every dimension that was weighed; the others have none to speak of.
        log_evidences: log p(D | dimension), nats, by Laplace's method.
        generators: A with |A|_F = 1, (k, d, d); (k, d, d + 1) of the affine algebra, translations in the last column;
            (k, 2, 3) for images, in the coordinates of `Affine2d`.
        names: one for each generator.
        group: the recognised subalgebra, such as "so(3)", or None.
        cones: degrees around each generator within which 90 % of the posterior have a direction of the subspace.
        cone: the same for the largest angle between the subspaces.
        draws: generators of posterior draws, (draws, k, ...), each orthonormal.
        permutations: of coordinates, those that the data prefer.
        permutation_group: all elements that these generate, the identity first; empty if there are none.
        posterior: of the extents along generators and permutations, from a `fit`; None without one.
        kind: "linear", "affine" or "image".
        axes: names of the coordinates.
        depends: whether y depends on x at all; if not, every transform is a symmetry and none is reported.
        seconds, evaluations, settings: how it was found.

    Example:
        >>> found = discover(None, (x, y))  # doctest: +SKIP
        >>> model = InvarianceModel(GaussianProcess(), found.transforms(), likelihood="gaussian")  # doctest: +SKIP
    """

    dimension: int
    probabilities: dict[int, float]
    log_evidences: dict[int, float]
    generators: Float[Tensor, "k rows columns"]
    names: tuple[str, ...]
    group: str | None
    cones: tuple[float, ...]
    cone: float | None
    draws: Float[Tensor, "draws k rows columns"]
    permutations: tuple[FoundPermutation, ...]
    permutation_group: tuple[tuple[int, ...], ...]
    posterior: InvariancePosterior | None
    kind: str
    axes: tuple[str, ...]
    depends: bool
    seconds: float
    evaluations: int
    settings: dict[str, Any] = field(default_factory=dict)

    def transforms(self) -> list[Transform]:
        """What was found as transforms, for `InvarianceModel`, `select` and export: a flow, and a permutation group.

        Example:
            >>> discover(None, (x, y)).transforms()  # doctest: +SKIP
            [LinearFlow(['rotation_x-y'])]
        """
        found: list[Transform] = []
        if self.dimension:
            found.append((ImageFlow if self.kind == "image" else LinearFlow)(self.generators, self._coordinates))
        if self.permutation_group:
            found.append(Permutation(self.permutation_group, name=_PERMUTATION))
        return found

    @property
    def _coordinates(self) -> tuple[str, ...]:
        """The generators' names as those of coordinates."""
        plain = str.maketrans({" ": "_", "(": None, ")": None, ",": None})
        return tuple(name.translate(plain) for name in self.names)

    @property
    def extents(self) -> pd.DataFrame | None:
        """Posterior of the extents along each, in people's units; None without a fit."""
        return None if self.posterior is None else self.posterior.summary()

    def summary(self) -> pd.DataFrame:
        """One row a generator or permutation.

        Columns: ``kind``; ``probability`` (of at least so many generators; of the permutation); ``cone`` in degrees;
        ``log_bf`` of a permutation; and where extents were fitted ``extent``, ``lower``, ``upper``, ``unit``.
        Permutations share the extent of their group.
        """
        rows: dict[str, dict[str, Any]] = {}
        none = float("nan")
        for k, (name, cone) in enumerate(zip(self.names, self.cones, strict=True)):
            at_least = sum(p for dimension, p in self.probabilities.items() if dimension > k)
            rows[name] = {"kind": "generator", "probability": at_least, "cone": cone, "log_bf": none}
        for p in self.permutations:
            rows[p.name] = {"kind": "permutation", "probability": p.probability, "cone": none, "log_bf": p.log_bf}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["kind", "probability", "cone", "log_bf"])
        table.index.name = "symmetry"
        extents = self.extents
        if extents is not None:  # one row for each generator, and one for the whole group of permutations
            names = [*self._coordinates, *[_PERMUTATION] * len(self.permutations)]
            own = extents.reindex(names)[["median", "lower", "upper", "unit"]].set_axis(table.index)
            table = table.join(own.rename(columns={"median": "extent"}))
        return table

    def plot(self) -> matplotlib.figure.Figure:
        """The generators as pictures of their matrices, with their cones, and the probabilities of the dimensions."""
        return plot_discovery(self)

    def __str__(self) -> str:
        if not self.depends:
            return "Discovery: y does not depend on x, so that every transform is a symmetry and none is reported"
        number = {0: "no generator", 1: "1 generator"}.get(self.dimension, f"{self.dimension} generators")
        head = f"Discovery: {number}" + (f", {self.group}" if self.group else "")
        share = self.probabilities[self.dimension]
        lines = [f"{head} (probability {share:.2f})" if share < 0.995 else f"{head} (probability > 0.99)"]
        if self.cone is not None and self.cone > WIDE:
            lines.append(
                f"  the cone of {self.cone:.1f}° is wide: do not trust the number of generators or its probability "
                "before more examples, or a larger num_features, agree"
            )
        if self.cone is not None and self.dimension > 1:
            lines.append(f"  the subspace is known within {self.cone:.1f}° (90 %)")
        for name, cone, G in zip(self.names, self.cones, self.generators, strict=True):
            lines.append(f"  {name}, within {cone:.1f}° (90 %)")
            lines += ["    " + " ".join(f"{value + 0.0:6.2f}" for value in row) for row in G.round(decimals=2).tolist()]
        for p in self.permutations:
            lines.append(f"  {p.name}: log Bayes factor {p.log_bf:.1f}, probability {p.probability:.2f}")
        if self.posterior is not None:
            lines += ["  extents: " + line for line in str(self.posterior).splitlines()[1:]]
        return "\n".join(lines)

    def angle_to(self, generators: Float[Tensor, "m rows columns"]) -> Float[Tensor, " smaller"]:
        """Principal angles, in degrees, ascending, to the span of given generators.

        Args:
            generators: as those found, (m, rows, columns); need not be orthonormal.

        Raises:
            ValueError: of another shape, or none was found.

        Example:
            >>> found.angle_to(torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]))  # doctest: +SKIP
        """
        G = torch.as_tensor(generators, dtype=torch.float64)
        if self.dimension == 0:
            raise ValueError("angle_to: there is no generator, hence no angle")
        if G.ndim != 3 or G.shape[1:] != self.generators.shape[1:]:
            raise ValueError(
                f"generators: expected (m, {', '.join(map(str, self.generators.shape[1:]))}), got {tuple(G.shape)}"
            )
        frames = [torch.linalg.qr(part.flatten(1).mT).Q for part in (self.generators, G)]
        return angles(*frames)
