"""Kernel scales and noise as latent coordinates with weak priors.

    u = log(θ - low)  for parameters with a lower bound alone (lengthscales, outputscales, noise variances),
    u = the raw value for others,            u ~ N(u_0, s²),

u_0 where the model starts at the scale of the data, so that the unit of the data changes nothing. A GPyTorch prior that
the user registered on a parameter takes the place of the weak one, with the Jacobian of u.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from gpytorch.constraints import GreaterThan, Positive
from jaxtyping import Float
from torch import Tensor, nn

# Standard deviations of the weak priors in u. Lengthscales start at the median distance of the inputs, which has the
# right order; amplitudes and noise start at a guess. Clean labels leave an amplitude without an upper bound: its prior
# ends that.
SCALE_SD, AMPLITUDE_SD = 1.0, 2.0
_AMPLITUDES = ("outputscale", "noise", "constant", "variance")


@dataclass(frozen=True)
class Hyperparameter:
    """One parameter of a kernel or a likelihood, and how it maps to u."""

    name: str
    parameter: nn.Parameter
    constraint: Any  # a GPyTorch constraint, or None
    has_own_prior: bool

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.parameter.numel()

    @property
    def is_logarithmic(self) -> bool:
        """Whether u is a logarithm."""
        return isinstance(self.constraint, Positive | GreaterThan) and math.isinf(float(self.constraint.upper_bound))

    @property
    def sd(self) -> float:
        """Of its weak prior."""
        return AMPLITUDE_SD if any(word in self.name for word in _AMPLITUDES) else SCALE_SD

    def u(self) -> Float[Tensor, " size"]:
        """The coordinate at the parameter's value, differentiable."""
        raw = self.parameter.reshape(-1).double()
        if not self.is_logarithmic:
            return raw
        return torch.log(self.constraint.transform(raw) - self.constraint.lower_bound.double())

    @torch.no_grad()
    def natural(self, u: Float[Tensor, "*draws size"]) -> Float[Tensor, "*draws size"]:
        """The parameter's own value at a coordinate: a lengthscale, a variance."""
        if self.is_logarithmic:
            return self.constraint.lower_bound.double().cpu() + u.exp()
        return u if self.constraint is None else self.constraint.transform(u)

    def log_jacobian(self) -> Float[Tensor, ""]:
        """log |dθ/du|, θ the constrained value, which is what priors of the user's own are over."""
        if self.is_logarithmic:
            return self.u().sum()
        if self.constraint is None:
            return self.parameter.new_zeros((), dtype=torch.float64)
        with torch.enable_grad():
            raw = self.parameter.reshape(-1).double()
            (slope,) = torch.autograd.grad(self.constraint.transform(raw).sum(), raw, create_graph=True)
            return slope.abs().log().sum()

    @torch.no_grad()
    def set(self, u: Float[Tensor, " size"]) -> None:
        """Move the parameter to a coordinate."""
        raw = u.to(self.parameter.device)
        if self.is_logarithmic:
            raw = self.constraint.inverse_transform(self.constraint.lower_bound.double() + raw.exp())
        self.parameter.copy_(raw.reshape(self.parameter.shape))


def hyperparameters_of(parts: Sequence[tuple[str, nn.Module]]) -> list[Hyperparameter]:
    """What is learned in GPyTorch modules, in a fixed order.

    Args:
        parts: (prefix, module).
    """
    found = []
    for prefix, part in parts:
        own = _with_priors(part)
        for path, module in part.named_modules():
            for attribute, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad:
                    constraint = getattr(module, "_constraints", {}).get(f"{attribute}_constraint")
                    name = ".".join(filter(None, (prefix, path, attribute.removeprefix("raw_"))))
                    found.append(Hyperparameter(name, parameter, constraint, id(parameter) in own))
    return found


def _with_priors(part: nn.Module) -> set[int]:
    """Identities of the parameters that a registered prior is on."""
    found = set()
    for _, module in part.named_modules():
        for name, (_, closure, _) in getattr(module, "_priors", {}).items():
            # GPyTorch calls the prior of a parameter "<parameter>_prior"; others are matched by what they depend on.
            raw = getattr(module, f"raw_{name.removesuffix('_prior')}", None)
            if raw is None:
                value = closure(module)
                raw = next((p for p in module.parameters() if torch.equal(p, value)), None)
            if raw is not None:
                found.add(id(raw))
    return found


def vector(hyper: Sequence[Hyperparameter]) -> Float[Tensor, " P"]:
    """u of all of them, on the CPU, differentiable."""
    if not hyper:
        return torch.zeros(0, dtype=torch.float64)
    return torch.cat([h.u() for h in hyper]).cpu()


def assign(hyper: Sequence[Hyperparameter], u: Float[Tensor, " P"]) -> None:
    """Move all of them."""
    for h, part in zip(hyper, u.split([h.size for h in hyper]), strict=True):
        h.set(part)


@contextlib.contextmanager
def at(hyper: Sequence[Hyperparameter], u: Float[Tensor, " P"] | None) -> Iterator[None]:
    """The hyperparameters at u within the block, and back afterwards; None leaves them."""
    if u is None:
        yield
        return
    before = vector(hyper).detach()
    assign(hyper, u)
    try:
        yield
    finally:
        assign(hyper, before)


def log_prior(hyper: Sequence[Hyperparameter], centre: Float[Tensor, " P"]) -> Float[Tensor, ""]:
    """Σ log N(u | u_0, s²) over those without a prior of their own, and the Jacobians of those with one."""
    total = torch.zeros((), dtype=torch.float64)
    for h, middle in zip(hyper, centre.cpu().split([h.size for h in hyper]), strict=True):
        if h.has_own_prior:
            total = total + h.log_jacobian().cpu()
        else:
            total = total + torch.distributions.Normal(middle, h.sd).log_prob(h.u().cpu()).sum()
    return total
