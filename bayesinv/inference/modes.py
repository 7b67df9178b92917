"""The modes of a deterministic log density, by L-BFGS from several starts, with their curvature."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from bayesinv.errors import NonFiniteError, NumericalError, first_line
from bayesinv.inference.curvature import LONGEST, curvature_at, decrement_of
from bayesinv.inference.loop import Callback, Step, ended_by
from bayesinv.inference.many_points import ManyPoints
from bayesinv.inference.target import Target

# Quantiles of the priors at which the extents start: small, middle, and large. All optima are kept, and the posterior
# weighs them.
STARTS = (0.1, 0.5, 0.9)
# Evaluations in which hyperparameters settle at the extents of a start, under a small power of the evidence. Without
# that the first steps can end far out in the priors, where noise or lengthscales are nearly zero, and miss the mode.
SETTLING, SETTLING_SHARE = 20, 0.05
MEMORY = 20  # pairs that L-BFGS keeps
# Gradient at which L-BFGS stops, nats per prior standard deviation, or per posterior one from a known curvature.
# What is reported as converged is judged by the
# curvature, below.
GRADIENT = 0.05
# Relative rise of the log density below which it stops too: interpolated images leave kinks at which no gradient
# vanishes, and where it would step to and fro until its evaluations are spent.
STANDSTILL = 1e-10
# A run ends too when its best value has risen by less than so many nats in so many evaluations, as at kinks, where each
# line search may gain a little: what is left is for the Newton steps below. Learned inducing inputs have none.
RISE, PATIENCE = 0.1, 8
# The mode counts as found when a Newton step would move it by less than this many posterior standard deviations.
LARGEST_DECREMENT = 0.1
# Interpolated orbits have kinks, at which a gradient stays. Where nothing higher lies along a Newton step, values are
# looked at so many standard deviations away along every coordinate; where none is higher either, the mode is found, and
# a Newton step may still want to go so far. Of one regression on 8×8 images it wanted .32, and of 240 random points
# within one standard deviation none was higher.
ACROSS, LARGEST_AT_KINK = 0.3, 0.5
HIGHER = 0.02  # nats, which a Newton step of a fifth of a standard deviation gains; less is not called higher
# Newton steps and looks around, where L-BFGS left more; not for a mode of less than a thousandth of the largest mass.
POLISHING_STEPS, NEGLIGIBLE = 4, math.log(1e-3)
# Within so many standard deviations of a mode and this close to its quadratic, another start is on its way to the same.
SAME_MODE, SAME_VALUE = 1.0, 0.5
UNLIKELY = 1e10  # what an optimiser is told where the density cannot be computed


@dataclass(frozen=True)
class Mode:
    """A maximum of the log density.

    Attributes:
        theta: where, all of θ.
        value: the log density there, nats.
        precision: minus the second derivatives in extents and hyperparameters, (d, d), at least ``LEAST_CURVATURE``.
        decrement: √(gᵀH⁻¹g), the distance that a Newton step would go, in posterior standard deviations; where
            ``cornered``, with the mean slopes over a standard deviation to either side if that is less.
        evaluations: of value and gradient that led here, curvature included.
        trace: the log density at each evaluation of the optimiser.
        start: the prior quantile that it was found from; None where a population found it.
        merged: whether the run was ended because it had reached the neighbourhood of an earlier mode.
        ended: whether a callback or the limit of evaluations ended it,
        stopped: and whether it was a callback, which ends the whole search.
        cornered: whether nothing higher was found along a Newton step, nor `ACROSS` along any coordinate.
    """

    theta: Float[Tensor, " size"]
    value: float
    precision: Float[Tensor, "d d"]
    decrement: float
    evaluations: int
    trace: tuple[float, ...]
    start: float | None
    merged: bool = False
    ended: bool = False
    cornered: bool = False
    stopped: bool = False

    @property
    def converged(self) -> bool:
        """Whether the gradient says that this is a mode."""
        return self.decrement <= (LARGEST_AT_KINK if self.cornered else LARGEST_DECREMENT)

    @property
    def log_mass(self) -> float:
        """Laplace's approximation of the log mass under this mode."""
        return self.log_mass_of(len(self.precision))

    def log_mass_of(self, d: int) -> float:
        """The same over the first d coordinates, the others held."""
        log_det = float(torch.logdet(self.precision[:d, :d]))
        return self.value + 0.5 * d * math.log(2.0 * math.pi) - 0.5 * log_det


