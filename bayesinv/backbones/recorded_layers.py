"""Layers recorded as they run, so that the gradient of each example follows from their inputs and outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


@dataclass
class Product:
    """J_i = Σ_s b_is a_isᵀ of a linear map, not multiplied out: <J_i, J_j> = Σ_st (a_is·a_jt) (b_is·b_jt)."""

    a: Float[Tensor, "S m inputs"]
    b: Float[Tensor, "R S m outputs"]

    def gram(self) -> Float[Tensor, "R m m"]:
        S, m = self.a.shape[:2]
        pairs = self_product(self.a.flatten(0, 1)) * self_product(self.b.flatten(1, 2))  # (R, S·m, S·m)
        return pairs.unflatten(2, (S, m)).sum(2).unflatten(1, (S, m)).sum(1)


NORMALISATIONS = (F.layer_norm, F.group_norm, F.instance_norm, F.batch_norm)


def without_factors(
    func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, list[tuple[Callable[..., Tensor], Tensor, Tensor]]]:
    """What is normalised, and how it goes on: functions, their weights, and these with axes to broadcast."""
    call = inspect.signature(func).bind(*args, **kwargs)
    given = ((torch.mul, call.arguments.get("weight")), (torch.add, call.arguments.get("bias")))
    call.arguments.update(weight=None, bias=None)
    y = func(*call.args, **call.kwargs)
    trailing = (1,) * (0 if func is F.layer_norm else y.ndim - 2)
    return y, [(function, w, w.reshape(*w.shape, *trailing)) for function, w in given if w is not None]


Gradient = Callable[[Tensor], Tensor]


@dataclass
class _Use:
    """One use of one or two weights: where its gradient arrives, and what that makes of each weight's, (m, *shape)."""

    at: Tensor | GradientEdge
    gradients: dict[str, Gradient]
    inputs: Tensor | None = None
    version: int = 0
    product: str | None = None  # the weight of a linear map that is cheaper not multiplied out

    @property
    def is_intact(self) -> bool:
        """Whether nothing has changed its inputs in place since."""
        return self.inputs is None or self.inputs._version == self.version


