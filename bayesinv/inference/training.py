"""The minibatch training loop: phases of optimiser steps over a stream, with checkpoints that are resumed exactly.

A global step t runs the phases that are due, in order. Batches and random numbers of a phase are a function of
(seed, phase, t) alone, and rates one of t, so that parameters, optimisers and t are the whole state of a run.

Where ``torch.distributed`` connects several processes, they share each batch: process r has its own part of it, and all
take the same step on the mean of their gradients, weighted by examples. The batch, its draws of the extents and the
copies of the inputs are those that one process would have, so that the number of processes changes the result by
rounding alone, and a run goes on with another number of them. Process 0 writes checkpoints, shows progress and calls
callbacks.
"""

from __future__ import annotations

import copy
import functools
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bayesinv.data.container import Data
from bayesinv.data.streams import Stream, derive_seed, set_seed
from bayesinv.errors import DataError, NonFiniteError, NumericalError, RankError, first_line
from bayesinv.inference.loop import Callback, Step, Trace, ended_by
from bayesinv.inference.objective import Objective, Phase, Training, checked_phases
from bayesinv.inference.rates import made_optimiser, planned
from bayesinv.inference.together import average_gradients, running_statistics
from bayesinv.io.checkpoints import Checkpoint, CheckpointFile, restore
from bayesinv.io.progress import progress_bar
from bayesinv.numerics.processes import Processes, current_group, sharing
from bayesinv.numerics.randomness import seeded

__all__ = ["Objective", "Phase", "Training", "train"]

# Steps between looks at the objective: reading it makes the host wait for the device.
CHECK_EVERY = 20
# Seconds between two pictures of the bar, whose extents have to come from the device.
REFRESH_SECONDS = 0.3


def train(
    objective: Objective,
    stream: Stream,
    training: Training,
    num_steps: int,
    seed: int,
    fingerprint: Mapping[str, Any],
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
    warn_finished: bool = True,
) -> Trace:
    """Run every phase of an objective over minibatches, from the checkpoint on where there is one.

    Args:
        objective: what to train, in place.
        stream: the data.
        training: clipping and checkpoints are read here; the rest is for the objective's phases.
        num_steps: global steps.
        seed: of batches and of what the losses draw. On the CPU, the same seed gives the same bits, resumed or not.
        fingerprint: JSON-able; what has to be the same for a checkpoint to be gone on from.
        progress: show a bar.
        callbacks: called after every step; True ends the run, and a checkpoint then counts as finished.
        warn_finished: whether to warn where the checkpoint holds a finished run.

    Returns:
        The objective at every step of the traced phase.

    Warns:
        UserWarning: the checkpoint holds a finished run, so that nothing was trained.

    Raises:
        NonFiniteError: a loss could not be computed; the modules hold an earlier state at which it could, if any.
        CheckpointError: the checkpoint is damaged, or of another fit. DataError: an unusable batch.
        FileNotFoundError, IsADirectoryError: the checkpoint's folder does not exist, or it is one.
        RankError: another process has stopped. ValueError: processes with different data or options, or more of them
            than a batch has examples.
    """
    group = current_group()
    first = group is None or group.rank == 0
    phases = checked_phases(objective.phases(training, num_steps), num_steps)
    heard = bool(callbacks)
    if group is not None:
        _agree(group, objective, phases, stream, training, num_steps, seed)
        heard = group.from_first(lambda: bool(callbacks))  # the others may have none
    run = _Run(objective, phases, stream, training, num_steps, seed, group)
    file: CheckpointFile | None = None
    if training.checkpoint is not None:
        facts = {**fingerprint, "data": {"num_total": stream.num_total, "digest": stream.digest()}}
        path, resume = training.checkpoint, training.resume

        def opened() -> Checkpoint | None:
            nonlocal file
            file = CheckpointFile(path, facts)
            return file.read() if resume else None

        saved = opened() if group is None else group.from_first(opened)
        if saved is not None:
            restore(path, saved, run.modules, run.optimisers)
            run.go_on(saved)
            if saved.finished:
                if warn_finished and first:
                    warnings.warn(
                        f"{training.checkpoint} holds the finished run of this fit, which is returned as it is, "
                        "whatever weights the network came with; resume=False trains anew",
                        UserWarning,
                        stacklevel=4,  # the line that called fit
                    )
                return Trace(saved.trace, False)
    last_shown, shown = -math.inf, run.step
    try:
        with (
            seeded(seed),
            progress_bar(progress and first, "step", num_steps, run.step) as bar,
        ):
            finished = False
            while not finished:
                run.advance()
                finished = run.step == num_steps
                due = training.checkpoint is not None and (finished or run.step % training.checkpoint_every == 0)
                if heard or due or finished or run.step % CHECK_EVERY == 0:
                    run.check()
                if file is not None and due:
                    file.write(run.checkpoint(finished))
                if progress and first and (finished or time.perf_counter() - last_shown > REFRESH_SECONDS):
                    bar.set_postfix_str(objective.describe(objective.current_extents()), refresh=False)
                    bar.update(run.step - shown)
                    last_shown, shown = time.perf_counter(), run.step
                if heard:
                    value = run.trace[-1] if run.trace else math.nan
                    info = Step(run.step, num_steps, value, objective.current_extents(), run.seconds)
                    ended = functools.partial(ended_by, callbacks, info)
                    if (ended() if group is None else group.from_first(ended)) and not finished:
                        finished = True
                        if file is not None:
                            file.write(run.checkpoint(finished))
    except RankError as error:
        where = f"; {training.checkpoint} holds an earlier step: start" if training.checkpoint else ": start"
        said = first_line(error)  # without the shapes that Pyro adds to errors in a model
        raise RankError(f"step {run.step + 1}: {said}{where} all processes again, as many as you like") from error
    finally:
        stream.close()
    return Trace(tuple(run.trace), False)


