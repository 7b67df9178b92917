"""Optimisers and learning-rate schedules: the library's own, and those of the user's choice.

A scheduler is run ahead of the training, on an optimiser that takes no steps, and what it sets at each step is kept:
rates are then a function of the step alone, and a run that was interrupted goes on to the bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

__all__ = ["OptimiserFactory", "ScheduleFactory", "made_optimiser", "planned"]

OptimiserFactory = Callable[[Sequence[nn.Parameter]], Optimizer]
ScheduleFactory = Callable[[Optimizer, int], LRScheduler]


@runtime_checkable
class Rated(Protocol):
    """What rates are made of: parameters, and how their optimiser and their schedule are made; see `Phase`."""

    groups: list[dict[str, Any]]
    every: int
    schedule: str | ScheduleFactory
    optimiser: OptimiserFactory | None

    @property
    def params(self) -> list[Tensor]: ...

    def length(self, num_steps: int) -> int: ...


# What schedulers of PyTorch change in an optimiser's groups.
SCHEDULED = ("lr", "momentum", "betas")


def made_optimiser(phase: Rated) -> Optimizer:
    """The optimiser of a phase: what its factory makes of its parameters, or Adam; AdamW where weights decay.

    Raises:
        TypeError: the factory makes something else, or an optimiser that needs a closure.
        ValueError: its optimiser holds other parameters than the phase.
    """
    if phase.optimiser is None:
        groups = [{"weight_decay": 0.0, **group} for group in phase.groups]
        decays = any(group["weight_decay"] > 0 for group in groups)
        return torch.optim.AdamW(groups) if decays else torch.optim.Adam(groups)
    params: Any = phase.params
    made = phase.optimiser(params)
    if not isinstance(made, Optimizer) or isinstance(made, torch.optim.LBFGS):
        raise TypeError(
            "optimiser: expected a function from a list of parameters to a torch.optim.Optimizer whose step() needs no "
            f"closure, got one that returns a {type(made).__name__}; such as "
            "lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=5e-4)"
        )
    held = {id(p) for group in made.param_groups for p in group["params"]}
    foreign = len(held - {id(p) for p in params})
    if foreign or not held:
        raise ValueError(
            f"optimiser: expected one over the parameters that it is given, got one that holds {len(held)}, {foreign} "
            "of them others; use the argument: lambda params: torch.optim.SGD(params, lr=0.1)"
        )
    return made


def planned(phase: Rated, num_steps: int) -> list[list[dict[str, Any]]] | None:
    """What a scheduler of the user's sets in each group at each step of a phase; None without one.

    Raises:
        TypeError: the factory makes no scheduler, or one that follows a score.
    """
    if not callable(phase.schedule):
        return None
    optimiser = made_optimiser(phase)  # never used again: no gradient, no step
    length = -(-phase.length(num_steps) // phase.every)
    scheduler = phase.schedule(optimiser, length)
    if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
        raise TypeError(
            "schedule: expected a function from an optimiser and its number of steps to a scheduler of "
            f"torch.optim.lr_scheduler that needs no score, got one that returns a {type(scheduler).__name__}; such as "
            "lambda optimiser, num_steps: CosineAnnealingLR(optimiser, num_steps)"
        )
    plan = []
    with warnings.catch_warnings():
        # That no optimiser step comes before those of the scheduler is what is wanted here.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        for step in range(length):
            groups = optimiser.param_groups
            plan.append([{key: _number(g[key]) for key in SCHEDULED if key in g} for g in groups])
            if step + 1 < length:
                scheduler.step()
    return plan


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, torch.Tensor) else value
