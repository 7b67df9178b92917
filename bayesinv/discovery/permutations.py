"""Coordinates that may change places: proposed by the fitted function, weighed by the evidence of its average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from itertools import permutations as all_permutations

import numpy as np
import scipy.optimize
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.discovery.evidence import FlowEvidence

__all__ = ["FoundPermutation", "find_permutations", "generated"]

MOST_LISTED = 4  # coordinates up to which every permutation is a candidate; above, exchanges of two
MOST_WEIGHED = 12  # candidates whose evidence is computed
LARGEST_CHANGE = 0.5  # E (f(x) - f(Px))² / 2 var f from which on a permutation is not weighed: 1 is no relation at all
LARGEST_GROUP = 24  # elements that are averaged exactly

Order = tuple[int, ...]


@dataclass(frozen=True)
class FoundPermutation:
    """One permutation of the coordinates, and what the data say about it.

    Attributes:
        order: entry i of the result is entry order[i] of the example.
        name: such as "exchange of a and b".
        log_bf: log p(D | invariant under it) - log p(D | not), nats.
        probability: with prior odds of one over the number of candidates.
    """

    order: Order
    name: str
    log_bf: float
    probability: float


def generated(orders: Sequence[Order], most: int = LARGEST_GROUP) -> tuple[Order, ...]:
    """The group that permutations generate, the identity first; empty where it has more than `most` elements.

    Example:
        >>> len(generated([(1, 0, 2), (0, 2, 1)]))
        6
    """
    if not orders:
        return ()
    identity = tuple(range(len(orders[0])))
    group, fresh = {identity}, [identity]
    while fresh:
        element = fresh.pop()
        for order in orders:
            product = tuple(element[i] for i in order)
            if product not in group:
                if len(group) == most:
                    return ()
                group.add(product)
                fresh.append(product)
    return tuple(sorted(group))


def find_permutations(
    evidence: FlowEvidence,
    x: Float[Tensor, n * event],
    u: Float[Tensor, " P"],
    log_joint: float,
    embed: Callable[[Tensor], Tensor],
    axes: Sequence[str],
) -> tuple[tuple[FoundPermutation, ...], tuple[Order, ...]]:
    """Permutations of the last axis that the data prefer, likely ones first, and the group that they generate.

    Args:
        evidence: of the process without generators.
        x: the inputs.
        u, log_joint: its hyperparameters, and log p(y, u) there.
        embed: inputs as the process sees them, (n, D).
        axes: names of the coordinates.
    """
    d = x.shape[-1]
    plain = evidence.mean_function(embed(x), u)
    spread = 2.0 * plain.var(0).sum().clamp_min(1e-300)

    def change(order: Order) -> float:
        return float((evidence.mean_function(embed(x[..., list(order)]), u) - plain).square().mean(0).sum() / spread)

    candidates = _candidates(d)
    by_change = sorted((change(order), order) for order in candidates)
    found = []
    for size, order in by_change[:MOST_WEIGHED]:
        if size > LARGEST_CHANGE:
            break
        group = generated([order])
        log_bf = _log_joint(evidence, x, u, embed, group) - log_joint
        odds = log_bf - float(np.log(len(candidates)))
        probability = 1.0 / (1.0 + float(np.exp(-np.clip(odds, -500.0, 500.0))))
        if probability > 0.5:
            found.append(FoundPermutation(order, _name(order, axes), log_bf, probability))
    found.sort(key=lambda p: (-p.log_bf, p.order))
    # Together: taken in one by one while the evidence of the whole group says so.
    taken: list[Order] = []
    best, group = log_joint, ()
    for permutation in found:
        if permutation.order in group:
            continue
        larger = generated([*taken, permutation.order])
        if larger:
            value = _log_joint(evidence, x, u, embed, larger)
            if value > best - 1.0:  # the group that two exchanges make is entailed, and need not be better
                taken, group, best = [*taken, permutation.order], larger, max(best, value)
    return tuple(p for p in found if p.order in group), group


def _candidates(d: int) -> list[Order]:
    identity = tuple(range(d))
    if d <= MOST_LISTED:
        orders = [p for p in all_permutations(range(d)) if p != identity]
        return [p for p in orders if p <= tuple(p.index(i) for i in range(d))]  # one of each and its inverse
    exchanged = []
    for i, j in combinations(range(d), 2):
        order = list(identity)
        order[i], order[j] = j, i
        exchanged.append(tuple(order))
    return exchanged


def _log_joint(
    evidence: FlowEvidence, x: Tensor, u: Tensor, embed: Callable[[Tensor], Tensor], group: Sequence[Order]
) -> float:
    """The best log p(y, u) of the process averaged over a group, near u."""
    averaged = evidence.averaged(torch.stack([embed(x[..., list(order)]) for order in group]))
    none = x.new_zeros(len(evidence.tangents), 0, dtype=torch.float64)

    def objective(t: np.ndarray) -> tuple[float, np.ndarray]:
        value, _, d_u = averaged.value_and_gradient(none, torch.as_tensor(t))
        return (-value, -d_u.numpy()) if np.isfinite(value) else (1e10, np.zeros(len(t)))

    result = scipy.optimize.minimize(
        objective, u.numpy(), jac=True, method="L-BFGS-B", options={"maxiter": 15, "ftol": 1e-5}
    )
    return -float(result.fun)


def _name(order: Order, axes: Sequence[str]) -> str:
    """ "exchange of a and b", or its cycles."""
    cycles, seen = [], set()
    for start in range(len(order)):
        cycle = []
        while start not in seen:
            seen.add(start)
            cycle.append(axes[start])
            start = order[start]
        if len(cycle) > 1:
            cycles.append(cycle)
    words = [f"exchange of {' and '.join(c)}" if len(c) == 2 else f"cycle of {', '.join(c)}" for c in cycles]
    return " with ".join(words)
