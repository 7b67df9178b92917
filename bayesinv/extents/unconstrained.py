"""Extents in unconstrained coordinates, and a density over these as one over the extents.

    η_k = b_k(z_k),    b_k the bijection onto the support of the prior of η_k,

Φ for bounded supports, under which a flat prior is N(0, 1). Extents that are fixed have no z.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import biject_to

from bayesinv.extents.families import Extents
from bayesinv.numerics.mixture import Mixture

# Beyond, Φ leaves nothing between an extent and its bound in float64.
FURTHEST = 6.0


class Unconstrained:
    """The change of variables of a model's extents.

    Args:
        extents: priors and fixed numbers.
        held: extents, (K,), all of which are held there; None leaves the latent ones free.

    Attributes:
        columns: places of the A free extents among the K.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> space = Unconstrained(Extents(Affine2d(["rotation", "shear"]).coordinates, {"shear": 0.0}))
        >>> space.extents(torch.zeros(1, dtype=torch.float64)).round(decimals=3).tolist()
        [1.571, 0.0]
    """

    def __init__(self, extents: Extents, held: Float[Tensor, " K"] | None = None):
        self.symmetries = extents.symmetries
        free = extents.active if held is None else ()
        self.columns = [extents.symmetries.index(name) for name in free]
        self._supports = [extents.priors[name].support for name in free]
        self._bijections = [biject_to(support) for support in self._supports]
        fixed = [extents.fixed.get(name, 0.0) for name in extents.symmetries]
        self._fixed = torch.tensor(fixed, dtype=torch.float64) if held is None else held.double()

    def to_z(self, eta: Float[Tensor, "*draws K"]) -> Float[Tensor, "*draws A"]:
        """z of extents, cut to ``FURTHEST`` either way."""
        columns = [b.inv(eta[..., k]) for b, k in zip(self._bijections, self.columns, strict=True)]
        if not columns:
            return eta[..., :0]
        return (
            torch.stack(columns, -1).nan_to_num(nan=0.0, posinf=FURTHEST, neginf=-FURTHEST).clamp(-FURTHEST, FURTHEST)
        )

    def extents(self, z: Float[Tensor, "*draws A"]) -> Float[Tensor, "*draws K"]:
        """η, fixed ones included."""
        eta = [self._fixed[k].expand(z.shape[:-1]) for k in range(len(self._fixed))]
        for i, (b, k) in enumerate(zip(self._bijections, self.columns, strict=True)):
            eta[k] = b(z[..., i])
        return torch.stack(eta, -1)

    def log_jacobian(self, z: Float[Tensor, "*draws A"]) -> Float[Tensor, "*draws"]:
        """log |dη/dz|."""
        total = z.new_zeros(z.shape[:-1])
        for i, b in enumerate(self._bijections):
            total = total + b.log_abs_det_jacobian(z[..., i], b(z[..., i]))
        return total

    def inside(self, eta: Float[Tensor, "*draws K"]) -> Tensor:
        """Whether every free extent lies in the support of its prior, (*draws)."""
        inside = torch.ones(eta.shape[:-1], dtype=torch.bool)
        for support, k in zip(self._supports, self.columns, strict=True):
            inside = inside & support.check(eta[..., k])
        return inside


@dataclass(frozen=True)
class ExtentGuide:
    """q(η), the variational posterior as a distribution over the extents.

        log q(η) = log q(z) - log |dη/dz|

    It is a density over the latent extents; fixed ones are constants, which it neither reads nor weighs.

    Args:
        space: the change of variables.
        density: q(z).

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> normal = Mixture(one[0], 0.0 * one, one[None], float("inf"))
        >>> q = ExtentGuide(Unconstrained(Extents(Affine2d(["rotation"]).coordinates)), normal)
        >>> q.log_prob(torch.tensor([[0.5], [4.0]])).exp().round(decimals=3).tolist()  # flat on [0, π]
        [0.318, 0.0]
        >>> q.sample(3).shape
        torch.Size([3, 1])
    """

    space: Unconstrained
    density: Mixture

    def log_prob(self, extents: Float[Tensor, "*draws K"]) -> Float[Tensor, "*draws"]:
        """log q(η), η in internal units; -inf outside the support of the prior.

        Raises:
            ValueError: a last axis that does not hold the K extents.
        """
        K = len(self.space.symmetries)
        if extents.shape[-1:] != (K,):
            raise ValueError(
                f"extents: expected shape (..., {K}), one column for each of {', '.join(self.space.symmetries)}, got "
                f"{tuple(extents.shape)}"
            )
        eta = extents.to("cpu", torch.float64)
        z = self.space.to_z(eta)
        log_q = self.density.log_prob(z) - self.space.log_jacobian(z)
        return torch.where(self.space.inside(eta), log_q, -torch.inf)

    def sample(self, num: int, seed: int = 0) -> Float[Tensor, "num K"]:
        """Quasi-random draws, internal units; the same seed gives the same ones.

        Raises:
            ValueError: ``num`` below 1.
        """
        if num < 1:
            raise ValueError(f"num: expected at least 1, got {num}")
        return self.space.extents(self.density.sample(num, seed))
