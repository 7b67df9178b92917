"""The function given the training data, at each of several posterior draws."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, MutableMapping
from queue import SimpleQueue
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones import GaussianProcess
from bayesinv.data.container import Data
from bayesinv.evidence.collapsed import CollapsedEvidence, Conditioned
from bayesinv.model.hyperparameters import at
from bayesinv.model.parts import ModelParts
from bayesinv.numerics.threads import MOST_THREADS, is_small, one_thread, side_by_side


def copies_beside(model: ModelParts, data: Data, num_threads: int) -> int:
    """How many copies of a model work next to it: as many as threads and its memory budget allow."""
    backbone = model.backbone
    if not is_light(model, data) or not isinstance(backbone, GaussianProcess):
        return 0
    dtype = torch.float64 if model.precision == "double" else torch.float32
    needed = len(data) * backbone.bytes_per_input(model.orbit.num_copies, data.x[0].numel(), dtype)
    return min(MOST_THREADS, num_threads, max(1, model.memory_budget // max(1, needed))) - 1


def is_light(model: ModelParts, data: Data) -> bool:
    """Whether one evaluation of the evidence is best done in one thread: a Gaussian process on few examples."""
    return isinstance(model.backbone, GaussianProcess) and is_small(data.x)


def shared_parts(model: ModelParts, data: Data) -> dict[int, Any]:
    """What copies of a model have in common, as ``copy.deepcopy`` wants it: the data and a frozen network."""
    features = getattr(model.backbone, "features", None)
    return {id(part): part for part in (data, features) if part is not None}


def conditioned_draws(
    model: ModelParts,
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
    near = known.get(0)  # where the iteration of the others starts: the first of these draws, whatever their order
    start = model.evidence.warm_start
    copies: SimpleQueue[ModelParts] = SimpleQueue()
    copies.put(model)
    ready: dict[int, Conditioned] = {}

    def compute(j: int) -> Conditioned:
        own = copies.get()  # the waiting thread may want one more than there are
        own.evidence.warm_start = start
        try:
            with torch.no_grad(), at(own.hyperparameters, _row(hyperparameters, j)):
                found = collapsed(own).condition(own.at(extents[j]), data, near)
                # Of the model itself, whose hyperparameters are those of this draw while it is asked.
                return dataclasses.replace(found, basis=found.basis.of(model.at(extents[j])))
        finally:
            copies.put(own)

    for j in range(len(extents)):
        if j in known:
            yield known[j]
            continue
        if j not in ready:
            with one_thread(is_light(model, data)) as num_threads:
                beside = copies_beside(model, data, num_threads) if near is not None else 0
                rows = [i for i in range(j, len(extents)) if i not in known][: 1 + beside]
                while copies.qsize() < len(rows):
                    copies.put(copy.deepcopy(model, shared_parts(model, data)))
                ready.update(zip(rows, side_by_side(compute, rows, len(rows)), strict=True))
            model.evidence.warm_start = start
        found = ready.pop(j)
        near = found if near is None else near
        known[j] = found
        yield found


def collapsed(model: ModelParts) -> CollapsedEvidence:
    """The evidence of a model that has a collapsed one.

    Raises:
        TypeError: it has another.
    """
    if not isinstance(model.evidence, CollapsedEvidence):
        raise TypeError(f"expected a model with a collapsed evidence, got {type(model.evidence).__name__}")
    return model.evidence


def _row(hyperparameters: Float[Tensor, "J P"] | None, j: int) -> Float[Tensor, " P"] | None:
    return None if hyperparameters is None else hyperparameters[j]
