"""The optimisation loop: schedule, plateau stop, callbacks, and a good state to fall back on."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from bayesinv.errors import NonFiniteError, NumericalError

WINDOW = 40  # steps whose mean objective is compared with that of the window before
# The final descent of the learning rate, which settles q's covariance: this share of max_steps, and no more than that.
COOLDOWN_SHARE, LONGEST_COOLDOWN = 0.3, 120
FINAL_RATE = 0.05  # of the learning rate, at the last step


@dataclass(frozen=True)
class Step:
    """What a callback sees.

    Attributes:
        step: counted from 1.
        max_steps: the most there can be.
        objective: this step's estimate, nats (the ELBO, or the log evidence when nothing is latent).
        extents: current medians by symmetry, internal units.
        seconds: since the loop began.
    """

    step: int
    max_steps: int
    objective: float
    extents: Mapping[str, float]
    seconds: float


Callback = Callable[[Step], object]


@dataclass(frozen=True)
class Trace:
    """The objective at every step, and whether the plateau rule ended the run."""

    objective: tuple[float, ...]
    converged: bool


def maximise(
    objective: Callable[[], Tensor],
    groups: Sequence[dict[str, object]],
    modules: Iterable[nn.Module],
    max_steps: int,
    tolerance: float,
    current_extents: Callable[[], Mapping[str, float]],
    describe: Callable[[Mapping[str, float]], str],
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Trace:
    """Maximise a stochastic objective with Adam: constant rate until it stops rising, then a cooldown.

    The rate stays constant until the mean over a window rises by less than ``tolerance`` times the
    objective's spread, or until the steps left are those of the cooldown; then it falls linearly. A
    callback that returns True ends the run.

    Args:
        objective: one estimate, differentiable.
        groups: Adam parameter groups with "params" and "lr".
        modules: hold the parameters; their last finite state is restored when something fails.
        max_steps: the most steps.
        tolerance: see above.
        current_extents: medians, for callbacks and the bar.
        describe: extents in words, for the bar.
        progress: show a bar.
        callbacks: called after every step.

    Raises:
        NonFiniteError: the objective is not finite or cannot be computed; the modules hold the last
            state at which it was.
    """
    optimiser = torch.optim.Adam([dict(group) for group in groups])
    base = [float(group["lr"]) for group in optimiser.param_groups]
    modules = list(modules)
    good: list[dict[str, Tensor]] | None = None
    values: list[float] = []
    cooldown = max(1, min(LONGEST_COOLDOWN, round(COOLDOWN_SHARE * max_steps)))
    end, converged = max_steps, False
    began = time.perf_counter()
    with tqdm(total=max_steps, disable=not progress, unit="step", dynamic_ncols=True) as bar:
        step = 0
        while step < end:
            rate = _rate(step, end, cooldown)
            for group, full in zip(optimiser.param_groups, base, strict=True):
                group["lr"] = full * rate
            optimiser.zero_grad(set_to_none=True)
            try:
                value = objective()
                number = float(value.detach())
                if not math.isfinite(number):
                    raise NumericalError(f"the objective is {number}")
            except (NumericalError, ValueError, torch.linalg.LinAlgError) as error:
                if type(error) is ValueError and "nan" not in str(error):
                    raise  # Pyro reports parameters that are not finite as ValueError; others are not ours to explain
                if good is not None:
                    for module, state in zip(modules, good, strict=True):
                        module.load_state_dict(state)
                kept = "the state of the step before is kept" if good is not None else "there is no earlier state"
                first_line = str(error).splitlines()[0]
                raise NonFiniteError(f"step {step + 1}: {first_line}; {kept}", step=step + 1) from error
            good = [copy.deepcopy(module.state_dict()) for module in modules]
            (-value).backward()
            optimiser.step()
            values.append(number)
            step += 1
            if step < end - cooldown and _is_flat(values, tolerance):
                end, converged = step + cooldown, True
                bar.total = end
            if progress or callbacks:
                info = Step(step, max_steps, number, current_extents(), time.perf_counter() - began)
                bar.set_postfix_str(describe(info.extents), refresh=False)
                bar.update()
                if any([callback(info) is True for callback in callbacks]):
                    break
    return Trace(tuple(values), converged)


def _rate(step: int, end: int, cooldown: int) -> float:
    """Share of the full learning rate: one, then linear down to ``FINAL_RATE``."""
    left = (end - 1 - step) / cooldown
    return min(1.0, FINAL_RATE + (1.0 - FINAL_RATE) * left)


def _is_flat(values: Sequence[float], tolerance: float) -> bool:
    """Whether the last window's mean is no higher than the one before, up to tolerance · spread."""
    if len(values) < 3 * WINDOW or len(values) % 10:
        return False
    before, last = np.asarray(values[-2 * WINDOW : -WINDOW]), np.asarray(values[-WINDOW:])
    spread = math.sqrt(0.5 * (before.var() + last.var()))
    return float(last.mean() - before.mean()) < tolerance * max(spread, 1e-9)
