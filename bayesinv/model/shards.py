"""The evidence of a Gaussian process whose examples come in shards, on one machine or on many.

A shard is some of the examples, a `Data`; the shards of a process are those that it holds, and every example is in one
of them. Features are linear in the examples and their statistics a sum, so that a value of log p(D | η) costs a pass
over each shard and one message of M² numbers, whatever n is, and its gradient a second pass and a message of as many
numbers as there are extents and hyperparameters. A short message before them asks whether every process has an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.evidence.basis import basis_of
from bayesinv.evidence.collapsed import Conditioned
from bayesinv.evidence.gaussian import GaussianEvidence
from bayesinv.evidence.statistics import FeatureStatistics
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.processes import Processes, current_group

__all__ = ["condition_on_shards", "initialise_on_shards", "log_evidence_of_shards"]

T = TypeVar("T")

# Examples whose inputs start the kernel.
LARGEST_LOOK = 1000


def initialise_on_shards(model: InvarianceModel, shards: Iterable[Data], seed: int = 0) -> int:
    """Start a model at the scale of all examples: means and variance of the targets, kernel from the first shard.

    Args:
        model: of real targets, by a Gaussian process in feature space; changed in place, alike on all processes.
        shards: of this process, such as a list of `Data`; targets (n,) are one column, and a shard without examples is
            skipped. Where ``torch.distributed`` connects several processes, all call this function.
        seed: of what is chosen at random.

    Returns:
        n, of all processes.

    Raises:
        DataError: a process without examples, raised on all. TypeError: a generator, which can be iterated once, or
            shards that are no `Data`. ValueError: a model whose evidence is no sum over examples.
    """
    _check(model)
    _check_iterable(shards)
    group = current_group()
    first: Data | None = None
    sums: Any = 0.0
    for shard in _each(shards):
        first = shard if first is None else first
        y = shard.y.double()
        sums = sums + torch.stack([y.square().sum(0), y.sum(0), torch.full_like(y[0], float(len(y)))])
    first = _checked_examples(first, group)
    if group is not None:
        group.add([sums])
    squares, total, count = sums.unbind(0)
    mean = total / count
    sd = (squares / count - mean.square()).clamp_min(0.0).sqrt()
    x = first.x[: min(len(first) // 2 * 2, LARGEST_LOOK)] if len(first) > 1 else first.x
    if group is not None:
        x = group.from_first(x.cpu).to(first.x.device)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64, device=sd.device).repeat(len(x))[: len(x), None]
    # Inputs of the first shard, with targets that have the mean and the variance of all.
    model.initialise(Data(x, mean + signs * sd), seed, int(count[0]))
    return int(count[0])


def log_evidence_of_shards(
    model: InvarianceModel, eta: Float[Tensor, " K"], shards: Iterable[Data]
) -> Float[Tensor, ""]:
    """log p(D | η) of all examples of all processes, differentiable in η and the hyperparameters.

        G = Σ_shards Σ_i V_i V_iᵀ, ...    (see :class:`~bayesinv.evidence.statistics.FeatureStatistics`)

    Value and gradient are the same on every process, and no more than one shard's features are held at once.

    Args:
        model: initialised, see `initialise_on_shards`.
        eta: extents, (K,), internal units; the same on all processes.
        shards: of this process, such as a list; iterated once for the value and once more for the gradient.

    Raises:
        ValueError: a model whose evidence is no sum over examples: expected ``GaussianProcess(num_features=...)``,
            likelihood="gaussian", and extents in common. NumericalError: the evidence cannot be computed.
            DataError: a process without examples, raised on all; or another number of examples in the second
            iteration. TypeError: a generator, which can be iterated once, or shards that are no `Data`. RankError:
            another process has stopped.

    Example:
        >>> from bayesinv import GaussianProcess
        >>> model = InvarianceModel(GaussianProcess(num_features=16), "rotation", likelihood="gaussian")
        >>> whole = Data(torch.rand(40, 1, 6, 6), torch.rand(40, 1))
        >>> shards = [whole.subset(slice(0, 30)), whole.subset(slice(30, 40))]
        >>> initialise_on_shards(model, shards)
        40
        >>> eta = torch.tensor([0.3], dtype=torch.float64)
        >>> bool(abs(log_evidence_of_shards(model, eta, shards) - model.log_evidence(eta, whole)) < 1e-3)
        True
    """
    evidence = _check(model)
    _check_iterable(shards)
    if not torch.is_grad_enabled():
        return _sum(model, eta, shards, current_group()).log_evidence(evidence.noise).cpu()
    parameters = [h.parameter for h in model.hyperparameters]
    value: Tensor = _OfShards.apply(model, shards, current_group(), eta, *parameters)
    return value


@torch.no_grad()
def condition_on_shards(model: InvarianceModel, eta: Float[Tensor, " K"], shards: Iterable[Data]) -> Conditioned:
    """The function given all examples of all processes; ``.moments(x)`` of it are mean and variance of f(x).

    Args:
        model, eta, shards: as for `log_evidence_of_shards`.
    """
    evidence = _check(model)
    _check_iterable(shards)
    posterior = _sum(model, eta, shards, current_group()).posterior(evidence.noise)
    first = next(_each(shards), None)
    if first is None:
        raise DataError(_other_examples("none"))
    return Conditioned(basis_of(model.at(eta), first.x[:1]), posterior, evidence.mean, evidence.offset_variance)


class _OfShards(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, model: InvarianceModel, shards: Iterable[Any], group: Processes | None, eta: Tensor, *params: Tensor
    ) -> Tensor:
        evidence = _check(model)
        total = _sum(model, eta, shards, group)
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        leaf = eta.detach().clone().requires_grad_()
        leaves = [(leaf, *params)[i] for i in wanted]
        of_total = [t.detach().requires_grad_() for t in total.tensors()[:3]]
        with torch.enable_grad():
            gram, cross, square = of_total
            value = FeatureStatistics(gram, cross, square, total.count).log_evidence(evidence.noise)
            slopes = torch.autograd.grad(value, of_total, retain_graph=True)
            direct = torch.autograd.grad(value, leaves, allow_unused=True)  # in the noise
        sums, seen = [torch.zeros_like(t) for t in leaves], torch.zeros_like(total.count)
        for shard in _each(shards):
            with torch.enable_grad():
                own = _statistics(model, leaf, shard).tensors()[:3]
                reached = [(t, g) for t, g in zip(own, slopes, strict=True) if t.requires_grad]
                kept, at = [t for t, _ in reached], [g for _, g in reached]
                found = torch.autograd.grad(kept, leaves, at, allow_unused=True)
            for sum_, gradient in zip(sums, found, strict=True):
                if gradient is not None:
                    sum_ += gradient
            seen += len(shard)
        if group is not None:
            group.add([*sums, seen])
        if seen != total.count:
            raise DataError(_other_examples(f"{int(seen)} examples after {int(total.count)}"))
        for sum_, gradient in zip(sums, direct, strict=True):
            if gradient is not None:
                sum_ += gradient
        ctx.wanted, ctx.num = wanted, 1 + len(params)
        ctx.save_for_backward(*sums)
        return value.detach().cpu()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor | None] = [None] * ctx.num
        for i, gradient in zip(ctx.wanted, ctx.saved_tensors, strict=True):
            gradients[i] = g.to(gradient) * gradient
        return None, None, None, *gradients


def _check(model: InvarianceModel) -> GaussianEvidence:
    """The evidence of a model that sums over examples."""
    evidence, space = model.evidence, getattr(model.backbone, "space", "")
    if (
        not isinstance(evidence, GaussianEvidence)
        or space != "features"
        or model.structure is not None
        or model.groups is not None
    ):
        raise ValueError(
            f"shards: the evidence of this model ({evidence.name}, {type(model.backbone).__name__}) is no sum over "
            'examples; expected GaussianProcess(num_features=...), likelihood="gaussian" and extents in common'
        )
    return evidence


def _check_iterable(shards: Any) -> None:
    """Raise unless it can be iterated twice."""
    if isinstance(shards, Data) or not isinstance(shards, Iterable):
        cure = "; a single one is [data]" if isinstance(shards, Data) else ""
        raise TypeError(f"shards: expected an iterable of bayesinv.Data, got {_kind(shards)}{cure}")
    if isinstance(shards, Iterator) and iter(shards) is shards:
        raise TypeError(f"shards: expected something that can be iterated twice, such as a list; got {_kind(shards)}")


def _each(shards: Iterable[Any]) -> Iterator[Data]:
    """The shards that hold examples, with targets (n, outputs)."""
    for shard in shards:
        if not isinstance(shard, Data):
            raise TypeError(
                f"shards: expected an iterable of bayesinv.Data, got {_kind(shard)} in it; make each of them Data(x, y)"
            )
        if len(shard) > 0:
            yield Data(shard.x, shard.y[:, None]) if shard.y.ndim == 1 else shard


def _checked_examples(found: T | None, group: Processes | None) -> T:
    """What was found; raises on all processes where one of them has found None."""
    without = [0] if found is None else []
    if group is not None:
        flags = torch.zeros(group.size)
        flags[group.rank] = float(found is None)
        group.add([flags])
        without = flags.nonzero().flatten().tolist()
    if without or found is None:
        where = "" if group is None else f" on {', '.join(f'process {rank}' for rank in without)}"
        raise DataError(f"shards: expected at least one example on every process, got none{where}")
    return found


def _other_examples(found: str) -> str:
    return f"shards: expected the same examples whenever they are iterated, got {found}; make them a list"


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def _statistics(model: InvarianceModel, eta: Tensor, shard: Data) -> FeatureStatistics:
    """Those of one shard, differentiable."""
    evidence = _check(model)
    return FeatureStatistics.of(evidence.whitened(model.at(eta), shard)[1].V, shard.y.double() - evidence.mean)


@torch.no_grad()
def _sum(model: InvarianceModel, eta: Tensor, shards: Iterable[Any], group: Processes | None) -> FeatureStatistics:
    """Those of all shards of all processes."""
    total: FeatureStatistics | None = None
    for shard in _each(shards):
        own = _statistics(model, eta, shard)
        total = own if total is None else total + own
    total = _checked_examples(total, group)
    if group is not None:
        group.add(total.tensors())
    return total
