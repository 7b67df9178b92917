"""Random Fourier frequencies of stationary GPyTorch kernels, differentiable in the kernels' hyperparameters.

    k(x, x') = a² E_ω cos(ωᵀ(x - x'))  ≈  Σ_r a_r² cos(ω_rᵀ(x - x')),    φ(x) = [a_r cos ω_rᵀx ; a_r sin ω_rᵀx]

The base numbers are drawn once; hyperparameters only scale them. Every kernel here is a Gaussian whose squared
frequencies are mixed over a positive g (z ~ N(0, I), ν and α of the kernel):

    RBF           ω = z / ℓ
    Matérn-ν      ω = √g z / ℓ,    1/g ~ χ²_{2ν} / 2ν
    RQ(α)         ω = √g z / ℓ,      g ~ Gamma(α, rate α)

Sums of kernels share the R frequencies out among their terms; products add the frequencies of their factors.

Values of Matérn-1/2 converge as R grows, but gradients do not, neither in its lengthscale nor in x: E|ω| is infinite,
and a few huge frequencies decide them. An optimiser that follows gradients needs ν of at least 3/2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from gpytorch.kernels import (
    AdditiveKernel,
    ConstantKernel,
    Kernel,
    MaternKernel,
    ProductKernel,
    RBFKernel,
    RQKernel,
    ScaleKernel,
)
from jaxtyping import Float
from scipy.special import gammaincinv
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_LARGEST_SOBOL = 16  # inputs up to which quasi-random points beat orthogonal ones
_EDGE = 2.0**-24  # uniform numbers stay this far from 0 and 1, where single precision still tells them from both
_STEP = 1e-5  # of log α; central differences in float64 are then right to 1e-9
_SUPPORTED = "RBFKernel, MaternKernel, RQKernel, ConstantKernel, and ScaleKernel, sums and products of these"


def has_spectral_density(kernel: Kernel) -> bool:
    """Whether `Frequencies` knows the spectral density of a kernel.

    True for RBFKernel, MaternKernel, RQKernel, ConstantKernel (frequency zero), and ScaleKernel, AdditiveKernel and
    ProductKernel of these, without batch shape. False for anything else, subclasses among them, whose ``forward`` may
    be another.

    Example:
        >>> from gpytorch.kernels import LinearKernel
        >>> has_spectral_density(ScaleKernel(RBFKernel()) + ConstantKernel()), has_spectral_density(LinearKernel())
        (True, False)
    """
    return _without_density(kernel) is None


class Frequencies(nn.Module):
    """Frequencies ω_r and amplitudes a_r of a kernel: k(x, x') ≈ Σ_r a_r² cos(ω_rᵀ(x - x')).

    The estimate is unbiased over seeds. Base draws of a term with up to 16 inputs are scrambled Sobol points (Avron et
    al., 2016, arXiv:1412.8293); with more, the directions are blocks of orthogonal matrices (Yu et al., 2016,
    arXiv:1610.09072) and the lengths, like the mixing variable g, are quantiles of Sobol points. Terms of a sum get
    equal shares of the frequencies, and a constant term exactly one, which is zero.

    Args:
        kernel: of the form that `has_spectral_density` takes; only its structure counts here.
        num_inputs: D, numbers of an input.
        num_frequencies: R; at least one for each term of the kernel.
        seed: which base draws.

    Raises:
        ValueError: a kernel without spectral density, or with lengthscales or active dimensions that do not fit the
            inputs; too few inputs or frequencies.

    The state dict holds, all in single precision so that files stay small,

    - ``sizes``: D and R (integers), from which `for_state` makes room for a saved state;
    - ``normal_i`` (D_i, R_i): base draws of the i-th base kernel in the expanded sum of products, read from left to
      right: z, and √g z for Matérn;
    - ``uniform_i`` (R_i,): if it is RQ, the uniform numbers whose quantile is g.

    Example:
        >>> kernel = RBFKernel()
        >>> W, a = Frequencies(kernel, num_inputs=2, num_frequencies=1000, seed=0)(kernel)
        >>> tuple(W.shape), tuple(a.shape)
        ((2, 1000), (1000,))
        >>> x = torch.tensor([[0.0, 0.0], [0.5, -0.3]], dtype=torch.float64)
        >>> phi = torch.cat([a * torch.cos(x @ W), a * torch.sin(x @ W)], -1)
        >>> bool(((phi @ phi.T - kernel(x).to_dense()).abs() < 1e-2).all())
        True
    """

    sizes: Tensor

    def __init__(self, kernel: Kernel, num_inputs: int, num_frequencies: int, seed: int):
        super().__init__()
        if num_inputs < 1:
            raise ValueError(f"num_inputs: expected at least 1, got {num_inputs}")
        terms = _terms(kernel, num_inputs)
        self.num_inputs = num_inputs
        self._signature = _signature(terms)
        self._shares = _shares(terms, num_frequencies)
        self.register_buffer("sizes", torch.tensor([num_inputs, num_frequencies]))
        generator = torch.Generator().manual_seed(seed)
        i = 0
        for term, R in zip(terms, self._shares, strict=True):
            for normal, uniform in _base_draws(term.bases, R, generator):
                self.register_buffer(f"normal_{i}", normal.float())
                if uniform is not None:
                    self.register_buffer(f"uniform_{i}", uniform.float())
                i += 1

    @property
    def num_frequencies(self) -> int:
        """R, the number of columns of W; less than asked for only if every term of the kernel is constant."""
        return sum(self._shares)

    @classmethod
    def for_state(cls, kernel: Kernel, state: Mapping[str, Tensor], prefix: str = "") -> Frequencies:
        """Frequencies with the base draws of a saved state dict.

        Args:
            kernel: of the same structure as the saved one's.
            state: a state dict that holds them.
            prefix: of their names there, as "frequencies.".

        Raises:
            ValueError: there are none in the state.

        Example:
            >>> saved = Frequencies(RQKernel(), 3, 50, seed=7)
            >>> loaded = Frequencies.for_state(RQKernel(), saved.state_dict())
            >>> bool(torch.equal(loaded.normal_0, saved.normal_0))
            True
        """
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if "sizes" not in own:
            raise ValueError(
                f"state: expected {prefix + 'sizes'!r} and base draws beside it, got {sorted(state) or 'nothing'}; "
                "give the state dict of a module that holds a Frequencies"
            )
        num_inputs, num_frequencies = (int(size) for size in own["sizes"])
        frequencies = cls(kernel, num_inputs, num_frequencies, seed=0)
        frequencies.load_state_dict(own)
        return frequencies

    def forward(self, kernel: Kernel) -> tuple[Float[Tensor, "D R"], Float[Tensor, " R"]]:
        """W and a at the present hyperparameters, in float64 and differentiable in them.

        Args:
            kernel: of the structure that the base draws are for.

        Returns:
            W (D, R), whose columns are ω_r, and a (R,), with Σ_r a_r² = k(x, x).

        Raises:
            ValueError: a kernel of another structure, or without spectral density.
        """
        scale, W, amplitudes = self.scaled(kernel)
        return (W if scale is None else scale[:, None] * W), amplitudes

    def scaled(
        self, kernel: Kernel
    ) -> tuple[Float[Tensor, " D_or_1"] | None, Float[Tensor, "D R"], Float[Tensor, " R"]]:
        """The same with what scales the inputs apart, so that W of the commonest kernels has no gradient.

        Returns:
            1/ℓ where the kernel is a single base kernel of all inputs, else None; W, which it multiplies; and a.
        """
        terms = _terms(kernel, self.num_inputs)
        if _signature(terms) != self._signature:
            raise ValueError(
                f"kernel: expected the structure that the frequencies were drawn for, {self._signature}, got "
                f"{_signature(terms)}; draw new ones with Frequencies(kernel, ...)"
            )
        if [len(term.bases) for term in terms] == [1] and terms[0].bases[0].dims == list(range(self.num_inputs)):
            lengthscale: Tensor = terms[0].bases[0].kernel.lengthscale.double()  # (1, D) or (1, 1)
            W, R = self._draws(terms[0].bases[0], 0), self._shares[0]
            return 1.0 / lengthscale.reshape(-1), W, (terms[0].scale(W.device) / R).sqrt().expand(R)
        columns, amplitudes = [], []
        i = 0
        for term, R in zip(terms, self._shares, strict=True):
            W = torch.zeros(self.num_inputs, R, dtype=torch.float64, device=self.sizes.device)
            for base in term.bases:
                omega = self._draws(base, i) / base.kernel.lengthscale.double().reshape(-1, 1)  # (D_i, R_i)
                W = W.index_add(0, torch.tensor(base.dims, device=W.device), omega)
                i += 1
            columns.append(W)
            amplitudes.append((term.scale(W.device) / R).sqrt().expand(R))
        return None, torch.cat(columns, 1), torch.cat(amplitudes)

    def _draws(self, base: _Base, i: int) -> Float[Tensor, "D R"]:
        """Frequencies at lengthscale one."""
        z = self.get_buffer(f"normal_{i}").double()
        if type(base.kernel) is RQKernel:
            alpha = base.kernel.alpha.double().reshape(())
            z = _root_gamma(alpha, self.get_buffer(f"uniform_{i}").double()) * z
        return z


@dataclass
class _Base:
    """A base kernel with a lengthscale, and the inputs that it sees."""

    kernel: Kernel
    dims: list[int]

    def describe(self) -> str:
        nu = f"(nu={self.kernel.nu})" if type(self.kernel) is MaternKernel else ""
        return f"{type(self.kernel).__name__}{nu} of {len(self.dims)} inputs"


@dataclass
class _Term:
    """A product of base kernels and scales: ScaleKernels and ConstantKernels, which it has no more of."""

    scales: list[Kernel]
    bases: list[_Base]

    def scale(self, device: torch.device) -> Float[Tensor, ""]:
        scale = torch.ones((), dtype=torch.float64, device=device)
        for kernel in self.scales:
            value = kernel.constant if type(kernel) is ConstantKernel else kernel.outputscale
            scale = scale * value.double().reshape(())
        return scale


def _without_density(kernel: Kernel) -> str | None:
    """The first part of a kernel whose spectral density is not known, in words; None if there is none."""
    if type(kernel) in (AdditiveKernel, ProductKernel):
        return next((what for part in kernel.kernels if (what := _without_density(part)) is not None), None)
    if len(kernel.batch_shape):
        return f"{type(kernel).__name__} of batch shape {tuple(kernel.batch_shape)}"
    if type(kernel) is ScaleKernel:
        return _without_density(kernel.base_kernel)
    if type(kernel) in (RBFKernel, MaternKernel, RQKernel, ConstantKernel):
        return None
    return type(kernel).__name__


def _terms(kernel: Kernel, num_inputs: int) -> list[_Term]:
    """The kernel as a sum of products.

    Raises:
        ValueError: it has no spectral density, or does not fit the inputs.
    """
    unknown = _without_density(kernel)
    if unknown is not None:
        raise ValueError(
            f"kernel: expected one whose spectral density is known ({_SUPPORTED}; no batch shape, no subclasses), got "
            f"{unknown}; give GaussianProcess(kernel, num_inducing=...) for inducing values, which take any kernel"
        )
    return _expand(kernel, list(range(num_inputs)), selects=True)


def _expand(kernel: Kernel, dims: list[int], selects: bool) -> list[_Term]:
    """Terms of a kernel that sees these inputs; ``selects`` is whether its own active dimensions count.

    They do where GPyTorch calls a kernel. A ScaleKernel takes over the active dimensions of its base kernel, and calls
    no more than its ``forward``.
    """
    if selects and kernel.active_dims is not None:
        active = kernel.active_dims.tolist()
        if any(not 0 <= dim < len(dims) for dim in active):
            raise ValueError(f"active_dims: expected numbers from 0 to {len(dims) - 1}, got {active}")
        dims = [dims[dim] for dim in active]
    if type(kernel) is AdditiveKernel:
        return [term for part in kernel.kernels for term in _expand(part, dims, selects=True)]
    if type(kernel) is ProductKernel:
        factors = [_expand(part, dims, selects=True) for part in kernel.kernels]
        return [
            _Term([s for term in terms for s in term.scales], [base for term in terms for base in term.bases])
            for terms in product(*factors)
        ]
    if type(kernel) is ScaleKernel:
        terms = _expand(kernel.base_kernel, dims, selects=False)
        return [_Term([kernel, *term.scales], term.bases) for term in terms]
    if type(kernel) is ConstantKernel:
        return [_Term([kernel], [])]
    if kernel.ard_num_dims not in (None, len(dims)):
        raise ValueError(
            f"ard_num_dims: expected {len(dims)}, the number of inputs that {type(kernel).__name__} sees, got "
            f"{kernel.ard_num_dims}"
        )
    return [_Term([], [_Base(kernel, dims)])]


def _signature(terms: list[_Term]) -> list[str]:
    return [" * ".join(base.describe() for base in term.bases) or "constant" for term in terms]


def _shares(terms: list[_Term], num_frequencies: int) -> list[int]:
    """Frequencies of every term: one for constants, equal parts of the rest for the others."""
    if num_frequencies < len(terms):
        raise ValueError(
            f"num_frequencies: expected at least {len(terms)}, one for each term of the kernel, got {num_frequencies}"
        )
    varying = sum(bool(term.bases) for term in terms)
    each, left = divmod(num_frequencies - (len(terms) - varying), max(varying, 1))
    shares = []
    for term in terms:
        shares.append(each + (left > 0) if term.bases else 1)
        left -= bool(term.bases)
    return shares


def _base_draws(bases: list[_Base], R: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor | None]]:
    """z (D_i, R), times √g for Matérn, and for RQ the uniform numbers (R,) of √g, for every factor of a term.

    One Sobol set serves all factors of a product: sets of different scrambling share their digits' order, so that
    pairs of their points would leave most of the square empty.
    """
    if not bases:
        return []
    directions = [len(base.dims) if len(base.dims) <= _LARGEST_SOBOL else 1 for base in bases]
    widths = [n + (type(base.kernel) is not RBFKernel) for n, base in zip(directions, bases, strict=True)]
    seed = int(torch.randint(2**31, (), generator=generator))
    engine = torch.quasirandom.SobolEngine(sum(widths), scramble=True, seed=seed)
    unit = engine.draw(R, dtype=torch.float64).T.clamp(_EDGE, 1.0 - _EDGE)  # (Σ widths, R)
    draws: list[tuple[Tensor, Tensor | None]] = []
    for base, n, own in zip(bases, directions, unit.split(widths), strict=True):
        D = len(base.dims)
        if D <= _LARGEST_SOBOL:
            z = torch.special.ndtri(own[:D])
        else:
            lengths = torch.from_numpy(gammaincinv(0.5 * D, own[0].numpy())).mul(2.0).sqrt()  # of chi with D degrees
            z = _directions(D, R, generator) * lengths
        if type(base.kernel) is MaternKernel:
            nu = base.kernel.nu
            z = z * torch.from_numpy(gammaincinv(nu, own[n].numpy())).div(nu).rsqrt()  # χ²_{2ν} / 2ν = Gamma(ν, 1) / ν
        draws.append((z, own[n] if type(base.kernel) is RQKernel else None))
    return draws


def _directions(D: int, R: int, generator: torch.Generator) -> Float[Tensor, "D R"]:
    """Unit vectors, each uniform on the sphere, orthogonal within blocks of D columns."""
    blocks = []
    for _ in range(math.ceil(R / D)):
        Q, upper = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64))
        blocks.append(Q * upper.diagonal().sign())  # of the Haar measure, as QR's own choice of signs is not
    return torch.cat(blocks, 1)[:, :R]


class _RootGamma(torch.autograd.Function):
    """√g, g the quantiles of Gamma(α, rate α) at fixed uniform numbers."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, uniform: Tensor) -> Tensor:
        ctx.save_for_backward(alpha, uniform)
        return _root_quantile(float(alpha), uniform)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        alpha, uniform = ctx.saved_tensors
        at = float(alpha)
        step = _root_quantile(at * (1.0 + _STEP), uniform) - _root_quantile(at * (1.0 - _STEP), uniform)
        return torch.dot(grad, step / (2.0 * _STEP * at)).reshape(alpha.shape), None


def _root_quantile(alpha: float, uniform: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    g = torch.from_numpy(gammaincinv(alpha, uniform.cpu().numpy())).div(alpha)
    return g.sqrt().to(uniform.device)


def _root_gamma(alpha: Float[Tensor, ""], uniform: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    out: Tensor = _RootGamma.apply(alpha, uniform)
    return out
