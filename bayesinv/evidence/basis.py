"""f in coordinates whose prior is standard normal: f(x) = V(x)ᵀ v + r(x), v ~ N(0, I).

Random features are such coordinates already, with nothing left over. Inducing values u = L v, L Lᵀ = k_uu, leave a
residual r of variance k_ff - |V|². A constant row of V stands for the unknown mean of each output.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesinv.backbones.exact import ExactPrior
from bayesinv.backbones.grouped import GroupedPrior
from bayesinv.backbones.invariant import InvariantPrior
from bayesinv.backbones.per_output import PerOutputPrior
from bayesinv.evidence.linear_algebra import cholesky

CollapsedPrior = InvariantPrior | PerOutputPrior | GroupedPrior


@dataclass(frozen=True)
class Whitened:
    """The prior at some inputs; V and residual have a leading dimension C where outputs have extents of their own."""

    V: Float[Tensor, "*C M n"]
    residual: Float[Tensor, "*C n"]  # variance that v leaves; zero for features

    @functools.cached_property
    def K(self) -> Float[Tensor, "*C n n"] | None:
        """VᵀV, computed once; None where the inputs outnumber the features, whose algebra has no use for it."""
        return None if self.V.shape[-2] < self.V.shape[-1] else self.V.mT @ self.V

    @property
    def per_output(self) -> bool:
        """Whether every output has a V of its own."""
        return self.V.ndim == 3

    @property
    def residuals(self) -> Float[Tensor, "n G"]:
        """The residual as columns, never negative: one for all outputs, or one for each."""
        rows = self.residual if self.per_output else self.residual[None]
        return rows.mT.clamp_min(0.0)

    def detached(self) -> Whitened:
        """The same without gradients."""
        other = Whitened(self.V.detach(), self.residual.detach())
        if self.__dict__.get("K") is not None:
            other.__dict__["K"] = self.__dict__["K"].detach()
        return other

    def single(self) -> Whitened:
        """The same in float32, without gradients: at half the time, for the first steps of an iteration."""
        other = Whitened(self.V.detach().float(), self.residual.detach().float())
        if self.K is not None:
            other.__dict__["K"] = self.K.detach().float()
        return other

    def with_offset(self, variance: Float[Tensor, ""]) -> Whitened:
        """With one more row, √variance: a constant added to f, N(0, variance) for every output."""
        row = variance.sqrt().to(self.V).expand(*self.V.shape[:-2], 1, self.V.shape[-1])
        return Whitened(torch.cat([self.V, row], -2), self.residual)


class Basis(ABC):
    """Where the coordinates of one evaluation of the evidence come from."""

    @abstractmethod
    def at(self, x: Float[Tensor, n * event], groups: Int[Tensor, " n"] | None = None) -> Whitened:
        """V and the residual of inputs, whose groups are given where groups have extents."""

    @abstractmethod
    def of(self, prior: CollapsedPrior) -> Basis:
        """The same coordinates with another model's prior, which has the same extents and hyperparameters."""


class _Features(Basis):
    """Orbit-averaged random features."""

    def __init__(self, prior: CollapsedPrior):
        self.prior = prior

    def at(self, x: Float[Tensor, n * event], groups: Int[Tensor, " n"] | None = None) -> Whitened:
        prior = self.prior
        phi = prior.features(x, _needed(groups)) if isinstance(prior, GroupedPrior) else prior.features(x)
        return Whitened(phi.mT, phi.new_zeros(phi.shape[:-1]))

    def of(self, prior: CollapsedPrior) -> Basis:
        return _Features(prior)


class _Inducing(Basis):
    """Whitened inducing values."""

    def __init__(self, prior: CollapsedPrior | ExactPrior):
        self.prior = prior
        what = "k(Z, Z), the covariance of the inducing points"
        self.L = cholesky(prior.inducing_covariance(), what, regularise=True)

    def at(self, x: Float[Tensor, n * event], groups: Int[Tensor, " n"] | None = None) -> Whitened:
        prior = self.prior
        if isinstance(prior, GroupedPrior):
            cross, variance = prior.statistics(x, _needed(groups))
        else:
            cross, variance = prior.statistics(x)
        V = torch.linalg.solve_triangular(self.L, cross.mT, upper=False)
        return Whitened(V, variance - (V * V).sum(-2))

    def of(self, prior: CollapsedPrior) -> Basis:
        other = copy.copy(self)
        other.prior = prior
        if isinstance(self.prior, ExactPrior) and isinstance(prior, InvariantPrior):
            other.prior = self.prior.of(prior)
        return other


def basis_of(prior: CollapsedPrior, x: Float[Tensor, n * event]) -> Basis:
    """The coordinates of a prior: its features, its inducing values, or the function's values at x themselves."""
    backbone = prior.backbone
    if backbone.space == "features":
        return _Features(prior)
    if backbone.space == "exact" and isinstance(prior, InvariantPrior):
        return _Inducing(ExactPrior(prior, x))
    return _Inducing(prior)


def _needed(groups: Int[Tensor, " n"] | None) -> Int[Tensor, " n"]:
    if groups is None:
        raise ValueError("this prior has extents for groups; say which example is of which")
    return groups


def whitened_inducing(prior: InvariantPrior, x: Float[Tensor, n * event]) -> Whitened:
    """V and the residual of inducing values, for evidences that keep a distribution over them."""
    return _Inducing(prior).at(x)
