"""A deep kernel: a network whose last layer is a Gaussian process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, overload

import torch
from gpytorch.kernels import Kernel, MaternKernel, RBFKernel, ScaleKernel
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones.gp import GaussianProcess
from bayesinv.backbones.network import START_GAIN, NeuralNetwork
from bayesinv.errors import DataError, first_line
from bayesinv.numerics.randomness import seeded

# On the diagonal of k(Z, Z), which is one: the share of the prior variance that is lost at a point of Z. Below it the
# Cholesky factor, and with it every ψ, turns by large angles when the features move a little; results on digits are the
# same from 1e-3 to 1e-1.
JITTER = 1e-3
DEFAULT_INDUCING = 64  # of a last layer that is trained; a product with 64 features costs little beside a network
# Added to squared distances under a root, in lengthscales: its derivative at zero stays finite.
SMALLEST_SQUARE = 1e-12


class InducingFeatures(nn.Module):
    """√M ψ(φ), ψ = L⁻¹ k(Z, φ), L Lᵀ = k(Z, Z): M features whose inner product is a kernel of unit variance.

    A linear layer on them with weights of prior variance g²/M is the Gaussian process g² k, seen through Z: the fan-in
    rule of :class:`NeuralNetwork`, and its gain g is the amplitude. Free of in-place operations and of branches on
    the data, so that ``torch.func`` goes through it; the algebra is in float64.

    Args:
        num_inducing: M.
        nu: smoothness of a Matérn kernel, 0.5, 1.5 or 2.5; infinity is the squared exponential.
        lengthscale: where it starts.

    Example:
        >>> layer, points = InducingFeatures(3), torch.tensor([[0.0], [1.0], [2.0]])
        >>> psi = layer(points[::2], points)
        >>> (psi @ psi.mT / 3).detach()  # nearly 1 on the diagonal, exp(-2² / 2) beside it
        tensor([[0.9990, 0.1353],
                [0.1353, 0.9990]])
    """

    def __init__(self, num_inducing: int, nu: float = math.inf, lengthscale: float = 1.0):
        super().__init__()
        self.nu = nu
        self.scale = math.sqrt(num_inducing)
        self.log_lengthscale = nn.Parameter(torch.full((1,), math.log(lengthscale)))

    def correlation(self, left: Float[Tensor, "m D"], right: Float[Tensor, "n D"]) -> Float[Tensor, "m n"]:
        """k of unit variance."""
        left, right = (side * torch.exp(-self.log_lengthscale.double()) for side in (left, right))
        squares = left.square().sum(-1)[:, None] + right.square().sum(-1) - 2.0 * left @ right.mT
        squares = squares.clamp_min(0.0)
        if self.nu == math.inf:
            return torch.exp(-0.5 * squares)
        r = torch.sqrt(2.0 * self.nu * squares + SMALLEST_SQUARE)
        polynomial = {0.5: torch.ones_like(r), 1.5: 1.0 + r, 2.5: 1.0 + r + r.square() / 3.0}[self.nu]
        return polynomial * torch.exp(-r)

    def forward(self, phi: Float[Tensor, "n ..."], Z: Float[Tensor, "M ..."]) -> Float[Tensor, "n M"]:
        """√M ψ of features φ(x), both flattened."""
        dtype = phi.dtype
        phi, Z = phi.flatten(1).double(), Z.flatten(1).double()
        identity = torch.eye(len(Z), dtype=Z.dtype, device=Z.device)
        L = torch.linalg.cholesky_ex(self.correlation(Z, Z) + JITTER * identity)[0]
        psi = torch.linalg.solve_triangular(L, self.correlation(Z, phi), upper=False)  # (M, n)
        return (self.scale * psi.mT).to(dtype)


class _FeaturesAndProcess(nn.Module):
    """h(x) = head(√M ψ(φ(x))), Z = φ(x_Z) of a buffer of inputs x_Z."""

    inputs: Tensor

    def __init__(self, features: nn.Module, basis: InducingFeatures, num_inducing: int, num_outputs: int):
        super().__init__()
        self.features, self.basis = features, basis
        own = next((p.dtype for p in features.parameters() if p.is_floating_point()), torch.get_default_dtype())
        with seeded(0):  # drawn anew where the data are met
            self.head = nn.Linear(num_inducing, num_outputs, bias=False, dtype=own)
        self.register_buffer("inputs", torch.empty(0))

    def forward(self, x: Float[Tensor, n * event]) -> Float[Tensor, "n C"]:
        if self.inputs.ndim < 2:
            raise RuntimeError(
                "a deep kernel takes its inducing inputs from the data: fit it, or call initialise() first"
            )
        # Two calls, so that the copies of x stay a batch of their own for whoever reads the layers' inputs; a copy
        # of the buffer, since features may work in place.
        out: Tensor = self.head(self.basis(self.features(x), self.features(self.inputs.clone())))
        return out

    def place(self, inputs: Tensor, num_outputs: int) -> None:
        """Take over x_Z, with a new last layer of as many rows."""
        weight = self.head.weight
        self.inputs = inputs.detach().clone()
        self.head = nn.Linear(len(inputs), num_outputs, bias=False).to(weight.device, weight.dtype)


class DeepKernelNetwork(NeuralNetwork):
    """What :func:`DeepKernel` makes to be trained: features, inducing features, and a linear layer.

    Args:
        features: the user's network φ.
        basis: the inducing features.
        amplitude: where the prior standard deviation of h(x) starts.
        from_data: whether the lengthscale starts at the median distance of the first features.
        num_inducing: M.
        num_outputs: C; None takes it from the data.
    """

    net: Any  # _FeaturesAndProcess

    def __init__(
        self,
        features: nn.Module,
        basis: InducingFeatures,
        amplitude: float,
        from_data: bool,
        num_inducing: int,
        num_outputs: int | None,
    ):
        super().__init__(_FeaturesAndProcess(features, basis, num_inducing, num_outputs or 1))
        self.num_inducing, self.num_outputs, self._from_data = num_inducing, num_outputs, from_data
        self._wanted_outputs = num_outputs or 1
        with torch.no_grad():
            self.log_scales[self._group["head.weight"]] = math.log(amplitude)

    def prepare(self, num_outputs: int) -> None:
        """Make as many outputs as the data have, unless their number was given."""
        self._wanted_outputs = self.num_outputs or num_outputs

    def initialise(self, x: Float[Tensor, n * event], output_variance: float, seed: int) -> int:
        """Take a random subset of x as inducing inputs; returns the number of outputs.

        Raises:
            DataError: the network cannot take these inputs, or gives no features for each.
        """
        with torch.no_grad(), seeded(seed):
            chosen = torch.randperm(len(x))[: self.num_inducing]
            inputs = x[chosen.to(x.device)].to(self.dtype)
            try:
                phi = self.net.features(inputs.clone())
            except Exception as error:
                raise DataError(
                    f"the network failed on inputs of shape {tuple(inputs.shape)}: {first_line(error)}"
                ) from error
            if not isinstance(phi, Tensor) or phi.ndim < 2 or len(phi) != len(inputs):
                came = f"shape {tuple(phi.shape)}" if isinstance(phi, Tensor) else type(phi).__name__
                raise DataError(f"the network has to return (n, D) features, here n = {len(inputs)}, but {came} came")
            self.net.place(inputs, self._wanted_outputs)
            distances = torch.pdist(phi.flatten(1).double())
            positive = distances[distances > 0]
            if self._from_data and len(positive):
                self.net.basis.log_lengthscale.fill_(float(positive.median().log()))
        return super().initialise(x, output_variance, seed)

    def prepare_state(self, state: Mapping[str, Tensor]) -> None:
        """Make room for the inducing inputs and the outputs of a saved state."""
        super().prepare_state(state)
        with seeded(0):
            inputs = torch.zeros_like(state["net.inputs"], device=self.log_scales.device)
            self.net.place(inputs, len(state["net.head.weight"]))

    def config(self) -> dict[str, Any]:
        """A JSON-able description; the features are the user's own."""
        return {
            "type": "DeepKernel",
            "net": repr(self.net.features),
            "prior": self.prior,
            "nu": None if self.net.basis.nu == math.inf else self.net.basis.nu,
            "num_inducing": self.num_inducing,
            "num_outputs": self.num_outputs,
        }