def _agree(
    group: Processes,
    objective: Objective,
    phases: Sequence[Phase],
    stream: Stream,
    training: Training,
    num_steps: int,
    seed: int,
) -> None:
    """Give all processes the state of process 0, once it is sure that they do the same.

    Raises:
        ValueError: different data or options, or more processes than a batch has examples.
    """
    for phase in phases:
        size = min(phase.batch_size, stream.num_total)
        if size < group.size:
            raise ValueError(
                f"phase {phase.name!r}: {group.size} processes share batches of {size}; expected an example or more "
                "for each: raise batch_size, or start fewer processes"
            )
    group.check_same({"num_total": stream.num_total, "digest": stream.digest()}, "the training data")
    plan = [(phase.name, phase.batch_size, phase.every, phase.start, phase.stop) for phase in phases]
    kept = (training.checkpoint is not None, training.checkpoint_every, training.clip_norm)
    options = {"seed": seed, "num_steps": num_steps, "checkpoint, checkpoint_every, clip_norm": kept, "phases": plan}
    group.check_same([*options.items()], "the options of the fit")
    with torch.no_grad():
        group.copy_from_first(t for module in objective.modules for t in module.state_dict().values())


class _Run:
    """The state of a run: parameters, optimisers and the step, with an earlier state to fall back on."""

    def __init__(
        self,
        objective: Objective,
        phases: list[Phase],
        stream: Stream,
        training: Training,
        num_steps: int,
        seed: int,
        group: Processes | None,
    ):
        self.modules = list(objective.modules)
        self.phases = phases
        self.stream = stream
        self.clip_norm = training.clip_norm
        self.num_steps = num_steps
        self.seed = seed
        self.group = group
        self.statistics = running_statistics(self.modules) if group is not None else []
        self.problem: Exception | None = None
        self.optimisers = [made_optimiser(phase) for phase in phases]
        self.full_rates = [[float(group["lr"]) for group in o.param_groups] for o in self.optimisers]
        self.plans = [planned(phase, num_steps) for phase in phases]
        self.parameters = list({id(p): p for p in _parameters(self.modules, phases)}.values())
        self.device = self.parameters[0].device
        self.step = 0
        self.trace: list[float] = []
        # Losses since the last check, as (step, traced, value): on the device, unread.
        self._unread: list[tuple[int, bool, Tensor]] = []
        # A state is known to be good once a loss has been computed at it.
        self._good: list[dict[str, Any]] | None = None
        self._latest, self._latest_step = self._state(), 0
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the run began, less the time between an interruption and its resumption."""
        return time.perf_counter() - self._began

    def go_on(self, saved: Checkpoint) -> None:
        """Take over where a checkpoint was written; modules and optimisers have its state already."""
        self.step = saved.step
        self.trace = list(saved.trace)
        self._began = time.perf_counter() - saved.seconds
        # Written after a check, and so with losses computed on the way to it and finite parameters.
        self._good = self._latest = self._state()
        self._latest_step = self.step

    def advance(self) -> None:
        """One global step: the phases that are due, each on a batch of its own."""
        step = self.step
        if step % CHECK_EVERY == 0 and step > self._latest_step:
            self._good, self._latest, self._latest_step = self._latest, self._state(), step
        runs = zip(self.phases, self.optimisers, self.full_rates, self.plans, strict=True)
        for phase, optimiser, full, plan in runs:
            if not phase.is_due(step):
                continue
            number = (step - phase.start) // phase.every
            batch = self.stream.batch(
                self.seed, phase.name, number, phase.batch_size, None if phase.whole else self.group
            )
            batch = batch.to(self.device, non_blocking=True)
            apart = (self.group.rank,) if self.group is not None and phase.own_draws else ()
            set_seed(derive_seed(self.seed, phase.name, step, *apart), self.device)
            if phase.on_start is not None and step == phase.start:
                phase.on_start()
            share = phase.rate(step, self.num_steps)
            for k, group in enumerate(optimiser.param_groups):
                group.update({"lr": full[k] * share} if plan is None else plan[number][k])
            for p in self.parameters:
                p.grad = None
            try:
                with sharing(self.group if phase.whole else None):
                    value = self._backward(phase, batch)
            except (NumericalError, ValueError, torch.linalg.LinAlgError) as error:
                if isinstance(error, DataError) or (type(error) is ValueError and "nan" not in str(error)):
                    raise  # Pyro reports parameters that are not finite as ValueError; others are not ours to explain
                if self.group is None:
                    self.check()  # an earlier loss may be the first that was not finite
                    self._fail(step, first_line(error), error)
                # The mean is no number then, on which all processes end at their next check.
                self.problem, value = error, self.parameters[0].new_full((), math.nan)
            if self.group is not None:
                size = min(phase.batch_size, self.stream.num_total)
                share = 1.0 / self.group.size if phase.whole else len(batch) / size
                value = average_gradients(self.group, phase.params, self.statistics, value, share)
            if phase.clip and self.clip_norm is not None:
                nn.utils.clip_grad_norm_(phase.params, self.clip_norm)
            optimiser.step()
            self._unread.append((step, phase.traced, value))
        self.step += 1

    def _backward(self, phase: Phase, batch: Data) -> Tensor:
        """The loss of a batch, whose gradient goes into what the phase trains and not into what another one does."""
        loss = phase.loss(batch, self.stream.num_total)
        loss.backward(inputs=phase.params)
        return loss.detach().reshape(())

    def check(self) -> None:
        """Read the losses since the last check; raise if one of them, or a parameter, is not finite."""
        if self.group is not None:
            self.group.check_alive()
        unread, self._unread = self._unread, []
        losses = [value for _, _, value in unread]
        values = _read([*losses, *(torch.isfinite(p.detach()).all() for p in self.parameters)])
        for (step, traced, _), value in zip(unread, values, strict=False):
            if not math.isfinite(value):
                self._fail(step, f"the objective is {-value}", None)
            if traced:
                self.trace.append(-value)
        if not all(values[len(unread) :]):
            self._fail(max(0, self.step - 1), "a parameter is not finite after it", None)

    def checkpoint(self, finished: bool) -> Checkpoint:
        """All of it, after a check."""
        return Checkpoint(
            step=self.step,
            finished=finished,
            modules=[dict(module.state_dict()) for module in self.modules],
            optimisers=[optimiser.state_dict() for optimiser in self.optimisers],
            trace=tuple(self.trace),
            seconds=self.seconds,
        )

    def _state(self) -> list[dict[str, Any]]:
        return [copy.deepcopy(dict(module.state_dict())) for module in self.modules]

    def _fail(self, step: int, reason: str, cause: Exception | None) -> None:
        """Restore the latest state before `step` at which a loss is known to be finite, and raise."""
        computed = step > self._latest_step
        state = self._latest if computed else self._good
        if state is not None:
            for module, tensors in zip(self.modules, state, strict=True):
                module.load_state_dict(tensors)
        kept = "there is no earlier state" if state is None else "an earlier state is kept"
        if self.problem is not None and cause is None:  # of this process, behind a mean that is no number
            reason, cause = first_line(self.problem), self.problem
        raise NonFiniteError(f"step {step + 1}: {reason}; {kept}", step=step + 1) from cause


def _parameters(modules: Sequence[nn.Module], phases: Sequence[Phase]) -> list[Tensor]:
    return [p for module in modules for p in module.parameters()] + [p for phase in phases for p in phase.params]


def _read(values: list[Tensor]) -> list[float]:
    """Scalars as numbers; one wait for each device."""
    numbers = [0.0] * len(values)
    for device in {value.device for value in values}:
        places = [i for i, value in enumerate(values) if value.device == device]
        stacked = torch.stack([values[i].to(torch.float64) for i in places])
        for i, number in zip(places, stacked.tolist(), strict=True):
            numbers[i] = number
    return numbers
