"""Gram matrices of per-example gradients: the neural tangent kernel of orbit averages, weighted by a prior.

For scalars u_i = Σ_c A_ic f_c(x_i) of the averaged outputs f(x_i) of m examples,

    K_ij = Σ_w σ_w² <∂u_i/∂w, ∂u_j/∂w>,    w over the weight tensors,

differentiable in the points of the orbit and in the prior scales σ_w. One ordinary batched pass records every use of a
weight, and one gradient of Σ_i u_i at the outputs of these uses tells the examples apart: their gradients are products
for linear maps, and convolutions with as many groups as examples for convolutions (Goodfellow, 2015, arXiv:1510.01799;
Rochette, Manoel, Tramel, 2019, arXiv:1912.06015). A weight that is added or multiplied, as in a normalisation, becomes
a copy for each point. Weights with any other use go through ``vmap``: right for any network, but LeNet then
took 1.7 times as long on a CPU. One file past 400 lines: the record, the uses that it knows, and the convolutions'
derivatives are of no use apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import grad, vmap
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bayesinv.backbones.replaced_weights import called_with

Average = Callable[..., Tensor]
Rows = Callable[[Tensor], Tensor]


def example_gram(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    points: Float[Tensor, "S m *event"],
    rows: Rows,
    average: Average | None = None,
    each: Mapping[str, Tensor] | None = None,
) -> tuple[Float[Tensor, "m C"], Float[Tensor, "R m m"]]:
    """The averaged outputs, and the Gram matrix K of the formula above for each of R rows.

    Args:
        net: maps (n, *event) to (n, C), example by example.
        weights: the weight tensors that the Gram matrix runs over, by name; constants.
        scales: prior standard deviation of each.
        points: copies of every example, (S, m, *event).
        rows: from the averaged outputs (m, C) to A of shape (R, m, C), called once. If A depends on the outputs,
            K is differentiated through it too; detach them where that is not wanted.
        average: from the copies' outputs (S, m, C), or maps of them, to (m, C), example by example; the mean if None.
        each: what ``average`` takes beside the outputs, as one mapping: tensors (S, m, ...) with an entry for each
            example in their second axis.

    Returns:
        f (m, C) and K (R, m, m).

    Raises:
        ValueError: there are no weights, one has no scale, or A is not of shape (R, m, C).

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> points = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 2.0]]])  # two copies of two examples
        >>> weights = {"weight": net.weight}
        >>> f, K = example_gram(net, weights, {"weight": torch.tensor(0.5)}, points, lambda f: torch.ones(1, 2, 1))
        >>> K[0].tolist()  # the mean points are (2, 0) and (0, 2), and the prior variance is a quarter
        [[1.0, 0.0], [0.0, 1.0]]
    """
    _check_scales(weights, scales)
    f, gradients = _gradients(net, weights, points, rows, average, each, multiply_out=False)
    with torch.autocast(points.device.type, enabled=False):
        parts = [
            scales[name].to(f).square() * (J.gram() if isinstance(J, _Product) else _self_product(_flat(J)))
            for name, J in gradients.items()
        ]
    return f, torch.stack(parts).sum(0)


def dense_gram(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    points: Float[Tensor, "S m *event"],
    rows: Rows,
    average: Average | None = None,
    each: Mapping[str, Tensor] | None = None,
) -> tuple[Float[Tensor, "m C"], Float[Tensor, "Rm Rm"]]:
    """The same with all rows jointly: one Gram matrix over R·m scalars, row by row."""
    _check_scales(weights, scales)
    f, gradients = example_gradients(net, weights, points, rows, average, each)
    with torch.autocast(points.device.type, enabled=False):
        parts = [scales[name].to(f).square() * _self_product(_flat(J).flatten(0, 1)) for name, J in gradients.items()]
    return f, torch.stack(parts).sum(0)


def example_gradients(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    points: Float[Tensor, "S m *event"],
    rows: Rows,
    average: Average | None = None,
    each: Mapping[str, Tensor] | None = None,
) -> tuple[Float[Tensor, "m C"], dict[str, Tensor]]:
    """The averaged outputs, and ∂u_i/∂w of every weight tensor, (R, m, *shape); arguments as above."""
    f, gradients = _gradients(net, weights, points, rows, average, each, multiply_out=True)
    return f, {name: J for name, J in gradients.items() if isinstance(J, Tensor)}


def _flat(J: Float[Tensor, "R m *shape"]) -> Float[Tensor, "R m numbers"]:
    return J.reshape(*J.shape[:2], -1)  # a scalar weight has no axis to flatten


def _check_scales(weights: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> None:
    missing = [name for name in weights if name not in scales]
    if missing:
        raise ValueError(f"scales: expected one for every weight tensor, got none for {missing}")


@dataclass
class _Product:
    """J_i = Σ_s b_is a_isᵀ of a linear map, not multiplied out: <J_i, J_j> = Σ_st (a_is·a_jt) (b_is·b_jt)."""

    a: Float[Tensor, "S m inputs"]
    b: Float[Tensor, "R S m outputs"]

    def gram(self) -> Float[Tensor, "R m m"]:
        S, m = self.a.shape[:2]
        pairs = _self_product(self.a.flatten(0, 1)) * _self_product(self.b.flatten(1, 2))  # (R, S·m, S·m)
        return pairs.unflatten(2, (S, m)).sum(2).unflatten(1, (S, m)).sum(1)


def _gradients(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    points: Tensor,
    rows: Rows,
    average: Average | None,
    each: Mapping[str, Tensor] | None,
    multiply_out: bool,
    wanted: Sequence[str] | None = None,
) -> tuple[Tensor, dict[str, Tensor | _Product]]:
    """f, and the per-example gradients of every weight tensor that is wanted (None: all), (R, m, *shape)."""
    if not weights:
        raise ValueError("weights: expected at least one weight tensor, got none")
    mean: Average = average if average is not None else lambda outputs: outputs.mean(0)
    outer = torch.is_grad_enabled()
    # Tensors of our own: constants, by whose identity the record knows them.
    own = {name: w.detach() for name, w in weights.items()}
    asked = own if wanted is None else {name: own[name] for name in wanted}
    # In the precision of the points: products of half precision would be left in K, whose determinant is asked for.
    with torch.enable_grad(), torch.autocast(points.device.type, enabled=False):
        record = _Record(asked, points, multiply_out)
        with record:
            outputs = outputs_of(net, own, points)
        f = mean(outputs) if each is None else mean(outputs, each)
        A = checked_rows(rows(f), f)
        found = record.gradients(f, A, create_graph=outer)
        rest = {name: w for name, w in asked.items() if name not in found}
        if rest:
            found |= _by_vmap(net, own, rest, points, A, mean, each)
    if not outer:
        f, found = f.detach(), {name: _detach(J) for name, J in found.items()}
    return f, {name: found[name] for name in asked}


def checked_rows(A: Tensor, f: Float[Tensor, "m C"]) -> Float[Tensor, "R m C"]:
    """A, or a ValueError if it has another shape."""
    if A.ndim != 3 or A.shape[1:] != f.shape or not len(A):
        raise ValueError(f"rows: expected (R, m, C) with m, C = {tuple(f.shape)}, got {tuple(A.shape)}")
    return A


def outputs_of(net: nn.Module, weights: Mapping[str, Tensor], points: Float[Tensor, "S m *event"]) -> Tensor:
    """h_θ of every copy, with weights in place of its own, (S, m, C) or maps of them."""
    outputs = called_with(net, weights, points.flatten(0, 1).clone())  # networks may work in place
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    return outputs.unflatten(0, points.shape[:2])  # (S, m, C), or (S, m, channels, *cells)


def _detach(J: Tensor | _Product) -> Tensor | _Product:
    return _Product(J.a.detach(), J.b.detach()) if isinstance(J, _Product) else J.detach()


def _by_vmap(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    points: Tensor,
    A: Tensor,
    mean: Average,
    each: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    """Per-example gradients of any weights of any network, (R, m, *shape)."""

    def u(some: Mapping[str, Tensor], copies: Tensor, own: Mapping[str, Tensor], a: Tensor) -> Tensor:
        outputs = outputs_of(net, {**weights, **some}, copies[:, None])
        averaged = mean(outputs) if each is None else mean(outputs, {k: v[:, None] for k, v in own.items()})
        return (a * averaged[0]).sum()

    with _AffineApart():
        per_row = [vmap(grad(u), (None, 1, 1, 0))(dict(wanted), points, dict(each or {}), a) for a in A]
    return {name: torch.stack([row[name] for row in per_row]) for name in wanted}


class _AffineApart(TorchFunctionMode):
    """Multiplies and adds outside of normalisations.

    With weights inside, PyTorch 2.15 differentiates the ``vmap`` of their gradients wrongly without a word
    (github.com/pytorch/functorch/issues/534); batch and group normalisations are right.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in _NORMALISATIONS:
            y, factors = _without_factors(func, args, kwargs or {})
            for function, _, shaped in factors:
                y = function(y, shaped)
            return y
        return func(*args, **(kwargs or {}))


_NORMALISATIONS = (F.layer_norm, F.group_norm, F.instance_norm, F.batch_norm)


def _without_factors(
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


class _Record(TorchFunctionMode):
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
            **{func: partial(self.normalisation, func) for func in _NORMALISATIONS},
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
    ) -> dict[str, Tensor | _Product]:
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
        products: dict[str, _Product] = {}
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
                    products[name] = _Product(use.inputs.reshape(shape), torch.stack(b).reshape(len(A), *shape))
                else:
                    found.setdefault(name, []).append(torch.stack([gradient(b_r) for b_r in b]))
        result: dict[str, Tensor | _Product] = {**products}
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
        y, factors = _without_factors(func, args, kwargs)
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


def _self_product(x: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n n"]:
    return _SelfProduct.apply(x)
