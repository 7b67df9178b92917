"""How well a function that does not change along given generators explains the data.

    h(x) = φ(x)ᵀw,  w ~ N(0, I),    ξ_A h(x) = ∇h(x)ᵀ A x = 0  at points x_1 ... x_M

Given the generators V the weights are conditioned on ξ_A h(x_j) = N(0, (ε c)²) for every A in V and every j, c the
typical speed |ξ h| of a function that was fitted before, and ε the tolerance. With C the features' changes, (k M, R),

    w | V  ~  N(0, Λ⁻¹),    Λ = I + CᵀC / (ε c)²,

so that the features φ̃ = Λ^-½ φ give the evidence of a process that is invariant on the data, in closed form. It depends
on the subspace V alone, not on its basis, and is differentiable in it. Its ratio to the evidence without V is that of
posterior to prior density of "no change along V" (Savage and Dickey). For a group of isometries and a stationary
isotropic kernel such a process is the orbit average over the whole group.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesinv.backbones import GaussianProcess
from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.evidence.gaussian import GaussianEvidence
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.model.hyperparameters import assign, hyperparameters_of, log_prior, vector

__all__ = ["FlowEvidence"]

WEIGHTS = "the precision of weights that do not change along the generators"
Parts = tuple[Tensor, Tensor, Tensor, Tensor]  # ω, amplitudes, cosines and sines of the projections


class FlowEvidence:
    """log p(y | V, u) + log p(u): a Gaussian process that stays as it is along the generators V.

    Args:
        process: in feature space, initialised with the inputs.
        noise: the Gaussian evidence, initialised with the data.
        copies: embedded inputs, (S, n, D), flattened; S > 1 averages the function over a finite group.
        y: targets, (n, C).
        tangents: how the M first inputs move along the basis, (p, M, D).
        tolerance: ε, the share of the typical speed that still counts as none.
    """

    def __init__(
        self,
        process: GaussianProcess,
        noise: GaussianEvidence,
        copies: Float[Tensor, "S n D"],
        y: Float[Tensor, "n C"],
        tangents: Float[Tensor, "p M D"],
        tolerance: float,
    ):
        self.process, self.noise = process, noise
        self.copies = copies - copies.mean((0, 1))
        self.data = Data(copies[0], y)
        self.tangents = tangents
        self.tolerance = tolerance
        self.typical_speed = 1.0  # c², set by the search
        self.hyper = hyperparameters_of([("kernel", process.kernel), ("likelihood", noise.noise_model)])
        self.centre = vector(self.hyper).detach()
        self.evaluations = 0

    def averaged(self, copies: Float[Tensor, "S n D"]) -> FlowEvidence:
        """The same process averaged over other copies of the inputs; it shares every parameter."""
        other = FlowEvidence(self.process, self.noise, copies, self.data.y, self.tangents, self.tolerance)
        other.centre, other.typical_speed = self.centre, self.typical_speed
        return other

    @property
    def num_outputs(self) -> int:
        """C."""
        return self.data.num_outputs

    @property
    def noise_share(self) -> float:
        """The noise at the present hyperparameters, as a share of the targets' variance."""
        return float(self.noise.noise.detach() / self.noise.offset_variance)

    def _parts(self) -> Parts:
        """ω (D, R/2), amplitudes, and the projections' cosines and sines, (S, n, R/2)."""
        if self.process.frequencies is None:
            raise RuntimeError("the process has no frequencies yet; initialise it with the inputs")
        W, a = self.process.frequencies(self.process.kernel)
        projected = self.copies @ W
        return W, a, projected.cos(), projected.sin()

    def _changes(
        self, v: Float[Tensor, "k M D"], W: Tensor, a: Tensor, cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "k M R"]:
        """ξ φ(x_j) along motions v of the first M inputs."""
        M = v.shape[1]
        along = v @ W  # (k, M, R/2)
        return torch.cat([-a * sin[0, :M] * along, a * cos[0, :M] * along], -1)

    def _features(self, V: Float[Tensor, "p k"]) -> tuple[Tensor, Tensor, Parts]:
        """φ at the inputs, (n, R), and Λ, the precision of its weights, (R, R)."""
        W, a, cos, sin = parts = self._parts()
        phi = torch.cat([a * cos.mean(0), a * sin.mean(0)], -1)
        eye = torch.eye(phi.shape[1], dtype=phi.dtype)
        if V.shape[1] == 0:
            return phi, eye, parts
        motions = _no_more_than_dimensions(torch.einsum("pk,pmd->kmd", V, self.tangents))
        C = self._changes(motions, W, a, cos, sin).flatten(0, 1)
        return phi, eye + _gram(C) / (self.tolerance**2 * self.typical_speed), parts

    def log_joint(self, V: Float[Tensor, "p k"]) -> Float[Tensor, ""]:
        """log p(y | V, u) + log p(u) at the present hyperparameters, differentiable.

        Raises:
            NumericalError: a matrix has no Cholesky factor.
        """
        self.evaluations += 1
        phi, precision, _ = self._features(V)
        one, none = phi.new_ones(1, 1), phi.new_zeros(len(precision), 1)
        mean = self.noise.offset_variance.sqrt() * one.expand(len(phi), 1)  # of the targets, which is unknown
        phi = torch.cat([phi, mean], 1)
        precision = torch.cat([torch.cat([precision, none], 1), torch.cat([none.mT, one], 1)])
        value = log_marginal(phi, precision, self.data.y.double() - self.noise.mean, self.noise.noise)
        own = self.process.log_hyperprior() + self.noise.log_hyperprior()
        return value + own + log_prior(self.hyper, self.centre)

    def value_and_gradient(
        self, V: Float[Tensor, "p k"], u: Float[Tensor, " P"]
    ) -> tuple[float, Float[Tensor, "p k"], Float[Tensor, " P"]]:
        """log p(y, u | V) with its gradients in V and in the hyperparameters' coordinates u; −∞ where it fails."""
        assign(self.hyper, u)
        V = V.detach().requires_grad_(True)
        parameters = [h.parameter for h in self.hyper]
        try:
            value = self.log_joint(V)
        except NumericalError:
            return float("-inf"), torch.zeros_like(V), torch.zeros_like(u)
        d_V, *d_parameters = torch.autograd.grad(value, [V, *parameters], allow_unused=True)
        d_u = []
        for h, d in zip(self.hyper, d_parameters, strict=True):
            (slope,) = torch.autograd.grad(h.u().sum(), h.parameter)  # u acts on each entry alone
            d_u.append((torch.zeros_like(slope) if d is None else d / slope).reshape(-1))
        return float(value.detach()), torch.zeros_like(V) if d_V is None else d_V, torch.cat(d_u)

    @torch.no_grad()
    def _posterior(self, V: Float[Tensor, "p k"]) -> tuple[Tensor, Tensor, Tensor, Parts]:
        """Of the whitened weights: mean (R, C) and the Cholesky factor of their precision; and L, and the parts."""
        phi, precision, parts = self._features(V)
        L = cholesky(precision, WEIGHTS)
        white = torch.linalg.solve_triangular(L, phi.mT, upper=False)
        precision = 1.0 / self.noise.noise
        LA = cholesky(torch.eye(len(white), dtype=white.dtype) + precision * (white @ white.mT), "I + VΛVᵀ")
        y = self.data.y.double()
        mean = torch.cholesky_solve(precision * (white @ (y - y.mean(0))), LA)
        return mean, LA, L, parts

    @torch.no_grad()
    def speeds(self, V: Float[Tensor, "p k"], u: Float[Tensor, " P"]) -> tuple[Tensor, Tensor]:
        """mean_j E ξ_i h(x_j) ξ_l h(x_j) under the posterior given V, summed over outputs: means' part and variances'.

        Returns:
            Two matrices (p, p) over the basis of the algebra.
        """
        assign(self.hyper, u)
        mean, LA, L, parts = self._posterior(V)
        changes = self._changes(self.tangents, *parts)  # (p, M, R)
        p, M, R = changes.shape
        X = torch.linalg.solve_triangular(L, changes.reshape(-1, R).mT, upper=False)  # (R, p·M)
        g = (X.mT @ mean).reshape(p, M, -1)
        s = torch.linalg.solve_triangular(LA, X, upper=False).reshape(R, p, M)
        variances = torch.einsum("rim,rjm->ij", s, s) * self.num_outputs
        return torch.einsum("imc,jmc->ij", g, g) / M, variances / M

    @torch.no_grad()
    def mean_function(self, x: Float[Tensor, "m D"], u: Float[Tensor, " P"]) -> Float[Tensor, "m C"]:
        """The posterior mean, less its offset, of the process without generators at embedded inputs."""
        assign(self.hyper, u)
        mean, _, _, (W, a, _, _) = self._posterior(self.tangents.new_zeros(len(self.tangents), 0))
        projected = (x - self.data.x.mean(0)) @ W
        return torch.cat([a * projected.cos(), a * projected.sin()], -1) @ mean


