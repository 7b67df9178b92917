"""z: the unconstrained space in which sets of extents are sampled, one coordinate per symmetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import biject_to

from bayesinv.extents.priors import Prior

# Beyond, the default bijection Φ leaves nothing between an extent and its bound in float64.
FURTHEST = 8.0


class UnconstrainedSpace:
    """The bijections of the slabs' supports, z_k = b_k⁻¹(η_k), and the slabs' densities in z.

    Under the default prior z_k ~ N(0, 1) exactly. Extents near zero lie far to the left.

    Args:
        slabs: the prior of each extent given that the symmetry is in, by name.
        symmetries: their order.
    """

    def __init__(self, slabs: Mapping[str, Prior], symmetries: Sequence[str]):
        self.symmetries = tuple(symmetries)
        self.slabs = [slabs[name] for name in symmetries]
        self._bijections = [biject_to(slab.support) for slab in self.slabs]

    def to_extents(self, z: Float[Tensor, "J k"], which: Int[Tensor, " k"]) -> Float[Tensor, "J k"]:
        """η of the symmetries `which`, internal units."""
        columns = [self._bijections[k](z[:, i]) for i, k in enumerate(which.tolist())]
        return torch.stack(columns, 1) if columns else z

    def from_extents(self, eta: Float[Tensor, "J k"], which: Int[Tensor, " k"]) -> Float[Tensor, "J k"]:
        """z, cut to [-8, 8]: an extent of exactly zero lies infinitely far out."""
        columns = [self._bijections[k].inv(eta[:, i]) for i, k in enumerate(which.tolist())]
        if not columns:
            return eta
        return torch.stack(columns, 1).nan_to_num(nan=0.0, posinf=FURTHEST, neginf=-FURTHEST).clamp(-FURTHEST, FURTHEST)

    def log_slab(self, z: Float[Tensor, "J k"], which: Int[Tensor, " k"]) -> Float[Tensor, " J"]:
        """log p(z): the slabs' densities times |dη/dz|, summed over the symmetries."""
        total = z.new_zeros(len(z))
        for i, k in enumerate(which.tolist()):
            total = total + self.log_slab_of(z[:, i], k)
        return total

    def log_slab_of(self, z: Float[Tensor, " J"], k: int) -> Float[Tensor, " J"]:
        """log p(z_k) of symmetry k; -inf where η rounds to a bound at which the slab has no density."""
        slab = self.slabs[k]
        eta = self._bijections[k](z)
        inside = slab.support.check(eta)
        middle = self._bijections[k](torch.zeros_like(z))
        density = slab.log_prob(torch.where(inside, eta, middle)).to(torch.float64)
        return torch.where(inside, density + self._bijections[k].log_abs_det_jacobian(z, eta), -torch.inf)

    def sample_slab(self, num: int, which: Int[Tensor, " k"]) -> Float[Tensor, "num k"]:
        """z of draws from the slabs, from torch's global generator."""
        columns = [self.slabs[k].sample(torch.Size([num])).to(torch.float64) for k in which.tolist()]
        if not columns:
            return torch.zeros(num, 0, dtype=torch.float64)
        return self.from_extents(torch.stack(columns, 1), which)
