"""A loop of Adam for guides, with a good state to fall back on; and whether an objective still rises."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bayesinv.errors import NonFiniteError, NumericalError, first_line
from bayesinv.io.progress import progress_bar
from bayesinv.numerics.randomness import unseeded

# Steps whose mean objective is compared with that of the window before. A rise of 0.2 standard deviations in 40 steps
# is one of 0.45 in 90, three standard errors of the difference of two means of 90.
WINDOW = 90
SIGNIFICANT = 2.0  # standard errors of that difference: a flat objective is called rising one time in 44
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


def ended_by(callbacks: Sequence[Callback], step: Step) -> bool:
    """Call every callback; whether one of them returned True.

    They run outside of the seeded blocks of the fit: what they draw does not change it, and they may wait for threads
    that fit or predict.
    """
    with unseeded():
        return any([callback(step) is True for callback in callbacks])


@dataclass(frozen=True)
class Trace:
    """The objective at every step, and whether the run ended as it should."""

    objective: tuple[float, ...]
    converged: bool


def maximise(
    objective: Callable[[], Tensor],
    groups: Sequence[dict[str, object]],
    modules: Iterable[nn.Module],
    max_steps: int,
    current_extents: Callable[[], Mapping[str, float]],
    describe: Callable[[Mapping[str, float]], str],
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Trace:
    """Maximise a stochastic objective with Adam: a constant rate, then a cooldown over the last steps.

    A callback that returns True ends the run.

    Args:
        objective: one estimate, differentiable.
        groups: Adam parameter groups with "params" and "lr".
        modules: hold the parameters; their last finite state is restored when something fails.
        max_steps: how many steps.
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
    began = time.perf_counter()
    with progress_bar(progress, "step", max_steps) as bar:
        for step in range(1, max_steps + 1):
            rate = _rate(step - 1, max_steps, cooldown)
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
                raise NonFiniteError(f"step {step}: {first_line(error)}; {kept}", step=step) from error
            good = [copy.deepcopy(module.state_dict()) for module in modules]
            (-value).backward()
            optimiser.step()
            values.append(number)
            if progress or callbacks:
                info = Step(step, max_steps, number, current_extents(), time.perf_counter() - began)
                bar.set_postfix_str(describe(info.extents), refresh=False)
                bar.update()
                if ended_by(callbacks, info):
                    break
    return Trace(tuple(values), len(values) == max_steps)


def _rate(step: int, end: int, cooldown: int) -> float:
    """Share of the full learning rate: one, then linear down to ``FINAL_RATE``."""
    left = (end - 1 - step) / cooldown
    return min(1.0, FINAL_RATE + (1.0 - FINAL_RATE) * left)


def still_rising(values: Sequence[float]) -> bool | None:
    """Whether the mean of the last window lies significantly above that of the window before; None if it is too short.

    Example:
        >>> still_rising([0.01 * i for i in range(200)]), still_rising([0.0, 1.0] * 100), still_rising([1.0])
        (True, False, None)
    """
    if len(values) < 2 * WINDOW:
        return None
    before, last = np.asarray(values[-2 * WINDOW : -WINDOW]), np.asarray(values[-WINDOW:])
    error = math.sqrt((before.var(ddof=1) + last.var(ddof=1)) / WINDOW)
    return bool(last.mean() - before.mean() > SIGNIFICANT * max(error, 1e-12))