def _no_more_than_dimensions(v: Float[Tensor, "k M D"]) -> Float[Tensor, "l M D"]:
    """min(k, D) motions of each point with the same Σ_k v_k v_kᵀ, which is all that the precision knows of them.

    They are Qᵀv with orthonormal columns Q that span those of v at the point. Q counts as constant: dv leaves their
    span only where it does not change the sum at first order.
    """
    k, _, D = v.shape
    if k <= D:
        return v
    each = v.movedim(1, 0)  # (M, k, D)
    Q = torch.linalg.qr(each.detach())[0]
    return (Q.mT @ each).movedim(0, 1)


class _LogMarginal(torch.autograd.Function):
    """log N(y | 0, φ Λ⁻¹ φᵀ + σ² I), summed over the columns of y."""

    @staticmethod
    def forward(ctx: Any, phi: Tensor, precision: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        n, C = y.shape
        L = cholesky(precision, WEIGHTS)
        after = cholesky(precision + phi.mT @ phi / noise, "the precision of weights after the data")
        mean = torch.cholesky_solve(phi.mT @ y / noise, after)  # (R, C)
        left = y - phi @ mean
        ctx.save_for_backward(phi, L, after, mean, left, noise)
        log_det = 2.0 * (after.diagonal().log().sum() - L.diagonal().log().sum())
        quadratic = (y * left).sum() / noise
        return -0.5 * (C * (n * (2.0 * math.pi * noise).log() + log_det) + quadratic)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        phi, L, after, mean, left, noise = ctx.saved_tensors
        n, C = left.shape
        covariance = torch.cholesky_inverse(after)
        spread = phi @ covariance  # (n, R)
        d_phi = (left @ mean.mT - C * spread) / noise
        d_noise = 0.5 * (C * ((spread * phi).sum() / noise - n) + left.square().sum() / noise) / noise
        d_precision = None
        if ctx.needs_input_grad[1]:
            d_precision = -0.5 * grad * (C * (covariance - torch.cholesky_inverse(L)) + mean @ mean.mT)
        return grad * d_phi, d_precision, -grad * left / noise, grad * d_noise


def log_marginal(
    phi: Float[Tensor, "n R"], precision: Float[Tensor, "R R"], y: Float[Tensor, "n C"], noise: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """log N(y | 0, φ Λ⁻¹ φᵀ + σ² I) of linear models with Gaussian weights, in their space, summed over the columns.

    Args:
        phi: features.
        precision: Λ, of the weights.
        y: targets.
        noise: σ².

    Raises:
        NumericalError: a matrix has no Cholesky factor.
    """
    out: Tensor = _LogMarginal.apply(phi, precision, y, noise)
    return out


class _Gram(torch.autograd.Function):
    """CᵀC, whose derivative is one product, not two."""

    @staticmethod
    def forward(ctx: Any, C: Tensor) -> Tensor:
        ctx.save_for_backward(C)
        return C.mT @ C

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (C,) = ctx.saved_tensors
        return C @ (grad + grad.mT)


def _gram(C: Float[Tensor, "m R"]) -> Float[Tensor, "R R"]:
    out: Tensor = _Gram.apply(C)
    return out