@overload
def DeepKernel(
    net: nn.Module,
    kernel: Kernel | None = None,
    num_inducing: int | None = None,
    num_outputs: int | None = None,
    frozen: Literal[False] = False,
) -> DeepKernelNetwork: ...
@overload
def DeepKernel(
    net: nn.Module,
    kernel: Kernel | None = None,
    num_inducing: int | None = None,
    num_outputs: int | None = None,
    *,
    frozen: Literal[True],
) -> GaussianProcess: ...
def DeepKernel(
    net: nn.Module,
    kernel: Kernel | None = None,
    num_inducing: int | None = None,
    num_outputs: int | None = None,
    frozen: bool = False,
) -> DeepKernelNetwork | GaussianProcess:
    """h(x) = g(φ(x)), g ~ GP(0, k): a Gaussian process on the features of a network.

    Trained, the last layer is h(x) = Σ_m v_m ψ_m(φ(x)) with ψ = L⁻¹ k(Z, ·) and v ~ N(0, a²), which is the process seen
    through M inducing points. It is a network like any other: one Laplace evidence is taken over all its weights,
    neural and Gaussian process alike, and a is learned as the gain of its layer. (Features trained with the evidence
    of their last layer alone let noise and extents go to zero.) The log lengthscale counts as a weight too. Z are no
    parameters but the features of M training inputs, Z = φ(x_Z), which move as the features do: as weights of their
    own the features left them behind, the kernel vanished, and with it every gradient. Real targets should be
    centred; the process has mean zero.

    Frozen, the features stay as they are and the process on them has its collapsed evidence:
    ``GaussianProcess(kernel, features=net)``.

    Args:
        net: φ, from (n, *event) to features (n, D); copied.
        kernel: ``RBFKernel`` or ``MaternKernel`` with one lengthscale, alone or in a ``ScaleKernel``; its values are
            the starts. None is a squared exponential that starts at the median distance of the features. With
            frozen=True any GPyTorch kernel.
        num_inducing: M; never more than the number of inputs. None is 64; with frozen=True random features of the
            kernel where it has a spectral density, as ``GaussianProcess(num_inducing="auto")``.
        num_outputs: classes or target columns; None takes them from the data.
        frozen: whether the features are left alone.

    Raises:
        TypeError: not a module, or a kernel that cannot be trained with a network.
        ValueError: fewer than one inducing point or output, priors on the kernel (weights have their own), or
            num_outputs with frozen=True.

    Reference:
        A. G. Wilson, Z. Hu, R. Salakhutdinov, E. P. Xing (2016). Deep kernel learning. arXiv:1511.02222.
        S. W. Ober, C. E. Rasmussen, M. van der Wilk (2021). The promises and pitfalls of deep kernel learning.
        arXiv:2102.12108.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh())
        >>> sorted(DeepKernel(net).weights())
        ['basis.log_lengthscale', 'features.1.bias', 'features.1.weight', 'head.weight']
        >>> type(DeepKernel(net, MaternKernel(nu=2.5), frozen=True)).__name__
        'GaussianProcess'
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net: expected a torch.nn.Module, got {type(net).__name__}")
    if num_inducing is not None and num_inducing < 1:
        raise ValueError(f"num_inducing: expected at least 1 or None, got {num_inducing}")
    if num_outputs is not None and num_outputs < 1:
        raise ValueError(f"num_outputs: expected at least 1 or None, got {num_outputs}")
    if frozen:
        if num_outputs is not None:
            raise ValueError("num_outputs: with frozen=True the data say how many; leave it out")
        return GaussianProcess(kernel, "auto" if num_inducing is None else num_inducing, features=net)
    num_inducing = DEFAULT_INDUCING if num_inducing is None else num_inducing
    if kernel is None:
        basis = InducingFeatures(num_inducing)
        return DeepKernelNetwork(net, basis, START_GAIN, True, num_inducing, num_outputs)
    nu, lengthscale, amplitude = _read(kernel)
    basis = InducingFeatures(num_inducing, nu, lengthscale)
    return DeepKernelNetwork(net, basis, amplitude, False, num_inducing, num_outputs)


def _read(kernel: Kernel) -> tuple[float, float, float]:
    """(ν, lengthscale, amplitude) of an isotropic kernel."""
    inner, amplitude = kernel, 1.0
    if type(kernel) is ScaleKernel and kernel.active_dims is None and not kernel.batch_shape:
        inner, amplitude = kernel.base_kernel, math.sqrt(float(kernel.outputscale.detach()))
    kinds = (RBFKernel, MaternKernel)
    if (
        type(inner) not in kinds
        or inner.ard_num_dims not in (None, 1)
        or inner.active_dims is not None
        or inner.batch_shape
    ):
        raise TypeError(
            "kernel: trained with a network it has to be an RBFKernel or MaternKernel with one lengthscale, alone or "
            f"in a ScaleKernel, got {type(inner).__name__}; with frozen=True any GPyTorch kernel works"
        )
    if any(True for _ in kernel.named_priors()):
        raise ValueError(
            "kernel: priors on its parameters do not count here, where weights have their own; remove them"
        )
    nu = float(inner.nu) if isinstance(inner, MaternKernel) else math.inf
    return nu, float(inner.lengthscale.detach()), amplitude
