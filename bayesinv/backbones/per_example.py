"""Gram matrices of per-example gradients: the neural tangent kernel of orbit averages, weighted by a prior.

For scalars u_i = Σ_c A_ic f_c(x_i) of the averaged outputs f(x_i) of m examples,

    K_ij = Σ_w σ_w² <∂u_i/∂w, ∂u_j/∂w>,    w over the weight tensors,

differentiable in the points of the orbit and in the prior scales σ_w. ``vmap(grad)`` gives it for any network, but turns
convolutions into grouped ones, which are slow. For linear and convolutional layers the gradient of one example is a
product of the layer's inputs and of the gradient at its outputs, which one ordinary batched pass provides
(Goodfellow, 2015, arXiv:1510.01799); the rest goes through ``vmap``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

Average = Callable[[Tensor], Tensor]
Rows = Callable[[Tensor], Tensor]

_FAST = (nn.Linear, nn.Conv1d, nn.Conv2d)


def example_gram(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    points: Float[Tensor, "S m *event"],
    rows: Rows,
    average: Average | None = None,
) -> tuple[Float[Tensor, "m C"], Float[Tensor, "R m m"]]:
    """The averaged outputs and one Gram matrix for each of R rows.

    Args:
        net: maps (n, *event) to (n, C).
        weights: the weight tensors that the Gram matrix runs over, by name; constants.
        scales: prior standard deviation of each.
        points: copies of every example, (S, m, *event).
        rows: from the averaged outputs (m, C) to A of shape (R, m, C); its own dependence on the points counts too.
        average: from the copies' outputs (S, m, C) to (m, C); the mean if None.

    Returns:
        f (m, C) and K (R, m, m).
    """
    f, gradients = _gradients(net, weights, points, rows, average)
    total: Tensor | int = 0
    for name, J in gradients.items():
        flat = J.flatten(2)  # (R, m, numbers)
        total = total + scales[name].to(flat).square() * (flat @ flat.mT)
    if not isinstance(total, Tensor):
        raise ValueError("weights: expected at least one weight tensor")
    return f, total


def dense_gram(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    points: Float[Tensor, "S m *event"],
    rows: Rows,
    average: Average | None = None,
) -> tuple[Float[Tensor, "m C"], Float[Tensor, "Rm Rm"]]:
    """The same with all rows jointly: one Gram matrix over R·m scalars."""
    f, gradients = _gradients(net, weights, points, rows, average)
    total: Tensor | int = 0
    for name, J in gradients.items():
        flat = J.flatten(2).flatten(0, 1)  # (R·m, numbers)
        total = total + scales[name].to(flat).square() * (flat @ flat.mT)
    if not isinstance(total, Tensor):
        raise ValueError("weights: expected at least one weight tensor")
    return f, total


def _gradients(
    net: nn.Module, weights: Mapping[str, Tensor], points: Tensor, rows: Rows, average: Average | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """f, and for every weight tensor its per-example gradients (R, m, *shape)."""
    outer = torch.is_grad_enabled()
    with torch.enable_grad():
        f, gradients = _with_graph(net, weights, points, rows, average, outer)
    return (f, gradients) if outer else (f.detach(), {name: J.detach() for name, J in gradients.items()})


def _with_graph(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    points: Tensor,
    rows: Rows,
    average: Average | None,
    create_graph: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    mean: Average = average if average is not None else lambda outputs: outputs.mean(0)
    S, m = points.shape[:2]
    fast = _fast_layers(net, weights)
    captured: dict[str, tuple[Tensor, Tensor]] = {}
    calls: Counter[str] = Counter()

    def capture(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            calls[name] += 1
            if not output.requires_grad:
                output.requires_grad_()  # constant inputs: nothing upstream asks for a gradient
            captured[name] = (inputs[0], output)
            return None

        return hook

    handles = [net.get_submodule(name).register_forward_hook(capture(name)) for name in fast]
    try:
        outputs = functional_call(net, dict(weights), (points.flatten(0, 1),))
    finally:
        for handle in handles:
            handle.remove()
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    f = mean(outputs.unflatten(0, (S, m)))  # (m, C)
    A = rows(f)  # (R, m, C); constant for the weights' gradient, but not for that in the points
    layers = [name for name in fast if calls[name] == 1]
    if (
        any(isinstance(net.get_submodule(name), nn.Conv1d | nn.Conv2d) for name in layers)
        and points.device.type == "cpu"
    ):
        layers = []  # measured: on two cores the unfolded product takes a third longer than vmap's grouped convolution
    found: dict[str, list[Tensor]] = {}
    for A_r in A:
        if not layers:
            break
        at_outputs = torch.autograd.grad(
            f, [captured[name][1] for name in layers], A_r, create_graph=create_graph, retain_graph=True
        )
        for name, b in zip(layers, at_outputs, strict=True):
            for weight, J in _layer_gradients(net.get_submodule(name), captured[name][0], b, S, m).items():
                full = f"{name}.{weight}" if name else weight
                if full in weights:
                    found.setdefault(full, []).append(J)
    gradients = {name: torch.stack(parts) for name, parts in found.items()}
    rest = {name: weights[name] for name in weights if name not in gradients}
    if rest:
        gradients |= _by_vmap(net, weights, rest, points, A, mean)
    return f, {name: gradients[name] for name in weights}


def _layer_gradients(layer: nn.Module, a: Tensor, b: Tensor, S: int, m: int) -> dict[str, Tensor]:
    """Per-example gradients of a layer's weight and bias, (m, *shape), from its inputs and output gradients."""
    if isinstance(layer, nn.Linear):
        a, b = a.reshape(S, m, -1, a.shape[-1]), b.reshape(S, m, -1, b.shape[-1])  # (S, m, positions, features)
        a, b = a.transpose(0, 1).flatten(1, 2), b.transpose(0, 1).flatten(1, 2)  # (m, S·positions, features)
        return {"weight": b.mT @ a, "bias": b.sum(1)}
    if isinstance(layer, nn.Conv1d):
        a, b = a[:, :, None], b[:, :, None]  # as pictures of height one
        kernel, padding = (1, *layer.kernel_size), (0, *_padding(layer))
        stride, dilation = (1, *layer.stride), (1, *layer.dilation)
    elif isinstance(layer, nn.Conv2d):
        kernel, padding, stride, dilation = layer.kernel_size, _padding(layer), layer.stride, layer.dilation
    else:
        raise TypeError(f"expected one of {[kind.__name__ for kind in _FAST]}, got {type(layer).__name__}")
    columns = F.unfold(a, kernel, dilation, padding, stride)  # (S·m, in·kernel, positions)
    product = torch.einsum("nop,nkp->nok", b.flatten(2), columns)  # (S·m, out, in·kernel)
    return {
        "weight": product.unflatten(0, (S, m)).sum(0).reshape(m, *layer.weight.shape),
        "bias": b.flatten(2).sum(2).unflatten(0, (S, m)).sum(0),
    }