class Record(TorchFunctionMode):
    """Sees every function that is called with a weight, and replaces those it can take apart by examples.

    Functions, not modules, so that weights in use outside their layer, twice, or in unknown modules are seen too.
    """

    _BROADCAST: ClassVar[set[Any]] = {
        getattr(owner, name) for owner in (torch, Tensor) for name in ("add", "sub", "mul", "div")
    }

    def __init__(self, weights: Mapping[str, Tensor], points: Float[Tensor, "S m *event"], multiply_out: bool):
        super().__init__()
        self.names = {id(w): name for name, w in weights.items()}
        self.S, self.m = points.shape[:2]
        self.multiply_out = multiply_out
        self.uses: list[_Use] = []
        self.other: set[str] = set()  # weights with uses that cannot be taken apart
        self.zero = points.new_zeros(()).requires_grad_()
        self.known: dict[Any, Callable[..., Tensor | None]] = {
            F.linear: self.linear,
            torch.conv1d: self.convolution,
            torch.conv2d: self.convolution,
            torch.conv3d: self.convolution,
            **{func: partial(self.normalisation, func) for func in NORMALISATIONS},
        }

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        names = {self.names[id(leaf)] for leaf in tree_leaves((args, kwargs)) if id(leaf) in self.names}
        if names:
            inputs = args[0] if args else None
            if func in self._BROADCAST:
                result = self.broadcast(func, args, kwargs)
            elif func in self.known and isinstance(inputs, Tensor) and id(inputs) not in self.names:
                result = self.known[func](*args, **kwargs) if self.is_batch(inputs) else None
            else:
                result = None
            if result is not None:
                return result
            self.other |= names
        return func(*args, **kwargs)

    def is_batch(self, x: Tensor) -> bool:
        """Whether the first axis, and no other one, can be that of the points."""
        return x.ndim > 0 and len(x) == self.S * self.m and len(x) not in x.shape[1:-1]

    def gradients(
        self, f: Float[Tensor, "m C"], A: Float[Tensor, "R m C"], create_graph: bool
    ) -> dict[str, Tensor | Product]:
        """Per-example gradients of the weights whose every use was taken apart, (R, m, *shape)."""
        lost = self.other | {name for use in self.uses if not use.is_intact for name in use.gradients}
        uses = [use for use in self.uses if not lost.issuperset(use.gradients)]
        if not uses or not f.requires_grad:
            return {}
        at: list[Any] = [use.at for use in uses]
        by_row = [
            torch.autograd.grad(f, at, a, create_graph=create_graph, retain_graph=True, allow_unused=True) for a in A
        ]
        found: dict[str, list[Tensor]] = {}
        products: dict[str, Product] = {}
        for use, b in zip(uses, zip(*by_row, strict=True), strict=True):
            if any(b_r is None for b_r in b):  # out of autograd's sight, or of no use: vmap knows which
                lost |= set(use.gradients)
                continue
            for name, gradient in use.gradients.items():
                if name in lost:
                    continue
                alone = sum(name in other.gradients for other in uses) == 1
                if name == use.product and use.inputs is not None and alone:
                    shape = (self.S, self.m, -1)
                    products[name] = Product(use.inputs.reshape(shape), torch.stack(b).reshape(len(A), *shape))
                else:
                    found.setdefault(name, []).append(torch.stack([gradient(b_r) for b_r in b]))
        result: dict[str, Tensor | Product] = {**products}
        result |= {name: parts[0] if len(parts) == 1 else torch.stack(parts).sum(0) for name, parts in found.items()}
        return {name: J for name, J in result.items() if name not in lost}

    def watch(self, y: Tensor, x: Tensor, gradients: dict[str | None, Gradient], product: str | None = None) -> Tensor:
        """y = layer(x), from here on under watch; weights without a name are not asked for."""
        if not torch.is_grad_enabled():
            self.other |= {name for name in gradients if name is not None}
            return y
        y = y if y.requires_grad else y + self.zero  # constant inputs: nothing else asks for a gradient
        named = {name: gradient for name, gradient in gradients.items() if name is not None}
        # An edge and not y itself, which an in-place activation would turn into its own result.
        self.uses.append(_Use(get_gradient_edge(y), named, x, x._version, product))
        return y

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        def per_example(t: Tensor) -> Tensor:
            # (S·m, *positions, features) to (m, S·positions, features)
            return t.reshape(self.S, self.m, -1, t.shape[-1]).transpose(0, 1).flatten(1, 2)

        name = self.name(weight)
        outputs, inputs = weight.shape
        # The Gram matrix costs (S·m)² (in + out) from the factors, and m² in·out from their product.
        cheaper = x.ndim == 2 and not self.multiply_out and self.S**2 * (inputs + outputs) < inputs * outputs
        gradients: dict[str | None, Gradient] = {
            name: lambda b: per_example(b).mT @ per_example(x),
            self.name(bias): lambda b: per_example(b).sum(1),
        }
        return self.watch(F.linear(x, weight, bias), x, gradients, name if cheaper else None)

    def convolution(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        axes = weight.ndim - 2
        if x.ndim != weight.ndim or isinstance(padding, str):
            return None
        geometry = ((v,) * axes if isinstance(v, int) else tuple(v) for v in (stride, padding, dilation))
        options = (*geometry, False, (0,) * axes, groups)  # not transposed

        def weight_gradient(b: Tensor) -> Tensor:
            return _WeightGradients.apply(x, b, (self.m, *weight.shape), *options)

        gradients: dict[str | None, Gradient] = {
            self.name(weight): weight_gradient,
            self.name(bias): lambda b: b.flatten(2).sum(2).unflatten(0, (self.S, self.m)).sum(0),
        }
        return self.watch(_convolution(x, weight, bias, *options), x, gradients)

    def broadcast(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """x + w, w * x and the like, of a weight and something that has the points in its first axis."""
        if len(args) != 2 or not all(isinstance(v, Tensor) for v in args) or "out" in kwargs:
            return None
        first = self.name(args[0]) is not None
        weight, x = args if first else args[::-1]
        N = self.S * self.m
        wide = weight.ndim < x.ndim or (weight.ndim == x.ndim and weight.shape[:1] == (1,))
        if self.name(x) is not None or x.ndim == 0 or len(x) != N or N in x.shape[1:] or not wide:
            return None
        copies = self.copies(weight.reshape(weight.shape[1:]) if weight.ndim == x.ndim else weight, x.ndim, weight)
        return func(copies, x, **kwargs) if first else func(x, copies, **kwargs)

    def normalisation(self, func: Any, *args: Any, **kwargs: Any) -> Tensor | None:
        if func is F.batch_norm and inspect.signature(func).bind(*args, **kwargs).arguments.get("training"):
            return None  # examples that depend on one another: vmap says so
        y, factors = without_factors(func, args, kwargs)
        for function, w, shaped in factors:
            y = function(y, shaped if self.name(w) is None else self.copies(shaped, y.ndim, w))
        return y

    def copies(self, shaped: Tensor, ndim: int, weight: Tensor) -> Tensor:
        """One copy of a weight for each point, (S·m, 1, ..., *shape), whose gradients are those of the points."""
        N, name = self.S * self.m, self.names[id(weight)]
        copies = shaped.expand(N, *(1,) * (ndim - 1 - shaped.ndim), *shaped.shape).detach().requires_grad_()
        gradients: dict[str, Gradient] = {name: lambda b: b.reshape(self.S, self.m, *weight.shape).sum(0)}
        self.uses.append(_Use(copies, gradients))
        return copies

    def name(self, weight: Tensor | None) -> str | None:
        return self.names.get(id(weight))


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
    N = len(x)
    pairs = x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[1] < 3 and N % 2 == 0
    if not pairs:
        return _Convolution.apply(x, weight, bias, *options)
    # Two points as two groups: for one or two input channels, oneDNN's gradient in the inputs takes from one and a half
    # to six times as long without.
    grouped, twice = _by_group(x, 2), None if bias is None else torch.cat([bias, bias])
    y = _Convolution.apply(grouped, torch.cat([weight, weight]), twice, *options[:-1], 2 * options[-1])
    return y.reshape(N, -1, *y.shape[2:])


class _Convolution(torch.autograd.Function):
    """Without derivatives in the weight: PyTorch works out the second ones of a constant weight too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
        ctx.weight, ctx.shape, ctx.options = weight, x.shape, options
        return torch.convolution(x, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return _InputGradient.apply(g, ctx.weight, ctx.shape, *ctx.options), *[None] * 8


class _InputGradient(torch.autograd.Function):
    """The gradient of a convolution in its inputs, from that at its outputs."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor, shape: Any, *options: Any) -> Tensor:
        ctx.weight, ctx.options = weight, options
        return _backward(g, g.new_empty(shape), weight, options, wanted=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return _Convolution.apply(g, ctx.weight, None, *ctx.options), *[None] * 8


class _WeightGradients(torch.autograd.Function):
    """(m, out, in, *kernel) from inputs a and output gradients b of S·m points, one group for each example.

    Its derivatives are here because PyTorch's own take the groups one by one.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, shape: Any, *options: Any) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.options = (*options[:-1], options[-1] * shape[0])  # groups
        empty = a.new_empty(shape).flatten(0, 1)
        return _backward(_by_group(b, shape[0]), _by_group(a, shape[0]), empty, ctx.options, wanted=1).reshape(shape)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        grouped_a, grouped_b, weight = _by_group(a, len(g)), _by_group(b, len(g)), g.flatten(0, 1)
        at_a = at_b = None
        if ctx.needs_input_grad[0]:
            at_a = _backward(grouped_b, grouped_a, weight, ctx.options, wanted=0).reshape(a.shape)
        if ctx.needs_input_grad[1]:
            at_b = torch.convolution(grouped_a, weight, None, *ctx.options).reshape(b.shape)
        return at_a, at_b, *[None] * 7


def _backward(g: Tensor, x: Tensor, weight: Tensor, options: tuple[Any, ...], wanted: int) -> Tensor:
    """The gradient of a convolution in its inputs (wanted = 0) or in its weight (1)."""
    mask = [wanted == 0, wanted == 1, False]
    return torch.ops.aten.convolution_backward(g, x, weight, None, *options, mask)[wanted]


def _by_group(t: Tensor, m: int) -> Tensor:
    """(S·m, channels, ...) to (S, m·channels, ...)."""
    return t.reshape(len(t) // m, -1, *t.shape[2:])


class _SelfProduct(torch.autograd.Function):
    """x xᵀ, whose gradient takes one matrix product where that of ``x @ x.mT`` takes two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x.mT

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (g + g.mT) @ x


def self_product(x: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n n"]:
    return _SelfProduct.apply(x)
