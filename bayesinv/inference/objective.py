"""What is trained, and how: the settings of a minibatch fit, its phases, and the objective that has them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bayesinv.data.container import Data
from bayesinv.inference.loop import COOLDOWN_SHARE, FINAL_RATE
from bayesinv.inference.rates import OptimiserFactory, ScheduleFactory
from bayesinv.inference.second_stage import SecondStage

__all__ = ["Objective", "Phase", "Training", "checked_phases"]

SCHEDULES = ("cosine", "constant", "cooldown")


@dataclass(frozen=True)
class Training:
    """How a minibatch fit is trained: sizes, rates, schedules and checkpoints.

    Args:
        epochs: passes over the data; ``fit(max_steps=...)`` comes first.
        batch_size: examples in a step of the weights; of all processes together, as `extent_batch_size` is.
        weight_rate: Adam's, for the weights of a network.
        extent_rate: Adam's, for the extents (their guide, or their point).
        hyper_rate: Adam's, for prior scales, noise and kernel parameters.
        weight_decay: decoupled, of the weights of point methods.
        extent_every: steps of the weights to one of the extents.
        extent_start: share of the steps before the first extent step, for point methods.
        burn_in: the same for variational inference, whose weights see the likelihood alone until then.
        settle: share of the steps after that in which the prior scales alone follow the evidence, and extents wait.
        finish: share of the steps at the end in which variational inference trains the weights on the likelihood alone.
        extent_batch_size: examples in a step of the extents.
        own_weights: whether a network with the Laplace evidence refits its weights at several extents in the end, and
            draws from a regression of the evidence on them (see :mod:`bayesinv.inference.own_weights`). None does where
            the determinant of all examples and outputs is exact at little cost, some hundred of them; True does
            everywhere, and raises where it is not possible.
        schedule: of the weight rate, "cosine" or "constant"; extent rates fall linearly over the last 30 %.
        clip_norm: the largest gradient norm of a step of the weights; None for no limit.
        mixed_precision: the network runs under autocast to bfloat16.
        num_workers: processes that fetch the batches of a ``Dataset``, for each kind of step.
        checkpoint: a file to keep the state of the run in.
        checkpoint_every: steps between two writes of it.
        resume: go on from the checkpoint where there is one; False starts anew and replaces it.
        second_stage: trains weights for predictions apart from those that the extents are learned with, in a share of
            the steps that takes the place of `finish`. None: one set of weights for both.

    Raises:
        TypeError, ValueError: a setting of the wrong kind or out of range.

    Example:
        >>> Training(epochs=5, checkpoint="run.checkpoint").batch_size
        100
    """

    epochs: int | float = 60.0
    batch_size: int = 100
    weight_rate: int | float = 3e-3
    extent_rate: int | float = 0.1
    hyper_rate: int | float = 0.1
    weight_decay: int | float = 0.0
    extent_every: int = 5
    extent_start: int | float = 0.0
    burn_in: int | float = 0.15
    settle: int | float = 0.1
    finish: int | float = 0.25
    extent_batch_size: int = 128
    own_weights: bool | None = None
    schedule: str = "cosine"
    clip_norm: int | float | None = 10.0
    mixed_precision: bool = False
    num_workers: int = 0
    checkpoint: str | Path | None = None
    checkpoint_every: int = 100
    resume: bool = True
    second_stage: SecondStage | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "extent_every", "extent_batch_size", "checkpoint_every", "num_workers"):
            least, value = (0 if name == "num_workers" else 1), getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"Training: {name}: expected an integer of at least {least}, got {value!r}")
        for name in ("epochs", "weight_rate", "extent_rate", "hyper_rate", "clip_norm"):
            value = getattr(self, name)
            if not (name == "clip_norm" and value is None) and not (_is_finite(value) and value > 0):
                also = " or None" if name == "clip_norm" else ""
                raise ValueError(f"Training: {name}: expected a positive number{also}, got {value!r}")
        if not (_is_finite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"Training: weight_decay: expected a number from 0 up, got {self.weight_decay!r}")
        for name in ("extent_start", "burn_in", "settle", "finish"):
            value = getattr(self, name)
            if not (_is_finite(value) and 0 <= value < 1):
                raise ValueError(
                    f"Training: {name}: expected a share of the steps, from 0 to less than 1, got {value!r}"
                )
        if self.burn_in + self.settle + self.finish >= 1:
            raise ValueError(
                f"Training: burn_in + settle + finish: expected less than 1, which leaves steps for the extents, got "
                f"{self.burn_in!r} + {self.settle!r} + {self.finish!r}"
            )
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"Training: schedule: expected 'cosine' or 'constant', got {self.schedule!r}")
        for name in ("mixed_precision", "resume"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"Training: {name}: expected True or False, got {getattr(self, name)!r}")
        if self.own_weights is not None and not isinstance(self.own_weights, bool):
            raise TypeError(f"Training: own_weights: expected True, False or None, got {self.own_weights!r}")
        if self.checkpoint is not None and not isinstance(self.checkpoint, str | Path):
            raise TypeError(f"Training: checkpoint: expected a path or None, got a {type(self.checkpoint).__name__}")
        if self.second_stage is not None and not isinstance(self.second_stage, SecondStage):
            raise TypeError(
                f"Training: second_stage: expected a bayesinv.SecondStage or None, got {self.second_stage!r}; "
                "second_stage=bayesinv.SecondStage()"
            )
        if self.second_stage is not None and self.burn_in + self.settle + self.second_stage.share >= 1:
            raise ValueError(
                "Training: second_stage: expected burn_in + settle + share less than 1, which leaves steps for the "
                f"extents, got {self.burn_in!r} + {self.settle!r} + {self.second_stage.share!r}"
            )

    def first_stage(self) -> Training:
        """The settings of the first of two stages, as a fit of one stage would have them; itself where there is one."""
        if self.second_stage is None:
            return self
        left = 1.0 - self.second_stage.share
        burn_in, settle = self.burn_in / left, self.settle / left
        return replace(self, epochs=left * self.epochs, burn_in=burn_in, settle=settle, finish=0.0, second_stage=None)


@dataclass
class Phase:
    """One kind of optimiser step.

    Attributes:
        name: "weights", "extents", "joint"; its batches and random numbers are its own.
        groups: Adam's, {"params": [...], "lr": float, "weight_decay": float?}; AdamW's where one decays.
        loss: (batch on the device, num_total) -> what to minimise, scalar; draws from torch's global generator.
        batch_size: examples in a batch.
        every: it runs at every so many global steps,
        start: from this one on (counted from 0),
        stop: and before this one; None: to the end.
        schedule: "cosine", "constant" or "cooldown", over the steps from `start` to `stop`; or a factory, see `plan`.
        final: share of the rate that "cosine" falls to.
        traced: its negative loss is the objective that trace and callbacks see (nats); of one phase alone.
        takes_evidence: whether its loss is the log evidence of the model, and no likelihood of the weights alone.
        clip: whether ``Training.clip_norm`` limits its gradient.
        whole: whether its loss is of the batch as a whole and no mean over examples, as a determinant is. Of several
            processes each then sees all of it, and the evidence shares out the work inside.
        own_draws: whether several processes draw apart: where each example has draws of its own, and not all of a
            batch the same.
        on_start: called once, before its first step.
        optimiser: makes the optimiser of its parameters, with rates and weight decay of its own; None is Adam or AdamW
            over `groups`.
    """

    name: str
    groups: list[dict[str, Any]]
    loss: Callable[[Data, int], Tensor]
    batch_size: int
    every: int = 1
    start: int = 0
    stop: int | None = None
    schedule: str | ScheduleFactory = "cosine"
    final: float = 0.0
    traced: bool = False
    takes_evidence: bool = False
    clip: bool = False
    whole: bool = False
    own_draws: bool = False
    on_start: Callable[[], object] | None = None
    optimiser: OptimiserFactory | None = None

    @property
    def params(self) -> list[Tensor]:
        """The parameters of all groups."""
        return [p for group in self.groups for p in group["params"]]

    def is_due(self, step: int) -> bool:
        """Whether it runs at a global step."""
        ended = self.stop is not None and step >= self.stop
        return step >= self.start and not ended and (step - self.start) % self.every == 0

    def length(self, num_steps: int) -> int:
        """Global steps from its first to its last."""
        return max(1, (num_steps if self.stop is None else min(self.stop, num_steps)) - self.start)

    def rate(self, step: int, num_steps: int) -> float:
        """Share of the full learning rate at a global step; of one with a schedule of its own, which sets it, 1.

        "cosine" falls as f + (1 - f)(1 + cos πu)/2 to f = `final`, with u the share of its steps that have passed;
        "cooldown" is one, then linear down to 5 % over the last 30 %.
        """
        if self.schedule == "constant" or callable(self.schedule):
            return 1.0
        length = self.length(num_steps)
        passed = step - self.start
        if self.schedule == "cosine":
            return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * passed / length))
        left = (length - 1 - passed) / max(1, round(COOLDOWN_SHARE * length))
        return min(1.0, FINAL_RATE + (1.0 - FINAL_RATE) * left)


class Objective(ABC):
    """What is trained: losses by phase, and the modules that hold everything they change.

    Attributes:
        modules: their ``state_dict`` is what a checkpoint keeps; the data go to the device of their first parameter.
    """

    modules: Sequence[nn.Module]

    @abstractmethod
    def phases(self, training: Training, num_steps: int) -> list[Phase]:
        """The phases, in the order in which they run within a step; exactly one is traced."""

    @abstractmethod
    def current_extents(self) -> Mapping[str, float]:
        """By symmetry, internal units; called for callbacks and the bar alone."""

    def describe(self, extents: Mapping[str, float]) -> str:
        """The extents in words, for the bar."""
        return ", ".join(f"{name} {value:.3g}" for name, value in extents.items())


def checked_phases(phases: list[Phase], num_steps: int) -> list[Phase]:
    """Phases that make sense, or an error that says what is wrong with them."""
    if num_steps < 1:
        raise ValueError(f"num_steps: expected at least 1, got {num_steps}")
    names = [phase.name for phase in phases]
    traced = [phase.name for phase in phases if phase.traced]
    if len(set(names)) < len(names):
        raise ValueError(f"phases: expected a name for each, got {names}")
    if len(traced) != 1:
        raise ValueError(f"phases: expected exactly one that is traced, got {traced} of {names}")
    for phase in phases:
        if not callable(phase.schedule) and phase.schedule not in SCHEDULES:
            raise ValueError(
                f"phase {phase.name!r}: schedule: expected one of {list(SCHEDULES)}, got {phase.schedule!r}"
            )
        if phase.every < 1 or phase.start < 0 or phase.batch_size < 1:
            raise ValueError(
                f"phase {phase.name!r}: expected every and batch_size from 1 and start from 0 up, got "
                f"{phase.every}, {phase.batch_size} and {phase.start}"
            )
        if not phase.params or not all(p.requires_grad and p.is_leaf for p in phase.params):
            raise ValueError(f"phase {phase.name!r}: expected parameters that require a gradient in its groups")
    return phases


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