def mode_in_words(record: Mapping[str, Any]) -> str:
    """Where a climb of the evidence began and ended, of the settings of a fit.

    Example:
        >>> mode_in_words({"start": 0.1, "log_joint": -101.347, "evaluations": 8, "merged": True})
        'log joint -101.3 after 8 evaluations from start 0.1, where another ended'
    """
    start = "a point of the population" if record["start"] is None else f"start {record['start']}"
    text = f"log joint {record['log_joint']:.1f} after {record['evaluations']} evaluations from {start}"
    return f"{text}, where another ended" if record["merged"] else text


class _Stop(Exception):
    """Ends a run of the optimiser."""


def find_modes(
    target: Target,
    max_evaluations: int,
    starts: Sequence[float] = STARTS,
    callbacks: Sequence[Callback] = (),
    describe: Callable[[Mapping[str, float]], None] | None = None,
    found: Sequence[Mode] = (),
    num_threads: int = 1,
    curvature: bool = True,
    rough: bool = False,
) -> list[Mode]:
    """Modes by L-BFGS from several starts, that with the largest mass first.

    The highest can be a needle, and the mass under a lower one. Starts that ran into an earlier mode are ``merged``.

    Args:
        target: the log density.
        max_evaluations: of value and gradient, for each start.
        starts: prior quantiles of the extents.
        callbacks: called after each evaluation; True ends the search.
        describe: told the current extents after each evaluation, for a progress bar.
        found: modes of a similar density, to start from in place of ``starts``, with their curvature for the first
            steps; those that were merged are left out.
        num_threads: for gradients next to each other.
        curvature: False ends each run where L-BFGS does, without second derivatives (the precision is the identity) and
            the Newton steps that follow from them: a third to a half of the evaluations, for where alone.
        rough: True leaves the Newton steps out, and takes the curvature to both sides: for where to go on from, and
            where values are dear.

    Raises:
        NonFiniteError: the density could not be computed at the very first start.

    Reference:
        D. C. Liu, J. Nocedal (1989). On the limited memory BFGS method for large scale optimization. Math. Prog. 45.
    """
    modes: list[Mode] = []
    began = time.perf_counter()
    origin = target.start(starts[0])
    begin: list[tuple[float | None, Tensor, Tensor | None]]
    begin = [(mode.start, mode.theta, mode.precision) for mode in found if not mode.merged]
    for share in [] if begin else starts if target.num_extents else starts[:1]:
        theta = origin.clone()
        theta[: target.num_extents] = target.start(share)[: target.num_extents]
        begin.append((share, theta, None))
    many = ManyPoints(target, num_threads)
    for number, (quantile, theta, precision) in enumerate(begin):
        known = [mode for mode in modes if not mode.merged and curvature]  # without it no mode says what is near
        try:
            mode = _climb(
                many, theta, precision, quantile, max_evaluations, known, callbacks, describe, began, curvature, rough
            )
        except (NumericalError, torch.linalg.LinAlgError) as error:
            if number == 0:
                text = f"step 1: {first_line(error)}; there is no earlier state"
                raise NonFiniteError(text, step=1) from error
            continue  # other starts are a check, and the first has an answer
        modes.append(mode)
        if mode.stopped:
            break
    return sorted(modes, key=lambda mode: (mode.merged, -mode.log_mass))


