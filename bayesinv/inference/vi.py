"""The posterior over extents of a deterministic evidence: modes first, then q around them.

Extents and hyperparameters climb together to the modes of log p(D, η, u) (:mod:`bayesinv.inference.modes`). The
built-in guides are mixtures of Student t around the modes, adapted to the weighted draws (:mod:`bayesinv.mixture`);
"flow" and a user's own Pyro guides are trained on the ELBO with Adam, from the best mode and with its hyperparameters
held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from tqdm.auto import tqdm

from bayesinv.data import Data
from bayesinv.errors import NonFiniteError, NumericalError
from bayesinv.inference.guides import GuideFactory, flow_around, make_guide
from bayesinv.inference.loop import Callback, Trace, maximise
from bayesinv.inference.modes import Mode, find_modes
from bayesinv.inference.target import Target
from bayesinv.mixture import Adapted, Mixture, adapt, around_modes, bend_at
from bayesinv.model import InvarianceModel
from bayesinv.psis import pareto_smooth, weights_are_good

MIXTURES = ("full_rank", "mean_field")
LARGEST_CLIMB = 1000  # examples
# Draws that a proposal misses part of the posterior with are thrown away for as many from where they led, twice at
# most.
ATTEMPTS = 3
FEWEST_FOR_K = 25  # draws below which a Pareto tail cannot be fitted
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
    """

    extents: Float[Tensor, "J K"]
    log_weights: Float[Tensor, " J"]
    hyperparameters: Float[Tensor, "J P"] | None
    density: Mixture


def climb(
    target: Target, max_evaluations: int, progress: bool = False, callbacks: Sequence[Callback] = ()
) -> list[Mode]:
    """The modes, best first, with the model's hyperparameters at the best one.

    With more than ``LARGEST_CLIMB`` examples the starts climb on a random part of them, and only from the modes found
    there on all: most evaluations are far from a mode, where a part says as well which way is up.

    Raises:
        NonFiniteError: the evidence could not be computed at the start.
    """
    with tqdm(disable=not progress, unit="evaluation", dynamic_ncols=True) as bar:

        def show(extents: Mapping[str, float]) -> None:
            bar.set_postfix_str(describe_extents(target.model, extents), refresh=False)
            bar.update()

        told = show if progress else None
        found: list[Mode] = []
        if len(target.data) > LARGEST_CLIMB and target.inducing is None:
            rows = torch.randperm(len(target.data))[:LARGEST_CLIMB]
            part = Target(target.model, target.data.subset(rows))
            found = find_modes(part, max_evaluations, callbacks=callbacks, describe=told)
        if any(mode.ended for mode in found):  # a callback, or the limit: what there is has to be judged on all data
            max_evaluations = 1
        modes = find_modes(target, max_evaluations, callbacks=callbacks, describe=told, found=found)
    target.move(modes[0].theta)
    return modes


def approximate(
    target: Target,
    modes: Sequence[Mode],
    num_draws: int,
    latent: bool,
    diagonal: bool,
    seed: int,
    progress: bool = False,
    exact: InvarianceModel | None = None,
) -> Approximation:
    """Draws and weights of a mixture around the modes.

    Args:
        target: the log density.
        modes: of it, best first.
        num_draws: J.
        latent: whether hyperparameters are drawn too, or held at the best mode.
        diagonal: whether covariances are left out.
        seed: of the draws.
        progress: show a bar.
        exact: the model whose evidence places and weighs the draws, where the climb went by a bound on it.

    Raises:
        NumericalError: the evidence could not be computed at any draw.
    """
    A = target.num_extents
    d = A + target.num_hyper if latent else A
    kept = [mode for mode in modes if not mode.merged]
    rest = modes[0].theta[d:]
    evidence = target.model.evidence
    with target.evaluating(exact):
        target(modes[0].theta)
    anchor = evidence.warm_start

    def log_density(theta: Float[Tensor, " d"]) -> float:
        evidence.warm_start = anchor  # the same for every draw, so that their order changes nothing
        with target.evaluating(exact):
            return target(torch.cat([theta, rest]), hyperpriors=latent)

    best, others = kept[0], kept[1:]
    height = log_density(best.theta[:d])
    bend, correlation, mass = bend_at(best.theta[:d], best.precision[:d, :d], height, log_density, diagonal)
    start = around_modes(
        bend, correlation, mass, [(m.theta[:d], m.precision[:d, :d], height - best.value + m.log_mass) for m in others]
    )

    with tqdm(total=num_draws, disable=not progress, unit="draw", dynamic_ncols=True) as bar:
        found: Adapted | None = None
        best_k = math.inf
        for attempt in range(ATTEMPTS):
            tried = adapt(start, log_density, num_draws, seed + attempt, diagonal, lambda: bar.update() and None)
            k = pareto_smooth(tried.log_weights)[1]
            if found is None or k < best_k:
                found, best_k = tried, k
            if weights_are_good(k, num_draws) or num_draws < FEWEST_FOR_K:
                break
            start = tried.following
            bar.total += num_draws
    if found is None:  # the loop runs at least once
        raise NumericalError("no draws")
    hyper = found.theta[:, A:] if latent and target.num_hyper else None
    if hyper is not None:
        w = (found.log_weights - found.log_weights.logsumexp(0)).exp()
        centre = torch.cat([modes[0].theta[:A], w @ hyper, modes[0].theta[d:]])
        target.move(centre)
    else:
        target.move(modes[0].theta)
    return Approximation(target.extents(found.theta[:, :A]), found.log_weights, hyper, found.guide.marginal(range(A)))


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
