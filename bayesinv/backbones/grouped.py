"""f(x_i) = E_{t ~ p(t | η_{g(i)})} h(T_t x_i): a prior over functions whose examples have orbits by group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
        order, cross, variance = [], [], []
        for group in groups.unique().tolist():
            (index,) = torch.nonzero(groups == group, as_tuple=True)
            index = index.to(x.device)
            block = self.priors[group].statistics(x[index])
            order.append(index)
            cross.append(block[0])
            variance.append(block[1])
        back = torch.cat(order).argsort()
        return torch.cat(cross)[back], torch.cat(variance)[back]

    def covariance(self, x: Float[Tensor, n * event], groups: Int[Tensor, " n"]) -> Float[Tensor, "n n"]:
        """The dense k_ff(x, x'), for small n only.

        Raises:
            ValueError: a transform with a finite group, whose copies have weights that differ between groups.
        """
        first = self.priors[0]
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