def _climb(
    many: ManyPoints,
    theta: Tensor,
    precision: Tensor | None,
    start: float | None,
    max_evaluations: int,
    known: Sequence[Mode],
    callbacks: Sequence[Callback],
    describe: Callable[[Mapping[str, float]], None] | None,
    began: float,
    curvature: bool,
    rough: bool,
) -> Mode:
    target = many.target
    before = target.evaluations
    trace: list[float] = []
    straight = _Straightened(theta, precision, target.bounds)
    best: tuple[float, Tensor, Tensor] | None = None
    merged = ended = stopped = False
    settling = precision is None and min(target.num_extents, target.num_hyper) > 0 and max_evaluations > SETTLING

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, merged, ended, stopped
        at = straight.theta(torch.from_numpy(point))
        try:
            value, gradient = target.with_gradient(at)
        except (NumericalError, torch.linalg.LinAlgError):
            if best is None:
                raise
            return UNLIKELY, np.zeros_like(point)
        if best is None or value > best[0]:
            best = (value, at, gradient)
        slopes = -straight.gradient(torch.from_numpy(point), gradient).numpy()
        if settling:
            slopes[: target.num_extents] = 0.0
            return -value, slopes
        trace.append(value)
        eta = target.extents(at[: target.num_extents]).detach().tolist()
        named = dict(zip(target.model.symmetries, eta, strict=True))
        if describe is not None:
            describe(named)
        step = Step(len(trace), max_evaluations, value, named, time.perf_counter() - began)
        stopped = ended_by(callbacks, step)
        if stopped or len(trace) >= max_evaluations:
            ended = True
            raise _Stop
        stands = len(trace) > PATIENCE and max(trace[-PATIENCE:]) < max(trace[:-PATIENCE]) + RISE
        if stands and len(theta) == target.num_extents + target.num_hyper:
            raise _Stop
        # A trial of the line search says nothing: it may lie under an earlier mode, and this run on a higher one.
        if best[1] is at and any(_is_near(at, value, mode, target) for mode in known):
            merged = True
            raise _Stop
        return -value, slopes

    inverse = None
    try:
        options = {
            "maxiter": 10 * max_evaluations,
            "maxfun": 10 * max_evaluations,
            "maxcor": MEMORY,
            "gtol": GRADIENT,
            "ftol": STANDSTILL,
        }
        where = straight.start.numpy()
        if settling:
            target.share = SETTLING_SHARE
            few = options | {"maxfun": SETTLING}
            where = minimize(objective, where, jac=True, method="L-BFGS-B", bounds=straight.bounds, options=few).x
            target.share, settling, best = 1.0, False, None
        found = minimize(objective, where, jac=True, method="L-BFGS-B", bounds=straight.bounds, options=options)
        inverse = found.hess_inv
    except _Stop:
        pass
    finally:
        target.share = 1.0
    if best is None:
        raise NumericalError("the log evidence could not be computed at the start")
    value, at, gradient = best
    d = target.num_extents + target.num_hyper
    if merged or d == 0 or not curvature:
        rest = 0.0 if merged or not len(gradient) else float(gradient.norm())
        return Mode(
            at,
            value,
            torch.eye(d, dtype=torch.float64),
            rest,
            len(trace),
            tuple(trace),
            start,
            merged=merged,
            ended=ended,
            stopped=stopped,
        )
    widths = np.full(d, LONGEST)
    if precision is not None:
        widths = precision.diagonal().rsqrt().numpy()
    elif inverse is not None:
        probes = np.eye(len(at))[:d]
        widths = np.sqrt(np.maximum([probe @ inverse.matvec(probe) for probe in probes], 0.0))
    largest = max((other.log_mass for other in known), default=-math.inf)
    if rough:
        precision, mean_slopes = curvature_at(many, at, gradient, widths, d, both=True)
        decrement = decrement_of(precision, mean_slopes, gradient[:d])
        count = target.evaluations - before
        return Mode(at, value, precision, decrement, count, tuple(trace), start, ended=ended, stopped=stopped)
    (precision, _), taken_at = curvature_at(many, at, gradient, widths, d), at
    for polished in range(1 + POLISHING_STEPS):
        step = torch.linalg.solve(precision, gradient[:d])
        decrement = decrement_of(precision, gradient[:d])
        count = target.evaluations - before
        mode = Mode(at, value, precision, decrement, count, tuple(trace), start, ended=ended, stopped=stopped)
        enough = mode.converged or ended or mode.log_mass < largest + NEGLIGIBLE
        if enough or polished == POLISHING_STEPS:
            break
        better = _newton(target, at, value, step) or _across(many, at, value, precision)
        sd = np.asarray(precision.diagonal().rsqrt())
        if better is None:
            precision, mean_slopes = curvature_at(many, at, gradient, sd, d, both=True)
            decrement = decrement_of(precision, mean_slopes, gradient[:d])
            count = target.evaluations - before
            return Mode(at, value, precision, decrement, count, tuple(trace), start, cornered=True)
        at, value, gradient = better
        trace.append(value)
        moved = (at - taken_at)[:d]
        if float(moved @ precision @ moved) > SAME_MODE**2:  # of the place where the curvature was taken
            (precision, _), taken_at = curvature_at(many, at, gradient, sd, d), at
    return mode


