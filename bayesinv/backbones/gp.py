"""h ~ GP(0, k): a Gaussian process around any GPyTorch kernel, seen through its orbit averages.

Past 400 lines because a third of them say what its one class takes, gives and raises.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from numbers import Integral
from typing import Any, Literal

import torch
from gpytorch.constraints import Positive
from gpytorch.kernels import Kernel, MaternKernel, RBFKernel, ScaleKernel
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones.orbit_features import fourier_mean
from bayesinv.backbones.own_copy import own_copy
from bayesinv.backbones.rbf import rbf_cross_mean, rbf_self_mean
from bayesinv.backbones.spectral import Frequencies, has_spectral_density
from bayesinv.errors import DataError, first_line
from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.torch_modes import ordinary
from bayesinv.orbits.averages import weighted_mean

Space = Literal["features", "inducing", "exact"]
DEFAULT_FEATURES = 1024  # tests/benchmarks/feature_error.py: error of the log evidence against cost
DEFAULT_INDUCING = 150
NUM_FOR_SCALE = 150  # inputs whose distances say where the lengthscale starts, without inducing inputs
# Norm of the mean input over the spread of the inputs from which on orbits are in float64: float32 rounds a coordinate
# c by 6e-8 |c|, and this leaves distances right to 1e-5 of the spread.
LARGEST_OFFSET = 100.0
SMALLEST_SPREAD, LARGEST_SPREAD = 1e-12, 1e12  # whose squares float32 still holds


def _default_kernel() -> Kernel:
    """A scaled squared exponential whose parameters move on the log scale.

    GPyTorch's softplus makes a step of Adam an absolute one where the value is large: outputscales that have to grow
    tenfold, as they do once an invariance is found, then take hundreds of steps.
    """

    def positive() -> Positive:
        return Positive(transform=torch.exp, inv_transform=torch.log)

    return ScaleKernel(RBFKernel(lengthscale_constraint=positive()), outputscale_constraint=positive())


def _is_rough(kernel: Kernel) -> bool:
    """Whether a Matérn-1/2 is in it: its frequencies have no mean, and its random features no gradient to follow."""
    return any(isinstance(part, MaternKernel) and part.nu == 0.5 for part in kernel.modules())


class GaussianProcess(nn.Module):
    """A Gaussian-process prior over the free function h, for a model of its orbit averages f(x) = mean_s h(T_s x).

    Three spaces to compute in:

    - **features** (the default for every stationary kernel): h(x) = φ(x)ᵀw, w ~ N(0, I), with random Fourier features
      φ(x) = [a_r cos ω_rᵀx ; a_r sin ω_rᵀx] whose frequencies are drawn once. The features of f are orbit averages
      φ̄(x) = mean_s φ(T_s x), and the evidence of *this* model is exact and linear in n and in the copies.
    - **inducing values** u = h(Z), for kernels without a spectral density, or where ``num_inducing`` says so:
      k_fu(x, z) = mean_s k(T_s x, z), k_ff(x, x) = mean_{s,s'} k(T_s x, T_s' x), Z in the space of the inputs as they
      come. They leave a gap to the exact evidence, which the verdict "inducing" measures.
    - **exact** (``num_inducing=None``): the n x n covariance, n²S² kernel values, for n of a few hundred.

    Inputs are flattened before the kernel sees them.

    Args:
        kernel: any GPyTorch kernel without batch shape; None is a scaled squared exponential whose
            lengthscale starts at the median distance in the data. Priors registered on the kernel count
            in the objective.
        num_inducing: "auto" for features where the kernel has a spectral density (RBF, Matérn from 3/2 on, rational
            quadratic, constants, sums and products of them) and 150 inducing values where it has none; M for so
            many inducing values (never more than inputs); None for the exact covariance (collapsed evidences only).
        learn_inducing: whether Z moves with the kernel's parameters.
        inducing_points: Z itself, shape (M, *event), or (M, D) with features, instead of a random subset of the inputs.
        features: a network φ from (n, *event) to D features per input, for h(x) = g(φ(x)), g ~ GP(0, k). It is
            copied and frozen (no gradients, eval mode, its own precision), and frequencies or Z lie in the space of the
            features. Train it before, on something else: features trained along with the evidence of their last layer
            alone fit the noise away, and every extent with it.
        num_features: random features of the kernel, cosines and sines together, an even number.

    Raises:
        TypeError: kernel is not a GPyTorch kernel, or features no module.
        ValueError: a kernel with a batch shape, fewer than one inducing point, or features of a kernel without a
            spectral density.

    References:
        A. Rahimi, B. Recht (2007). Random features for large-scale kernel machines. NeurIPS.
        M. van der Wilk, M. Bauer, S. John, J. Hensman (2018). Learning invariances using the marginal likelihood.
        arXiv:1808.05563.

    Example:
        >>> from gpytorch.kernels import MaternKernel
        >>> GaussianProcess(MaternKernel(nu=2.5)).space, GaussianProcess(num_inducing=20).space
        ('features', 'inducing')
    """

    @ordinary()
    def __init__(
        self,
        kernel: Kernel | None = None,
        num_inducing: int | str | None = "auto",
        learn_inducing: bool = True,
        inducing_points: Tensor | None = None,
        features: nn.Module | None = None,
        num_features: int | None = None,
    ):
        super().__init__()
        if not isinstance(learn_inducing, bool):
            raise TypeError(f"learn_inducing: expected True or False, got {learn_inducing!r}")
        if kernel is not None and not isinstance(kernel, Kernel):
            raise TypeError(f"kernel: expected a gpytorch.kernels.Kernel or None, got {type(kernel).__name__}")
        if kernel is not None and len(kernel.batch_shape):
            raise ValueError(f"kernel: expected no batch shape (outputs share it), got {tuple(kernel.batch_shape)}")
        if features is not None and not isinstance(features, nn.Module):
            raise TypeError(f"features: expected a torch.nn.Module or None, got {type(features).__name__}")
        self.features = None
        if features is not None:
            self.features = own_copy(features, "features", replaces_weights=False).requires_grad_(False).eval()
        self.is_default_kernel = kernel is None
        # A copy: learning, and float64, are not to reach the caller's kernel.
        self.kernel = (_default_kernel() if kernel is None else copy.deepcopy(kernel)).double()
        self.space, self.num_inducing = self._space(num_inducing, inducing_points, num_features)
        self.num_features = int(num_features or DEFAULT_FEATURES) if self._in_features else None
        self.learn_inducing = learn_inducing and self.space == "inducing"
        self._may_learn_inducing = learn_inducing
        self.features_given = num_features is not None
        self.inducing_given = num_inducing != "auto" or inducing_points is not None
        self._given_inducing = inducing_points
        empty = torch.empty(0, 0, dtype=torch.float64)
        self.inducing = nn.Parameter(empty, requires_grad=self.learn_inducing)
        self.frequencies: Frequencies | None = None

    def _space(
        self, num_inducing: int | str | None, points: Tensor | None, num_features: int | None
    ) -> tuple[Space, int | None]:
        """Where to compute, and the number of inducing values; refuses what contradicts itself."""
        if num_features is not None:
            integer = isinstance(num_features, Integral) and not isinstance(num_features, bool)
            if not integer or num_features < 2 or num_features % 2:
                raise ValueError(f"num_features: expected an even integer of at least 2, got {num_features!r}")
            if num_inducing != "auto" or points is not None:
                raise ValueError("num_features and inducing values are two ways to compute; give one of them")
            if not has_spectral_density(self.kernel):
                raise ValueError(
                    f"num_features: {type(self.kernel).__name__} has no spectral density to draw frequencies from; "
                    "leave it out, or give a number of inducing values, such as num_inducing=150"
                )
            return "features", None
        if num_inducing is None:
            if points is not None:
                raise ValueError("inducing_points: there is no place for them with num_inducing=None; leave one out")
            return "exact", None
        if num_inducing == "auto":
            if points is None and has_spectral_density(self.kernel) and not _is_rough(self.kernel):
                return "features", None
            return "inducing", DEFAULT_INDUCING if points is None else len(points)
        if isinstance(num_inducing, bool) or not isinstance(num_inducing, Integral) or num_inducing < 1:
            raise ValueError(
                f'num_inducing: expected "auto", an integer of at least 1, or None for none, got {num_inducing!r}'
            )
        return "inducing", int(num_inducing)

    def with_inducing(self) -> GaussianProcess:
        """A copy, not yet initialised, with inducing values in place of random features."""
        kernel = None if self.is_default_kernel else self.kernel
        return GaussianProcess(kernel, DEFAULT_INDUCING, self._may_learn_inducing, features=self.features)

    @property
    def _in_features(self) -> bool:
        return self.space == "features"

    @property
    def is_exact(self) -> bool:
        """Whether the covariance of the inputs is taken as it is; ``inducing`` then only sets the kernel's scale."""
        return self.space == "exact"

    def initialise(self, x: Float[Tensor, "n ..."], output_variance: float, seed: int) -> None:
        """Place Z on a random subset of x, draw frequencies, and start the default kernel at the scale of the data.

        Args:
            x: inputs, shape (n, *event).
            output_variance: starting prior variance of the default kernel.
            seed: which subset.
        """
        if self._given_inducing is not None:
            Z = self._given_inducing.detach().reshape(len(self._given_inducing), -1)
            size = self.embed(x[None, :1])[0, 0].numel()
            if Z.shape[1] != size:
                where = "the data" if self.features is None else "the features"
                raise DataError(f"inducing_points: expected {size} numbers a point as in {where}, got {Z.shape[1]}")
        else:
            with seeded(seed):
                chosen = torch.randperm(len(x))[: self.num_inducing or NUM_FOR_SCALE]
            Z = self.embed(x[None, chosen.to(x.device)])[0].reshape(len(chosen), -1)
        Z = Z.detach().to(x.device, torch.float64, copy=True)
        self.inducing = nn.Parameter(Z, requires_grad=self.learn_inducing)
        if self.is_default_kernel:
            distances = torch.pdist(Z)
            positive = distances[distances > 0]
            # Constant inputs have no scale of their own; any lengthscale gives the same (constant) prior.
            self.kernel.base_kernel.lengthscale = positive.median() if len(positive) else 1.0
            self.kernel.outputscale = output_variance
        if self._in_features:
            self._draw_frequencies(Z.shape[1], seed)

    def _draw_frequencies(self, num_inputs: int, seed: int) -> None:
        self.frequencies = Frequencies(self.kernel, num_inputs, (self.num_features or 0) // 2, seed).to(
            self.inducing.device
        )

    @property
    def is_initialised(self) -> bool:
        """Whether it has seen data."""
        return len(self.inducing) > 0

    def prepare_state(self, state: Mapping[str, Tensor]) -> None:
        """Make room for Z and the frequencies of a saved state before ``load_state_dict``."""
        Z = torch.zeros_like(state["inducing"], dtype=torch.float64, device=self.inducing.device)
        self.inducing = nn.Parameter(Z, requires_grad=self.learn_inducing)
        if self._in_features:
            self._draw_frequencies(Z.shape[1], 0)

    def fourier(
        self, points: Float[Tensor, "S n ..."], weights: Float[Tensor, " S"] | None = None
    ) -> Float[Tensor, "n D"]:
        """φ̄ of embedded orbits, mean_s [a cos ωᵀx_s ; a sin ωᵀx_s], float64; projections in the dtype of the points.

        Raises:
            RuntimeError: frequencies are drawn when the process meets data.
        """
        if self.frequencies is None:
            raise RuntimeError("random features have no frequencies yet; fit the model, or call initialise() first")
        scale, W, amplitude = self.frequencies.scaled(self.kernel)
        centred = self._centred(points.flatten(2))
        if scale is not None:
            centred = centred * scale.to(points.dtype)
        mean = fourier_mean(centred, W.to(points.dtype), weights)
        return torch.cat([amplitude, amplitude]) * mean.double()

    def train(self, mode: bool = True) -> GaussianProcess:
        """As of any module, but for the features, which stay as they are in evaluation."""
        super().train(mode)
        if self.features is not None:
            self.features.eval()
        return self

    def embed(self, points: Float[Tensor, "S n *event"]) -> Float[Tensor, "S n ..."]:
        """φ(T_s x), shape (S, n, D) in float64; the points themselves without features.

        Raises:
            DataError: the features do not take these inputs, or do not return a row for each.
        """
        if self.features is None:
            return points
        flat = points.flatten(0, 1)
        weight = next(self.features.parameters(), None)
        try:
            # A copy: features may work in place.
            out = self.features(flat.to(flat.dtype if weight is None else weight.dtype, copy=True))
        except Exception as error:
            raise DataError(
                f"the features failed on inputs of shape {tuple(flat.shape)}: {first_line(error)}"
            ) from error
        if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(flat):
            came = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise DataError(
                f"the features have to return (n, D) for inputs (n, *event), here n = {len(flat)}, but {came} came"
            )
        return out.flatten(1).unflatten(0, points.shape[:2]).to(torch.float64)

    @property
    def spread(self) -> float:
        """Root mean square of what Z deviates from its mean, in the unit of the inputs; 1 where it does not."""
        Z = self.inducing.detach()
        spread = float((Z - Z.mean(0)).square().mean().sqrt())
        return spread if spread > 0 else 1.0

    def parameter_units(self) -> dict[str, float]:
        """The size of the parameters that are in the unit of the inputs, by name."""
        return {"inducing": self.spread}

    def orbit_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Of orbits that are asked for in ``dtype``: float64 where float32 cannot hold the inputs' unit or offset."""
        if not self.is_initialised or self.features is not None:
            return dtype
        offset = float(torch.linalg.vector_norm(self.inducing.detach().mean(0)))
        far = offset > LARGEST_OFFSET * self.spread * self.inducing.shape[1] ** 0.5
        return torch.float64 if far or not SMALLEST_SPREAD < self.spread < LARGEST_SPREAD else dtype

    def _centred(self, points: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Points less the mean of Z, which a kernel of differences does not see and rounding does."""
        if not has_spectral_density(self.kernel):
            return points
        return points - self.inducing.detach().mean(0).to(points.dtype)

    def prior_covariance(self) -> Float[Tensor, "M M"]:
        """k(Z, Z), float64."""
        return self.kernel(self._centred(self.inducing)).to_dense()

    def cross(
        self, points: Float[Tensor, "S n *event"], weights: Float[Tensor, " S"] | None = None
    ) -> Float[Tensor, "n M"]:
        """k_fu: mean_s k(T_s x, Z), float64, for points T_s x of shape (S, n, *event) as :meth:`embed` gives them.

        With weights Σ_s w_s k(T_s x, Z), here and below.
        """
        S, n = points.shape[:2]
        flat, Z = self._centred(points.reshape(S, n, -1)), self._centred(self.inducing)
        fast = self._rbf()
        if fast is not None:
            scale, gamma = fast
            return scale * rbf_cross_mean(flat, Z.to(flat.dtype), gamma.to(flat.dtype), weights).double()
        K = self.kernel(flat.reshape(S * n, -1).double(), Z).to_dense()
        return weighted_mean(K.reshape(S, n, -1), weights)

    def variance(
        self, points: Float[Tensor, "S n *event"], weights: Float[Tensor, " S"] | None = None
    ) -> Float[Tensor, " n"]:
        """k_ff: mean_{s,s'} k(T_s x, T_s' x), float64."""
        S, n = points.shape[:2]
        flat = self._centred(points.reshape(S, n, -1))
        fast = self._rbf()
        if fast is not None:
            scale, gamma = fast
            return scale * rbf_self_mean(flat, gamma.to(flat.dtype), weights).double()
        per_input = flat.transpose(0, 1).double()  # (n, S, D)
        K = self.kernel(per_input, per_input).to_dense()  # (n, S, S)
        return K.mean((-2, -1)) if weights is None else torch.einsum("nst,s,t->n", K, weights.to(K), weights.to(K))

    def covariance(
        self,
        left: Float[Tensor, "S n *event"],
        right: Float[Tensor, "S m *event"],
        rows: int = 16,
        weights: Float[Tensor, " S"] | None = None,
    ) -> Float[Tensor, "n m"]:
        """mean_{s,s'} k(T_s x, T_s' x') between two sets of orbits; ``rows`` inputs at a time."""
        S, m = right.shape[:2]
        columns = self._centred(right.reshape(S * m, -1).double())
        blocks = []
        for block in left.split(rows, dim=1):
            b = block.shape[1]
            K = self.kernel(self._centred(block.reshape(S * b, -1).double()), columns).to_dense()
            K = K.reshape(S, b, S, m)
            w = None if weights is None else weights.to(K)
            blocks.append(K.mean((0, 2)) if w is None else torch.einsum("sbtm,s,t->bm", K, w, w))
        return torch.cat(blocks)

    def bytes_per_input(self, num_samples: int, num_features: int, dtype: torch.dtype) -> int:
        """Memory that the orbit of one input and its kernel need, gradients included.

        The fast path holds orbit, its layout by input, its gradient and one spare; kernel, gradient and one
        spare. GPyTorch's kernels run in float64 and keep about ten arrays of the kernel's size (counted on Matérn).
        """
        M = self.num_features // 2 if self.num_features is not None else len(self.inducing)
        images = 0
        if self.features is not None:  # the orbit, and the activations of a network: about thirty times their input
            images = 32 * num_features * torch.finfo(dtype).bits // 8
            num_features, dtype = self.inducing.shape[1], torch.float64
        if self._in_features:  # the orbit and its gradient; projection, cosines, sines and their gradient
            per_sample = (4 * num_features + 4 * M) * torch.finfo(dtype).bits // 8
        elif self._rbf() is not None:
            per_sample = (4 * num_features + 3 * M + 3 * num_samples) * torch.finfo(dtype).bits // 8
        else:
            per_sample = (8 * num_features + 10 * M + 10 * num_samples) * 8
        return num_samples * (images + per_sample)

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
        """A JSON-able description; ``kernel`` is null for the default, and its text for a user's own.

        Features are the user's own too: with them it is of another type, which no file rebuilds.
        """
        own = (
            {"type": "GaussianProcess"}
            if self.features is None
            else {"type": "FeatureGP", "features": repr(self.features)}
        )
        return {
            **own,
            "kernel": None if self.is_default_kernel else repr(self.kernel),
            "space": self.space,
            "num_inducing": self.num_inducing,
            "learn_inducing": self.learn_inducing,
            "num_features": self.num_features,
        }
