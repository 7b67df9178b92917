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

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.overrides import TorchFunctionMode

from bayesinv.backbones.recorded_layers import NORMALISATIONS, Product, Record, self_product, without_factors
from bayesinv.backbones.replaced_weights import called_with
from bayesinv.numerics.processes import Processes, gathered, shared_by

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
    f, gradients = _gradients_of_all(net, weights, points, rows, average, each, multiply_out=False)
    with torch.autocast(points.device.type, enabled=False):
        parts = [
            scales[name].to(f).square() * (J.gram() if isinstance(J, Product) else self_product(_flat(J)))
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
        parts = [scales[name].to(f).square() * self_product(_flat(J).flatten(0, 1)) for name, J in gradients.items()]
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
    f, gradients = _gradients_of_all(net, weights, points, rows, average, each, multiply_out=True)
    return f, {name: J for name, J in gradients.items() if isinstance(J, Tensor)}


def _flat(J: Float[Tensor, "R m *shape"]) -> Float[Tensor, "R m numbers"]:
    return J.reshape(*J.shape[:2], -1)  # a scalar weight has no axis to flatten


def _check_scales(weights: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> None:
    missing = [name for name in weights if name not in scales]
    if missing:
        raise ValueError(f"scales: expected one for every weight tensor, got none for {missing}")


def _gradients_of_all(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    points: Tensor,
    rows: Rows,
    average: Average | None,
    each: Mapping[str, Tensor] | None,
    multiply_out: bool,
) -> tuple[Tensor, dict[str, Tensor | Product]]:
    """`_gradients`; where processes share the work, each takes its own examples and all get those of all."""
    m = points.shape[1]
    group = shared_by(m)
    if group is None:
        return _gradients(net, weights, points, rows, average, each, multiply_out)
    part = group.part(m)
    own = None if each is None else {name: value[:, part] for name, value in each.items()}

    def own_rows(f: Tensor) -> Tensor:
        return rows(with_others(f, m, group))[:, part]  # what is drawn, as one process would draw it

    f, found = _gradients(net, weights, points[:, part], own_rows, average, own, multiply_out)
    whole: dict[str, Tensor | Product] = {}
    for name, J in found.items():
        if isinstance(J, Product):
            whole[name] = Product(gathered(J.a, m, 1, group), gathered(J.b, m, 2, group))
        else:
            whole[name] = gathered(J, m, 1, group)
    return gathered(f, m, 0, group), whole


def with_others(f: Float[Tensor, "own C"], num: int, group: Processes) -> Float[Tensor, "m C"]:
    """The outputs of all examples, of which those of other processes are constants."""
    others, part = gathered(f.detach(), num, 0, group), group.part(num)
    return torch.cat([others[: part.start], f, others[part.stop :]])


def _gradients(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    points: Tensor,
    rows: Rows,
    average: Average | None,
    each: Mapping[str, Tensor] | None,
    multiply_out: bool,
    wanted: Sequence[str] | None = None,
) -> tuple[Tensor, dict[str, Tensor | Product]]:
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
        record = Record(asked, points, multiply_out)
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


def _detach(J: Tensor | Product) -> Tensor | Product:
    return Product(J.a.detach(), J.b.detach()) if isinstance(J, Product) else J.detach()


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
        if func in NORMALISATIONS:
            y, factors = without_factors(func, args, kwargs or {})
            for function, _, shaped in factors:
                y = function(y, shaped)
            return y
        return func(*args, **(kwargs or {}))