def _newton(target: Target, at: Tensor, value: float, step: Tensor) -> tuple[Tensor, float, Tensor] | None:
    """One damped Newton step in extents and hyperparameters; None if nothing along it is higher."""
    for share in (1.0, 0.3, 0.1):
        point = at.clone()
        point[: len(step)] += share * step
        low, high = (torch.tensor([b[i] for b in target.bounds[: len(step)]], dtype=torch.float64) for i in (0, 1))
        point[: len(step)] = point[: len(step)].clamp(low, high)
        try:
            reached, gradient = target.with_gradient(point)
        except (NumericalError, torch.linalg.LinAlgError):
            continue
        if reached > value + HIGHER:
            return point, reached, gradient
    return None


def _across(
    many: ManyPoints, at: Tensor, value: float, precision: Float[Tensor, "d d"]
) -> tuple[Tensor, float, Tensor] | None:
    """The highest point a part of a standard deviation away along one coordinate; None if none is higher."""
    target, d = many.target, len(precision)
    steps = ACROSS * torch.diag(precision.diagonal().rsqrt())
    points = at.repeat(2 * d, 1)
    points[:, :d] += torch.cat([steps, -steps])
    low, high = (torch.tensor([b[i] for b in target.bounds[:d]], dtype=torch.float64) for i in (0, 1))
    points[:, :d] = points[:, :d].clamp(low, high)
    values = many.values(points)
    best = int(values.argmax())
    if not float(values[best]) > value + HIGHER:
        return None
    reached, gradient = target.with_gradient(points[best])
    return (points[best], reached, gradient) if reached > value else None


class _Straightened:
    """Coordinates y in which a density of known curvature is round, θ = θ_0 + L⁻ᵀy with LLᵀ the curvature.

    Outside of the bounds θ stays on them. Without a curvature y is θ, and L-BFGS minds the bounds.
    """

    def __init__(self, theta: Tensor, precision: Tensor | None, bounds: Sequence[tuple[float | None, float | None]]):
        self.root: Tensor | None = None
        self.start = theta
        self.bounds: Sequence[tuple[float | None, float | None]] | None = bounds
        if precision is not None:
            self.origin = theta
            self.root = torch.linalg.inv(torch.linalg.cholesky(precision)).mT  # L⁻ᵀ
            limits = [[-math.inf if low is None else low, math.inf if high is None else high] for low, high in bounds]
            self.low, self.high = torch.tensor(limits, dtype=torch.float64).T
            self.start, self.bounds = torch.zeros_like(theta), None

    def theta(self, y: Tensor) -> Tensor:
        if self.root is None:
            return y.clone()
        return (self.origin + _times(self.root, y)).clamp(self.low, self.high)

    def gradient(self, y: Tensor, gradient: Tensor) -> Tensor:
        """In y, of one in θ."""
        if self.root is None:
            return gradient
        free = self.origin + _times(self.root, y)
        outward = ((free <= self.low) & (gradient < 0)) | ((free >= self.high) & (gradient > 0))
        return _times(self.root.mT, torch.where(outward, 0.0, gradient))


def _times(A: Tensor, y: Tensor) -> Tensor:
    """A on as many coordinates as it has, and the others as they are."""
    return torch.cat([A @ y[: len(A)], y[len(A) :]])


def _is_near(theta: Tensor, value: float, mode: Mode, target: Target) -> bool:
    """Whether θ lies where a mode's quadratic describes the density."""
    d = len(mode.precision)
    if mode.merged or d == 0:
        return False
    away = theta[:d] - mode.theta[:d]
    distance = float(away @ mode.precision @ away)
    return distance < SAME_MODE**2 and abs(value - (mode.value - 0.5 * distance)) < SAME_VALUE
