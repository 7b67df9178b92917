"""The posterior over extents of a deterministic evidence: modes first, then q around them.

Extents and hyperparameters climb together to the modes of log p(D, η, u) (:mod:`bayesinv.inference.modes`). The
built-in guides are mixtures of Student t around the modes, adapted to the weighted draws
(:mod:`bayesinv.numerics.mixture`); "flow" and a user's own Pyro guides are trained on the ELBO with Adam, from the
best mode and with its hyperparameters held.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from bayesinv.data.container import Data
from bayesinv.errors import NonFiniteError, NumericalError
from bayesinv.inference.curvature import of_more_data
from bayesinv.inference.guides import GuideFactory, flow_around, make_guide
from bayesinv.inference.loop import Callback, Trace, maximise
from bayesinv.inference.many_points import ManyPoints
from bayesinv.inference.modes import Mode, find_modes
from bayesinv.inference.population import populate, starts_among
from bayesinv.inference.target import Target
from bayesinv.io.progress import progress_bar
from bayesinv.model.conditioning import is_light
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.mixture import FEWEST_ROUNDS, ROUND, Mixture, adapt, around_modes, bend_at
from bayesinv.numerics.psis import pareto_smooth, weights_are_good

MIXTURES = ("full_rank", "mean_field")
LARGEST_EXPLORED, COPIES_EXPLORED, LARGEST_CLIMB = 100, 12, 200  # examples and copies of each; examples
MORE = 4  # times the examples of the last climb in the next one, as long as all are twice as many
# A start so many nats below the highest, for each coordinate and ratio of examples, is not climbed from: a mode of n
# examples is expected to lie half a nat for each coordinate and ratio below that of all near by.
LEFT_BEHIND = 2.0
FEWEST_TO_EXPLORE = 20  # evaluations of a climb
# Where the number of draws is left open: until they are worth so many independent ones; on large data, where each takes
# seconds, half as many in fewer rounds.
MOST_DRAWS, ENOUGH = 480, 100.0
MOST_DRAWS_OF_LARGE, ENOUGH_OF_LARGE, FEWEST_ROUNDS_OF_LARGE = 150, 50.0, 3
APART_FROM_MODES = 1.0  # standard deviations of the mode, in some extent
GUIDE_STEPS = 300  # of Adam, for a guide that is trained around a known mode
FLOW_SHARE = 0.2  # of the learning rate, for the flow that refines a fitted normal


@dataclass(frozen=True)
class Approximation:
    """q around the modes.

    Attributes:
        extents: draws η_j of q, (J, K).
        log_weights: raw, log p(D, θ_j) - log q(θ_j), (J,).
        hyperparameters: u_j, (J, P), where they are latent.
        density: q(z), over the latent extents alone.
        above: nats by which the highest draw lies above the best mode; negative where that is higher than all.
    """

    extents: Float[Tensor, "J K"]
    log_weights: Float[Tensor, " J"]
    hyperparameters: Float[Tensor, "J P"] | None
    density: Mixture
    above: float


def climb(
    target: Target,
    max_evaluations: int,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
    num_threads: int = 1,
) -> list[Mode]:
    """The modes, that with the largest mass first, with the model's hyperparameters there.

    A population looks for them on at most ``LARGEST_EXPLORED`` examples. The climbs from what it finds stay with these,
    then take ``LARGEST_CLIMB``, with which the population is looked at again, and only from the modes found there all:
    most evaluations are far from a mode, where a part says as well which way is up. Few evaluations are not enough to
    explore: then climbs start from quantiles, on ``LARGEST_CLIMB``. Learned inducing inputs, which belong to all
    examples, climb on all alone.

    Raises:
        NonFiniteError: the evidence could not be computed at the start.
    """
    origin = target.start(0.5)
    rows = torch.randperm(len(target.data))
    found: list[Mode] = []
    with progress_bar(progress, "evaluation") as bar:

        def show(extents: Mapping[str, float]) -> None:
            bar.set_postfix_str(describe_extents(target.model, extents), refresh=False)
            bar.update()

        told = show if progress else None
        search = functools.partial(find_modes, callbacks=callbacks, describe=told, num_threads=num_threads)
        size = seen = len(target.data)
        population: Tensor | None = None
        if target.num_extents and max_evaluations > FEWEST_TO_EXPLORE:
            seen = min(size, LARGEST_EXPLORED)
            part = Target(target.model, target.data.subset(rows[:seen]), record=target.record)
            found, population = _explored(part, int(torch.randint(2**31, ())), num_threads, bar.update)
            target.move(origin)
        for most in _sizes(size, explored=bool(found)):
            if target.inducing is not None or any(mode.stopped for mode in found):
                break
            part = Target(target.model, target.data.subset(rows[:most]), record=target.record)
            begin = _of_more(found, most / seen)
            if most == LARGEST_CLIMB:
                begin += _again(part, population, found, num_threads, bar.update)
            begin = _worth_a_climb(part, begin, most / seen, num_threads) if most > LARGEST_CLIMB else begin
            found, seen = search(part, max_evaluations, found=begin, rough=True), most
        found = _worth_a_climb(target, _of_more(found, size / seen), size / seen, num_threads)
        if any(mode.stopped for mode in found):  # only judged on all data, without a climb
            max_evaluations = 1
        try:
            modes = search(target, max_evaluations, found=found, rough=not is_light(target.model, target.data))
        except NonFiniteError:
            if not found:
                raise
            target.move(origin)
            modes = search(target, max_evaluations)  # where the part ended all data have no evidence
    target.move(modes[0].theta)
    return modes


def _sizes(size: int, explored: bool) -> list[int]:
    """Examples of one climb after the other, before that of all."""
    sizes = [LARGEST_EXPLORED] if explored and size > LARGEST_EXPLORED else []
    most = LARGEST_CLIMB
    while most < size and (most == LARGEST_CLIMB or 2 * most <= size):
        sizes.append(most)
        most *= MORE
    return sizes


def _worth_a_climb(target: Target, found: Sequence[Mode], ratio: float, num_threads: int) -> list[Mode]:
    """Where to start with more data: those of the modes that are not far below the highest, that one first."""
    found = [mode for mode in found if not mode.merged]
    if len(found) < 2 or ratio <= 1.0:
        return found
    with contextlib.suppress(NumericalError):
        target(found[0].theta)  # and the start of the inner iteration of all others
    values = ManyPoints(target, num_threads).values(torch.stack([mode.theta for mode in found]))
    least = float(values.max()) - LEFT_BEHIND * ratio * len(found[0].precision)
    order = values.argsort(descending=True).tolist()
    return [found[i] for i in order if float(values[i]) >= least]


def _explored(
    target: Target, seed: int, num_threads: int, on_value: Callable[[], object]
) -> tuple[list[Mode], Tensor | None]:
    """Where climbs shall start, and the population; nowhere if the evidence cannot be computed."""
    few = _with_few_copies(target.model)
    try:
        with target.evaluating(few):
            target(target.start(0.5))  # and the start of the inner iteration of all others
    except NumericalError:
        return [], None
    theta, value = populate(target, seed, num_threads, on_value, few)
    return _starts(target, theta, value), theta


def _again(
    target: Target,
    population: Tensor | None,
    found: Sequence[Mode],
    num_threads: int,
    on_value: Callable[[], object],
) -> list[Mode]:
    """The highest of the same population with more data, apart from the modes that fewer have found.

    On few examples a mode that all of them bring out may be no mode yet, and climbs on these have left it.
    """
    if population is None:
        return []
    few, points = _with_few_copies(target.model), population.unique(dim=0)
    with contextlib.suppress(NumericalError), target.evaluating(few):
        target(points[0])  # and the start of the inner iteration of all others
        starts = _starts(target, points, ManyPoints(target, num_threads, few).values(points, on_value=on_value))
        return [start for start in starts if all(_apart(start, mode, target.num_extents) for mode in found)][:1]
    return []


def _apart(start: Mode, mode: Mode, num_extents: int) -> bool:
    """Whether some extent is away from a mode."""
    d = len(mode.precision)
    sd = torch.linalg.inv(mode.precision).diagonal().sqrt()
    away = (start.theta[:d] - mode.theta[:d]).abs() / sd
    return float(away[:num_extents].amax()) > APART_FROM_MODES


def _starts(target: Target, theta: Tensor, value: Tensor) -> list[Mode]:
    """The highest points of a population that lie apart."""
    starts = starts_among(theta, value, target.num_extents + target.num_hyper)
    return [Mode(at, height, precision, math.inf, 0, (), None) for at, height, precision in starts]


def _with_few_copies(model: InvarianceModel) -> InvarianceModel:
    """The same model on the first copies of its orbit; it shares every parameter."""
    other = copy.copy(model)
    other._modules = {**model._modules, "orbit": model.orbit.part(COPIES_EXPLORED)}
    return other


def _of_more(modes: Sequence[Mode], ratio: float) -> list[Mode]:
    """The same where so many times the data are looked at."""
    return [dataclasses.replace(mode, precision=of_more_data(mode.precision, ratio)) for mode in modes]


def on_exact(
    target: Target, modes: Sequence[Mode], exact: InvarianceModel, max_evaluations: int, num_threads: int = 1
) -> list[Mode]:
    """The modes of the exact evidence near those of an approximation to it; the same ones where they cannot be told.

    Few evaluations, in coordinates in which the known curvature is round. What belongs to the approximation alone, as
    inducing inputs do, stays where it is.
    """
    if target.inducing is not None or any(mode.stopped for mode in modes):
        return list(modes)
    try:
        return find_modes(
            Target(exact, target.data, record=target.record), max_evaluations, found=modes, num_threads=num_threads
        )
    except NonFiniteError:
        return list(modes)


def approximate(
    target: Target,
    modes: Sequence[Mode],
    num_draws: int | None,
    latent: bool,
    diagonal: bool,
    seed: int,
    progress: bool = False,
    num_threads: int = 1,
    exact: InvarianceModel | None = None,
) -> Approximation:
    """Draws and weights of a mixture around the modes.

    Args:
        target: the log density.
        modes: of it, that with the largest mass first.
        num_draws: J; None for as many as it takes, at most `MOST_DRAWS`, or `MOST_DRAWS_OF_LARGE`.
        latent: whether hyperparameters are drawn too, or held at the best mode.
        diagonal: whether covariances are left out.
        seed: of the draws.
        progress: show a bar.
        num_threads: for draws next to each other.
        exact: the model whose evidence places and weighs the draws, where the climb went by a bound on it.

    Raises:
        NumericalError: the evidence could not be computed at any draw.
    """
    A = target.num_extents
    d = A + target.num_hyper if latent else A
    best, *others = [mode for mode in modes if not mode.merged]
    rest = best.theta[d:]
    with target.evaluating(exact):
        height = target(best.theta, hyperpriors=latent)  # and the start of the inner iteration of all others

    with progress_bar(progress, "draw", 2 * d + (num_draws or FEWEST_ROUNDS * ROUND)) as bar:
        many = ManyPoints(target, num_threads, exact)

        def log_density(points: Float[Tensor, "J d"]) -> Float[Tensor, " J"]:
            bar.total = max(bar.total, bar.n + len(points))
            return many.values(torch.cat([points, rest.expand(len(points), -1)], 1), latent, bar.update)

        bend, correlation, mass = bend_at(best.theta[:d], best.precision[:d, :d], height, log_density, diagonal)
        laplace = [(m.theta[:d], m.precision[:d, :d], height - best.value + m.log_mass_of(d)) for m in others]
        start = around_modes(bend, correlation, mass, laplace)
        most, least, fewest = MOST_DRAWS, ENOUGH, FEWEST_ROUNDS
        if not is_light(target.model, target.data):
            most, least, fewest = MOST_DRAWS_OF_LARGE, ENOUGH_OF_LARGE, FEWEST_ROUNDS_OF_LARGE
        enough = None if num_draws else functools.partial(are_enough, least=least)
        found = adapt(start, log_density, num_draws or most, seed, diagonal, enough, fewest)
    hyper = found.theta[:, A:] if latent and target.num_hyper else None
    if hyper is not None:
        w = (found.log_weights - found.log_weights.logsumexp(0)).exp()
        target.move(torch.cat([best.theta[:A], w @ hyper, rest]))
    else:
        target.move(best.theta)
    above = float((found.log_weights + found.guide.log_prob(found.theta)).max()) - height
    q = found.guide.marginal(range(A))
    return Approximation(target.extents(found.theta[:, :A]), found.log_weights, hyper, q, above)


def are_enough(log_weights: Float[Tensor, " J"], least: float) -> bool:
    """Whether draws are worth so many independent ones, and their weights have no tail that says otherwise."""
    effective = float((2.0 * log_weights.logsumexp(0) - (2.0 * log_weights).logsumexp(0)).exp())
    return effective >= least and weights_are_good(pareto_smooth(log_weights)[1], len(log_weights))


def train_guide(
    target: Target,
    modes: Sequence[Mode],
    guide: str | GuideFactory,
    learning_rate: float,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
) -> tuple[Any, str, NonFiniteError | None]:
    """A Pyro guide on the ELBO, from the best mode, with the hyperparameters held there.

    Returns:
        The guide, its name, and the error that ended the run early, if one did.

    Raises:
        NonFiniteError: the very first step failed.
    """
    model, data = target.model, target.data
    eta = target.extents(modes[0].theta[: target.num_extents])
    q, name = make_guide(guide, model, {site: eta[where] for site, where in model.extents.sites.items()})
    frozen = [p for p in model.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)
    failure: NonFiniteError | None = None
    try:
        _maximise_elbo(model, q, data, GUIDE_STEPS, learning_rate, progress, callbacks)
        if name == "flow":
            flow = flow_around(q, model)
            _maximise_elbo(model, flow, data, GUIDE_STEPS, FLOW_SHARE * learning_rate, progress, callbacks)
            q = flow
    except NonFiniteError as error:
        if error.step <= 1:
            raise
        failure = error
        name = "full_rank" if name == "flow" else name
    finally:
        for p in frozen:
            p.requires_grad_(True)
    return q, name, failure


def _maximise_elbo(
    model: InvarianceModel,
    guide: Any,
    data: Data,
    num_steps: int,
    rate: float,
    progress: bool,
    callbacks: Sequence[Callback],
) -> Trace:
    elbo = Trace_ELBO()(model, guide)
    try:
        with torch.no_grad():
            guide(data)  # creates the guide's parameters, which the optimiser has to see
    except NumericalError as error:
        raise NonFiniteError(f"step 1: {error}; there is no earlier state", step=1) from error
    parameters = list(guide.parameters())
    if not parameters:  # a guide that is a fixed distribution has nothing to learn
        return Trace((), True)

    def current_extents() -> Mapping[str, float]:
        with torch.no_grad():
            medians = guide.median(data) if hasattr(guide, "median") else guide(data)
        return dict(zip(model.symmetries, model.extents.assemble(medians).tolist(), strict=True))

    return maximise(
        lambda: -elbo(data),
        [{"params": parameters, "lr": rate}],
        [guide] if isinstance(guide, nn.Module) else [],
        num_steps,
        current_extents=current_extents,
        describe=lambda extents: describe_extents(model, extents),
        progress=progress,
        callbacks=callbacks,
    )


def describe_extents(model: InvarianceModel, extents: Mapping[str, float]) -> str:
    """The three largest extents, as shares of what is possible, in words."""
    coordinates = {c.name: c for c in model.coordinates}
    order = sorted(model.active, key=lambda name: -extents[name] / coordinates[name].largest)
    return ", ".join(f"{name} {coordinates[name].words(extents[name])}" for name in order[:3])


def local_parameters() -> Any:
    """Keep guide parameters in the guide: Pyro's global store leaks between fits."""
    return pyro.settings.context(module_local_params=True)
