"""f(x_i) = E_{t ~ p(t | η_{g(i)})} h(T_t x_i): a prior over functions whose examples have orbits by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.backbones.gp import GaussianProcess
from bayesinv.backbones.invariant import InvariantPrior


class GroupedPrior:
    """One :class:`InvariantPrior` for each group, with kernel and inducing inputs in common.

    Values of f at inputs of different groups are averages of the same h over orbits of different size. The cost is
    that of one orbit: every example is moved by its own group's draws alone.

    Args:
        priors: one for each group, in order; a further one, if there is one, is that of a group not seen in training.
    """

    def __init__(self, priors: Sequence[InvariantPrior]):
        self.priors = tuple(priors)

    @property
    def backbone(self) -> GaussianProcess:
        """The process that all groups share."""
        return self.priors[0].backbone

    def features(self, x: Float[Tensor, n * event], groups: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
        """φ̄(x) under each example's group's extents, float64; ``groups`` as for `statistics`."""
        (phi,) = self._by_group(x, groups, lambda prior, rows: (prior.features(rows),))
        return phi

    def inducing_covariance(self) -> Float[Tensor, "M M"]:
        """k(Z, Z)."""
        return self.priors[0].inducing_covariance()

    def statistics(
        self, x: Float[Tensor, n * event], groups: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n M"], Float[Tensor, " n"]]:
        """k_fu and k_ff of every input, under its group's extents.

        Args:
            x: inputs, (n, *event).
            groups: which prior is whose; -1 is the last of the priors.
        """
        cross, variance = self._by_group(x, groups, lambda prior, rows: prior.statistics(rows))
        return cross, variance

    def _by_group(
        self, x: Tensor, groups: Tensor, compute: Callable[[InvariantPrior, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """What ``compute`` gives for the inputs of each group, put back in the order of the inputs."""
        order, parts = [], []
        for group in groups.unique().tolist():
            (index,) = torch.nonzero(groups == group, as_tuple=True)
            index = index.to(x.device)
            order.append(index)
            parts.append(compute(self.priors[group], x[index]))
        back = torch.cat(order).argsort()
        return tuple(torch.cat(column)[back] for column in zip(*parts, strict=True))

    def covariance(self, x: Float[Tensor, n * event], groups: Int[Tensor, " n"]) -> Float[Tensor, "n n"]:
        """The dense k_ff(x, x'), for small n only.

        Raises:
            ValueError: a transform with a finite group, whose copies have weights that differ between groups.
        """
        first = self.priors[0]
        if first.backbone.space == "features":
            phi = self.features(x, groups)
            return phi @ phi.T
        if first.weights() is not None:
            raise ValueError(
                "the dense covariance between groups needs copies that count alike; leave transforms with a finite "
                "group (Flip, CyclicRotation, Dihedral, Permutation) out"
            )
        points = torch.stack(
            [self.priors[group].points(x[i : i + 1])[:, 0] for i, group in enumerate(groups.tolist())], 1
        )
        points = first.backbone.embed(points)
        return first.backbone.covariance(points, points)
