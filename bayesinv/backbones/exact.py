"""f at the data themselves in place of inducing values: nothing is left out of the covariance."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones.invariant import InvariantPrior
from bayesinv.errors import DataError

BYTES_PER_VALUE = 32  # of a kernel value: float64, what its gradient keeps, and a spare


class ExactPrior:
    """An :class:`InvariantPrior` whose inducing values are u = f(x_1), ..., f(x_n), for n of some hundred.

        k_uu = k_fu = mean_{s,s'} k(T_s x, T_s' x'),

    so that the collapsed bound has no gap. Inducing inputs in the space of single images leave one that depends on the
    extents, and where they are learned it is smallest at the extents that the guide believes in: intervals that come
    from such a bound are too narrow. The cost is n²S² kernel values for every value of the extents.

    Args:
        prior: the prior at one value of the extents.
        x: the training inputs.

    Raises:
        DataError: too many inputs and copies for the memory budget.
    """

    def __init__(self, prior: InvariantPrior, x: Float[Tensor, n * event]):
        self.prior, self.x = prior, x
        copies = 1 if prior.identity else prior.orbit.num_copies
        needed = BYTES_PER_VALUE * (len(x) * copies) ** 2
        if needed > prior.memory_budget:
            raise DataError(
                f"num_inducing=None: the covariance of {len(x)} inputs seen through {copies} copies needs about "
                f"{needed / 2**30:.1f} GiB, above the memory budget of {prior.memory_budget / 2**30:.1f} GiB; "
                "give a number of inducing values, such as num_inducing=150, fewer copies, or the model a larger "
                "memory_budget"
            )
        self.points = prior.backbone.embed(prior.points(x))  # (S, n, *event)
        self.covariance = prior.backbone.covariance(self.points, self.points, weights=prior.weights())

    def of(self, prior: InvariantPrior) -> ExactPrior:
        """The same covariance with another model's prior, which has the same extents and hyperparameters."""
        other = copy.copy(self)
        other.prior = prior
        return other

    def inducing_covariance(self) -> Float[Tensor, "n n"]:
        """k_ff of the training inputs."""
        return self.covariance

    def statistics(self, x: Float[Tensor, m * event]) -> tuple[Float[Tensor, "m n"], Float[Tensor, " m"]]:
        """k_fu and k_ff of every input, float64."""
        if x is self.x:
            return self.covariance, self.covariance.diagonal()
        backbone, weights = self.prior.backbone, self.prior.weights()
        crosses, variances = [], []
        for block in x.split(max(1, len(self.x))):
            points = backbone.embed(self.prior.points(block))
            crosses.append(backbone.covariance(points, self.points, weights=weights))
            variances.append(backbone.variance(points, weights))
        return torch.cat(crosses), torch.cat(variances)
