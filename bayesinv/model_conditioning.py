"""The function given the training data, at each of several posterior draws."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.data import Data
from bayesinv.evidence.basis import basis_of
from bayesinv.evidence.collapsed import Conditioned
from bayesinv.hyperparameters import at
from bayesinv.threads import MOST, is_small, one_thread, side_by_side

if TYPE_CHECKING:
    from bayesinv.model import InvarianceModel


def conditioned_draws(
    model: InvarianceModel,
    data: Data,
    extents: Float[Tensor, "J K"],
    hyperparameters: Float[Tensor, "J P"] | None,
    known: MutableMapping[int, Any],
) -> Iterator[Conditioned]:
    """The function at each draw, in their order; computed side by side where the data are small.

    Args:
        model: with a collapsed evidence.
        data: the training data.
        extents: the draws.
        hyperparameters: of each, in latent coordinates; None for the model's own.
        known: what earlier calls found, by row; what is new is added.
    """
    near = known.get(0)  # where the iteration of every other draw starts, whatever their order
    copies: list[InvarianceModel] = []
    ready: dict[int, Conditioned] = {}

    def compute(j: int) -> Conditioned:
        own = copies.pop()  # atomic, and there are as many as threads
        try:
            with torch.no_grad(), at(own.hyperparameters, _row(hyperparameters, j)):
                evidence: Any = own.evidence
                found: Conditioned = evidence.condition(own.at(extents[j]), data, near)
                return found
        finally:
            copies.append(own)

    for j in range(len(extents)):
        if j in known:
            yield known[j]
            continue
        if j not in ready:
            with one_thread(is_small(data)) as num_threads:
                beside = min(MOST, num_threads) if is_small(data) and near is not None else 1
                rows = [i for i in range(j, len(extents)) if i not in known][:beside]
                while len(copies) < beside:
                    copies.append(copy.deepcopy(model) if beside > 1 else model)
                ready.update(zip(rows, side_by_side(compute, rows, beside), strict=True))
        found = ready.pop(j)
        # Of the model itself, whose hyperparameters are those of this draw while it is asked.
        with at(model.hyperparameters, _row(hyperparameters, j)):
            found = dataclasses.replace(found, basis=basis_of(model.at(extents[j]), data.x))
        near = found if near is None else near
        known[j] = found
        yield found


def _row(hyperparameters: Float[Tensor, "J P"] | None, j: int) -> Float[Tensor, " P"] | None:
    return None if hyperparameters is None else hyperparameters[j]
