"""log p(D, η, hyperparameters) as a function of one unconstrained vector, for optimisers and samplers.

    θ = (z, u, ζ):   z unconstrained coordinates of the extents (:mod:`bayesinv.extents.unconstrained`), u latent
    coordinates of the hyperparameters, and ζ learned inducing inputs in units of their spread.

The density is the one of the model's own ``forward``; tests hold that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.extents.priors import Outward
from bayesinv.extents.spike_and_slab import SpikeAndSlab
from bayesinv.extents.unconstrained import FURTHEST, Unconstrained
from bayesinv.inference.evaluation_record import EvaluationRecord, described
from bayesinv.model.hyperparameters import assign, vector
from bayesinv.model.invariance_model import InvarianceModel

FURTHEST_HYPER = 12.0  # in u: a factor of e^12 either way


def start_extents(model: InvarianceModel, quantile: float) -> Float[Tensor, " K"]:
    """Extents at a quantile of their priors.

    A prior that pushes outwards has its quantiles at the far end, where no likelihood speaks: its extents start where
    those of a flat one would. One with a spike at zero says itself where to start.
    """
    eta = model.extents.prior_quantile(quantile)
    for k, name in enumerate(model.symmetries):
        prior = model.extents.priors.get(name)
        if isinstance(prior, SpikeAndSlab):
            eta[k] = prior.start(quantile)
        elif isinstance(prior, Outward):
            eta[k] = quantile * prior.high
    return eta


class Target:
    """The log joint density of one model and its data.

    Args:
        model: initialised; its parameters follow the θ that was evaluated last.
        data: all of them.
        extents: held at these, (K,), so that hyperparameters alone are free; None leaves the latent ones free.
        record: of evaluations that a run before this one left, and of those to come; None for none.

    Attributes:
        num_extents: A, how many extents are latent.
        num_hyper: P, numbers that the hyperparameters hold.
        evaluations: how often the evidence was computed.
        share: power of the evidence; below 1 the priors count for more, which keeps a search in their range.
    """

    def __init__(
        self,
        model: InvarianceModel,
        data: Data,
        extents: Float[Tensor, " K"] | None = None,
        record: EvaluationRecord | None = None,
    ):
        self.model, self.data, self.record = model, data, record
        self.space = Unconstrained(model.extents, extents)
        self.hyper = model.hyperparameters
        self.num_extents, self.num_hyper = len(self.space.columns), sum(h.size for h in self.hyper)
        backbone: Any = model.backbone
        learned = getattr(backbone, "learn_inducing", False) and backbone.inducing.requires_grad
        self.inducing: Any = backbone.inducing if learned else None  # a tensor, or None
        if self.inducing is not None:
            self._origin = self.inducing.detach().clone()
            self._spread = backbone.spread
        self._centre = vector(self.hyper).detach()
        self.evaluations = 0
        self.share = 1.0

    @property
    def size(self) -> int:
        """Length of θ."""
        return self.num_extents + self.num_hyper + (0 if self.inducing is None else self.inducing.numel())

    @property
    def bounds(self) -> list[tuple[float | None, float | None]]:
        """A box around where the hyperparameters were at first, far outside of anything that the prior holds likely."""
        z = [(-FURTHEST, FURTHEST)] * self.num_extents
        u = [(c - FURTHEST_HYPER, c + FURTHEST_HYPER) for c in self._centre.tolist()]
        rest = self.size - self.num_extents - self.num_hyper
        return [*z, *u, *[(None, None)] * rest]

    def start(self, quantile: float) -> Float[Tensor, " size"]:
        """θ with every extent at a quantile of its prior, see `start_extents`, and all else as the model has it."""
        eta = start_extents(self.model, quantile)
        theta = torch.zeros(self.size, dtype=torch.float64)
        theta[: self.num_extents] = self.to_z(eta)
        theta[self.num_extents : self.num_extents + self.num_hyper] = vector(self.hyper).detach()
        return theta

    def to_z(self, eta: Float[Tensor, "*draws K"]) -> Float[Tensor, "*draws A"]:
        """z of extents, cut to the box."""
        return self.space.to_z(eta)

    def extents(self, z: Float[Tensor, "*draws A"]) -> Float[Tensor, "*draws K"]:
        """η, fixed ones included."""
        return self.space.extents(z)

    def log_jacobian(self, z: Float[Tensor, "*draws A"]) -> Float[Tensor, "*draws"]:
        """log |dη/dz|."""
        return self.space.log_jacobian(z)

    def move(self, theta: Float[Tensor, " size"]) -> None:
        """Put the model's hyperparameters and inducing inputs where θ says."""
        A, P = self.num_extents, self.num_hyper
        assign(self.hyper, theta[A : A + P])
        if self.inducing is not None:
            with torch.no_grad():
                offset = self._spread * theta[A + P :].reshape(self.inducing.shape)
                self.inducing.copy_(self._origin + offset.to(self._origin))

    def __call__(self, theta: Float[Tensor, " size"], hyperpriors: bool = True) -> float:
        """log p(D, θ), without gradients.

        Args:
            theta: where.
            hyperpriors: whether their priors count; False where hyperparameters are held at learned values.

        Raises:
            NumericalError: it cannot be computed there.
        """
        self.move(theta)

        def compute() -> tuple[float, None]:
            with torch.no_grad():
                value = float(self._log_density(theta[: self.num_extents], hyperpriors))
            return self._checked(value, theta), None

        return self._recorded("value" if hyperpriors else "value without hyperpriors", theta, compute)[0]

    def _recorded(
        self, what: str, theta: Tensor, compute: Callable[[], tuple[float, Tensor | None]]
    ) -> tuple[float, Tensor | None]:
        """What is computed, or what an earlier run found there."""
        if self.record is None:
            return compute()
        name = self.record.name(f"{what}, {self.share}, {len(self.data)}, {described(self.model)}", theta)
        found = self.record.get(name)
        if found is None:
            found = compute()
            self.record.add(name, found)
        elif self.record.is_unchecked():
            self.record.check(found[0], compute()[0])
        else:
            self.evaluations += 1
        return found

    @contextlib.contextmanager
    def evaluating(self, model: InvarianceModel | None) -> Iterator[None]:
        """Within the block values are those of another model that shares every parameter; None for no other."""
        own, self.model = self.model, self.model if model is None else model
        try:
            yield
        finally:
            self.model = own

    def with_gradient(self, theta: Float[Tensor, " size"]) -> tuple[float, Float[Tensor, " size"]]:
        """log p(D, θ) and its gradient.

        Raises:
            NumericalError: it cannot be computed there.
        """
        self.move(theta)
        value, gradient = self._recorded("gradient", theta, lambda: self._with_gradient(theta))
        if gradient is None:
            raise TypeError("expected a gradient")  # the name says that there is one
        return value, gradient

    def _with_gradient(self, theta: Float[Tensor, " size"]) -> tuple[float, Float[Tensor, " size"]]:
        z = theta[: self.num_extents].detach().clone().requires_grad_()
        parameters = [h.parameter for h in self.hyper] + ([] if self.inducing is None else [self.inducing])
        with torch.enable_grad():
            value = self._log_density(z, True)
            wanted = [*([z] if self.num_extents else []), *parameters]
            found = torch.autograd.grad(value, wanted, allow_unused=True)
            gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]
            of_z = gradients[: 1 if self.num_extents else 0]
            of_hyper = []
            for h, gradient in zip(self.hyper, gradients[len(of_z) :], strict=False):
                (slope,) = torch.autograd.grad(h.u().sum(), h.parameter)
                of_hyper.append((gradient / slope).reshape(-1).cpu())
        of_inducing = [] if self.inducing is None else [self._spread * gradients[-1].reshape(-1).double().cpu()]
        total = torch.cat([*of_z, *of_hyper, *of_inducing]).double()
        number = self._checked(float(value.detach()), theta)
        if not bool(torch.isfinite(total).all()):
            raise NumericalError("the gradient of the log evidence is not finite")
        return number, total

    def _log_density(self, z: Tensor, hyperpriors: bool) -> Tensor:
        self.evaluations += 1
        eta = self.extents(z)
        value = self.share * self.model.log_evidence(eta, self.data)
        if self.num_extents:
            value = value + self.model.extents.log_prior(eta) + self.log_jacobian(z)
        return value + self.model.log_hyperprior() if hyperpriors else value

    def _checked(self, value: float, theta: Tensor) -> float:
        if not np.isfinite(value):
            eta = self.extents(theta[: self.num_extents])
            at = ", ".join(f"{n}={e:.3g}" for n, e in zip(self.model.symmetries, eta.tolist(), strict=True))
            raise NumericalError(f"the log evidence is {value} at extents {at}")
        return value

    def differentiable(self, theta: Float[Tensor, " size"]) -> Float[Tensor, ""]:
        """log p(D, θ) as a node of autograd, for samplers that differentiate on their own."""
        value: Tensor = _WithGradient.apply(theta, self.with_gradient)
        return value


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, evaluate: Callable[[Tensor], tuple[float, Tensor]]) -> Tensor:
        value, gradient = evaluate(theta.detach())
        ctx.save_for_backward(gradient)
        return theta.new_tensor(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None