def _padding(layer: nn.Conv1d | nn.Conv2d) -> tuple[int, ...]:
    if isinstance(layer.padding, str):
        raise TypeError(f"expected numbers, got padding={layer.padding!r}, which is left to vmap")
    return layer.padding


def _fast_layers(net: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Layers whose gradients have the product form, and whose weights belong to nobody else."""
    owners: Counter[int] = Counter()
    for module in net.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)] += 1
    names = []
    for name, module in net.named_modules(remove_duplicate=False):
        if type(module) not in _FAST or any(owners[id(p)] > 1 for p in module.parameters()):
            continue
        if not any((f"{name}.{weight}" if name else weight) in weights for weight in ("weight", "bias")):
            continue
        plain = not isinstance(module, nn.Conv1d | nn.Conv2d) or (
            module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        )
        if plain:
            names.append(name)
    duplicated = Counter(id(net.get_submodule(name)) for name in names)
    return [name for name in names if duplicated[id(net.get_submodule(name))] == 1]


def _by_vmap(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    points: Tensor,
    A: Tensor,
    mean: Average,
) -> dict[str, Tensor]:
    """Per-example gradients of any weights of any network, (R, m, *shape)."""

    def u(some: Mapping[str, Tensor], copies: Tensor, a: Tensor) -> Tensor:
        outputs = functional_call(net, {**weights, **some}, (copies,))
        outputs = outputs[:, None] if outputs.ndim == 1 else outputs
        return (a * mean(outputs[:, None])[0]).sum()

    per_row = [vmap(grad(u), (None, 1, 0))(dict(wanted), points, a) for a in A]
    return {name: torch.stack([row[name] for row in per_row]) for name in wanted}
