"""h ~ GP(0, k): a Gaussian process around any GPyTorch kernel, seen through its orbit averages."""

from __future__ import annotations

import copy
from typing import Any

import torch
from gpytorch.constraints import Positive
from gpytorch.kernels import Kernel, RBFKernel, ScaleKernel
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones.rbf import rbf_cross_mean, rbf_self_mean
from bayesinv.errors import DataError
from bayesinv.randomness import seeded


def _default_kernel() -> Kernel:
    """A scaled squared exponential whose parameters move on the log scale.

    GPyTorch's softplus makes a step of Adam an absolute one where the value is large: outputscales that have to grow
    tenfold, as they do once an invariance is found, then take hundreds of steps.
    """

    def positive() -> Positive:
        return Positive(transform=torch.exp, inv_transform=torch.log)

    return ScaleKernel(RBFKernel(lengthscale_constraint=positive()), outputscale_constraint=positive())


class GaussianProcess(nn.Module):
    """A Gaussian-process prior over the free function h, with inter-domain inducing values u = h(Z).

    The model's function is the orbit average f(x) = mean_s h(T_s x), so

        k_fu(x, z) = mean_s k(T_s x, z),      k_ff(x, x) = mean_{s,s'} k(T_s x, T_s' x),

    with Z in the space of the inputs as they come, not of orbits (van der Wilk et al., 2018,
    arXiv:1808.05563). Inputs are flattened before the kernel sees them.

    Args:
        kernel: any GPyTorch kernel without batch shape; None is a scaled squared exponential whose
            lengthscale starts at the median distance in the data. Priors registered on the kernel count
            in the objective.
        num_inducing: M; never more than the number of inputs.
        learn_inducing: whether Z moves with the kernel's parameters.
        inducing_points: Z itself, shape (M, *event), instead of a random subset of the inputs.

    Raises:
        TypeError: kernel is not a GPyTorch kernel.
        ValueError: a kernel with a batch shape, or fewer than one inducing point.

    Example:
        >>> from gpytorch.kernels import MaternKernel
        >>> gp = GaussianProcess(MaternKernel(nu=2.5), num_inducing=20)
        >>> gp.initialise(torch.rand(50, 3), output_variance=1.0, seed=0)
        >>> points = torch.rand(4, 10, 3, dtype=torch.float64)  # (S, n, features)
        >>> gp.cross(points).shape, gp.variance(points).shape
        (torch.Size([10, 20]), torch.Size([10]))
    """

    def __init__(
        self,
        kernel: Kernel | None = None,
        num_inducing: int = 150,
        learn_inducing: bool = True,
        inducing_points: Tensor | None = None,
    ):
        super().__init__()
        if kernel is not None and not isinstance(kernel, Kernel):
            raise TypeError(f"kernel: expected a gpytorch.kernels.Kernel or None, got {type(kernel).__name__}")
        if kernel is not None and len(kernel.batch_shape):
            raise ValueError(f"kernel: expected no batch shape (outputs share it), got {tuple(kernel.batch_shape)}")
        if num_inducing < 1:
            raise ValueError(f"num_inducing: expected at least 1, got {num_inducing}")
        self.is_default_kernel = kernel is None
        # A copy: learning, and float64, are not to reach the caller's kernel.
        self.kernel = (_default_kernel() if kernel is None else copy.deepcopy(kernel)).double()
        self.num_inducing = num_inducing
        self.learn_inducing = learn_inducing
        self._given_inducing = inducing_points
        empty = torch.empty(0, 0, dtype=torch.float64)
        self.inducing = nn.Parameter(empty, requires_grad=learn_inducing)

    def initialise(self, x: Float[Tensor, "n ..."], output_variance: float, seed: int) -> None:
        """Place Z on a random subset of x, and start the default kernel at the scale of the data.

        Args:
            x: inputs, shape (n, *event).
            output_variance: starting prior variance of the default kernel.
            seed: which subset.
        """
        if self._given_inducing is not None:
            Z = self._given_inducing.detach().reshape(len(self._given_inducing), -1)
            if Z.shape[1] != x[0].numel():
                raise DataError(
                    f"inducing_points: expected {x[0].numel()} numbers a point as in the data, got {Z.shape[1]}"
                )
        else:
            with seeded(seed):
                chosen = torch.randperm(len(x))[: self.num_inducing]
            Z = x[chosen.to(x.device)].reshape(len(chosen), -1)
        Z = Z.detach().to(x.device, torch.float64, copy=True)
        self.inducing = nn.Parameter(Z, requires_grad=self.learn_inducing)
        if self.is_default_kernel:
            distances = torch.pdist(Z)
            positive = distances[distances > 0]
            # Constant inputs have no scale of their own; any lengthscale gives the same (constant) prior.
            self.kernel.base_kernel.lengthscale = positive.median() if len(positive) else 1.0
            self.kernel.outputscale = output_variance

    def resize_inducing(self, num_points: int, num_features: int) -> None:
        """Make room for Z of a saved state before ``load_state_dict``."""
        Z = torch.zeros(num_points, num_features, dtype=torch.float64, device=self.inducing.device)
        self.inducing = nn.Parameter(Z, requires_grad=self.learn_inducing)

    def prior_covariance(self) -> Float[Tensor, "M M"]:
        """k(Z, Z), float64."""
        return self.kernel(self.inducing).to_dense()

    def cross(self, points: Float[Tensor, "S n *event"]) -> Float[Tensor, "n M"]:
        """k_fu: mean_s k(T_s x, Z), float64, for points T_s x of shape (S, n, *event)."""
        S, n = points.shape[:2]
        flat = points.reshape(S, n, -1)
        fast = self._rbf()
        if fast is not None:
            scale, gamma = fast
            return scale * rbf_cross_mean(flat, self.inducing.to(flat.dtype), gamma.to(flat.dtype)).double()
        K = self.kernel(flat.reshape(S * n, -1).double(), self.inducing).to_dense()
        return K.reshape(S, n, -1).mean(0)

    def variance(self, points: Float[Tensor, "S n *event"]) -> Float[Tensor, " n"]:
        """k_ff: mean_{s,s'} k(T_s x, T_s' x), float64."""
        S, n = points.shape[:2]
        flat = points.reshape(S, n, -1)
        fast = self._rbf()
        if fast is not None:
            scale, gamma = fast
            return scale * rbf_self_mean(flat, gamma.to(flat.dtype)).double()
        per_input = flat.transpose(0, 1).double()  # (n, S, D)
        return self.kernel(per_input, per_input).to_dense().mean((-2, -1))

    def covariance(
        self, left: Float[Tensor, "S n *event"], right: Float[Tensor, "S m *event"], rows: int = 16
    ) -> Float[Tensor, "n m"]:
        """mean_{s,s'} k(T_s x, T_s' x') between two sets of orbits; ``rows`` inputs at a time."""
        S, m = right.shape[:2]
        columns = right.reshape(S * m, -1).double()
        blocks = []
        for block in left.split(rows, dim=1):
            b = block.shape[1]
            K = self.kernel(block.reshape(S * b, -1).double(), columns).to_dense()
            blocks.append(K.reshape(S, b, S, m).mean((0, 2)))
        return torch.cat(blocks)

    def bytes_per_input(self, num_samples: int, num_features: int, dtype: torch.dtype) -> int:
        """Memory that the orbit of one input and its kernel need, gradients included.

        The fast path holds orbit, its layout by input, its gradient and one spare; kernel, gradient and one
        spare. GPyTorch's kernels run in float64 and keep about ten arrays of the kernel's size (counted on Matérn).
        """
        M = len(self.inducing)
        if self._rbf() is not None:
            per_sample = (4 * num_features + 3 * M + 3 * num_samples) * torch.finfo(dtype).bits // 8
        else:
            per_sample = (8 * num_features + 10 * M + 10 * num_samples) * 8
        return num_samples * per_sample

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """Sum of the log densities of the priors that the user registered on the kernel."""
        total = torch.zeros((), dtype=torch.float64, device=self.inducing.device)
        for _, module, prior, closure, _ in self.kernel.named_priors():
            total = total + prior.log_prob(closure(module)).sum()
        return total

    def _rbf(self) -> tuple[Tensor, Tensor] | None:
        """(scale, γ) when the kernel is an isotropic squared exponential, else None."""
        kernel: Kernel = self.kernel
        scale = torch.ones((), dtype=torch.float64, device=self.inducing.device)
        if type(kernel) is ScaleKernel and kernel.active_dims is None:
            scale, kernel = kernel.outputscale, kernel.base_kernel
        if type(kernel) is not RBFKernel or kernel.ard_num_dims not in (None, 1) or kernel.active_dims is not None:
            return None
        return scale, 0.5 / kernel.lengthscale.reshape(()).square()

    def config(self) -> dict[str, Any]:
        """A JSON-able description; ``kernel`` is null for the default, and its text for a user's own."""
        return {
            "type": "GaussianProcess",
            "kernel": None if self.is_default_kernel else repr(self.kernel),
            "num_inducing": self.num_inducing,
            "learn_inducing": self.learn_inducing,
        }
