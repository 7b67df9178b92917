"""The modes of a deterministic log density, by L-BFGS from several starts, with their curvature."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from bayesinv.errors import NonFiniteError, NumericalError, first_line
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
# The mode counts as found when a Newton step would move it by less than this many posterior standard deviations.
LARGEST_DECREMENT = 0.1
# Interpolated orbits have kinks, at which a gradient stays. Where nothing higher lies along a Newton step, values are
# looked at so many standard deviations away along every coordinate; where none is higher either, the mode is found, and
# a Newton step may still want to go so far. Of one regression on 8×8 images it wanted .32, and of 240 random points
# within one standard deviation none was higher.
ACROSS, LARGEST_AT_KINK = 0.3, 0.5
POLISHING_STEPS = 3  # Newton steps and looks around, where L-BFGS left more
# Of the difference quotients of the gradient, in standard deviations of the posterior, within these limits in θ.
# Interpolated images leave kinks, which shorter steps take for curvature: at half of these the widths swung by 4.
STEP, SHORTEST, LONGEST = 1.0, 0.02, 0.6
# A step of more than so many standard deviations, or one that finds no curvature, has left the mode.
LEFT_MODE, SHORTER_STEPS = 4.0, 2
LEAST_CURVATURE = 0.1  # nats per squared unit of θ: a posterior is not three times as wide as its prior
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
        decrement: √(gᵀH⁻¹g), the distance that a Newton step would go, in posterior standard deviations.
        evaluations: of value and gradient that led here, curvature included.
        trace: the log density at each evaluation of the optimiser.
        start: the prior quantile that it was found from; None where a population found it.
        merged: whether the run was ended because it had reached the neighbourhood of an earlier mode.
        ended: whether a callback or the limit of evaluations ended it.
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
                many, theta, precision, quantile, max_evaluations, known, callbacks, describe, began, curvature
            )
        except (NumericalError, torch.linalg.LinAlgError) as error:
            if number == 0:
                text = f"step 1: {first_line(error)}; there is no earlier state"
                raise NonFiniteError(text, step=1) from error
            continue  # other starts are a check, and the first has an answer
        modes.append(mode)
        if mode.ended:
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
) -> Mode:
    target = many.target
    before = target.evaluations
    trace: list[float] = []
    straight = _Straightened(theta, precision, target.bounds)
    best: tuple[float, Tensor, Tensor] | None = None
    merged = ended = False
    settling = precision is None and min(target.num_extents, target.num_hyper) > 0 and max_evaluations > SETTLING

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, merged, ended
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
        if ended_by(callbacks, step) or len(trace) >= max_evaluations:
            ended = True
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
        return Mode(at, value, torch.eye(d, dtype=torch.float64), rest, len(trace), tuple(trace), start, merged, ended)
    widths = np.full(d, LONGEST)
    if precision is not None:
        widths = precision.diagonal().rsqrt().numpy()
    elif inverse is not None:
        probes = np.eye(len(at))[:d]
        widths = np.sqrt(np.maximum([probe @ inverse.matvec(probe) for probe in probes], 0.0))
    mode = None
    for _ in range(1 + POLISHING_STEPS):
        precision = _curvature(many, at, gradient, widths, d)
        step = torch.linalg.solve(precision, gradient[:d])
        decrement = math.sqrt(max(float(gradient[:d] @ step), 0.0))
        mode = Mode(at, value, precision, decrement, target.evaluations - before, tuple(trace), start, merged, ended)
        if mode.converged or ended:
            break
        better = _newton(target, at, value, step) or _across(many, at, value, precision)
        if better is None:
            mode = dataclasses.replace(mode, cornered=True)
            break
        at, value, gradient = better
        trace.append(value)
        widths = precision.diagonal().rsqrt().numpy()
    if mode is None:  # the loop runs at least once
        raise NumericalError("no mode")
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
        if reached > value:
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
    if not float(values[best]) > value:
        return None
    reached, gradient = target.with_gradient(points[best])
    return (points[best], reached, gradient) if reached > value else None


def of_more_data(precision: Float[Tensor, "d d"], ratio: float) -> Float[Tensor, "d d"]:
    """The curvature with so many times the data: what exceeds a standard normal prior's grows, and the prior does not.

    Example:
        >>> of_more_data(torch.diag(torch.tensor([1.0, 11.0], dtype=torch.float64)), 3.0).diagonal().tolist()
        [1.0, 31.0]
    """
    eye = torch.eye(len(precision), dtype=precision.dtype)
    values, vectors = torch.linalg.eigh(precision - eye)
    return precision + (ratio - 1.0) * (vectors * values.clamp_min(0.0)) @ vectors.T


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


def _curvature(many: ManyPoints, at: Tensor, gradient: Tensor, widths: np.ndarray, d: int) -> Float[Tensor, "d d"]:
    """Minus the second derivatives by forward differences of the gradient, towards the inside, made positive.

    A step that leaves the mode, as the curvature that it finds gives away, is taken again and shorter.
    """
    inside = np.where(at[:d].numpy() > 0, -1.0, 1.0)
    steps = np.clip(STEP * widths, SHORTEST, LONGEST)
    H = torch.zeros(d, d, dtype=torch.float64)
    doubtful = list(range(d))
    for _ in range(1 + SHORTER_STEPS):
        points = []
        for k in doubtful:
            point = at.clone()
            point[k] += inside[k] * steps[k]
            points.append(point)
        shorter = []
        for k, found in zip(doubtful, many.gradients(points), strict=True):
            if found is None:
                H[k], H[k, k] = 0.0, 1.0 / max(widths[k], SHORTEST) ** 2
                continue
            row = (gradient[:d] - found[:d]) / (inside[k] * steps[k])
            own = float(row[k])
            if own >= LEAST_CURVATURE or not H[k].any():  # where every step finds none, the longest has the last word
                H[k] = row
            sd = own**-0.5 if own >= LEAST_CURVATURE else 0.0
            if sd < steps[k] / LEFT_MODE and steps[k] > SHORTEST:
                steps[k] = max(sd, steps[k] / LEFT_MODE, SHORTEST)
                shorter.append(k)
        doubtful = shorter
        if not doubtful:
            break
    values, vectors = torch.linalg.eigh(0.5 * (H + H.T))
    return (vectors * values.clamp_min(LEAST_CURVATURE)) @ vectors.T


def _is_near(theta: Tensor, value: float, mode: Mode, target: Target) -> bool:
    """Whether θ lies where a mode's quadratic describes the density."""
    d = len(mode.precision)
    if mode.merged or d == 0:
        return False
    away = theta[:d] - mode.theta[:d]
    distance = float(away @ mode.precision @ away)
    return distance < SAME_MODE**2 and abs(value - (mode.value - 0.5 * distance)) < SAME_VALUE
