"""Verdicts on extents: whether the climb reached them, whether they end at their prior or repeat it."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from bayesinv.checks.verdicts import Verdict
from bayesinv.extents.priors import Outward
from bayesinv.inference.collapsed_fit import LARGEST_RHAT
from bayesinv.inference.minibatch_fit import FEWEST_STEPS
from bayesinv.numerics.arguments import counted
from bayesinv.transforms import Coordinate, Transform

if TYPE_CHECKING:
    from bayesinv.posterior.invariance_posterior import InvariancePosterior


# Shares of NUTS draws. Divergences pile up where the posterior is too sharp for the step size, which is where draws are
# then missing; a few of them are the noise of a step size that is nearly small enough. A trajectory that ran out of
# doublings costs effective draws and no correctness.
DIVERGENT_SHARE, SATURATED_SHARE = 0.01, 0.1

# Share of the posterior in the outermost twentieth of the range from which on an extent counts as at its bound: half
# of it there leaves the median undetermined by the data.
BOUND_SHARE, BOUND_ZONE = 0.5, 0.05


# Bins of the range, and the height of the last one beside the highest, from which on an end of a prior cuts a posterior
# off that lies below it for the most part; and at least what a flat posterior would have there.
CUT_BINS, CUT_HEIGHT = 10, 0.3


# sup |F_posterior - F_prior| below which data have said little: a tenth moves no quantile by more than ten per cent.
PRIOR_DISTANCE = 0.1


def convergence_verdicts(posterior: InvariancePosterior) -> list[Verdict]:
    result = posterior.result
    if result.rhat is not None:
        values = [
            r for r, name in zip(result.rhat, posterior.symmetries, strict=True) if name in posterior.model.active
        ]
        worst = max((r if math.isfinite(r) else math.inf for r in values), default=1.0)
        if worst > LARGEST_RHAT:
            message = f"R̂ = {worst:.3f} is above {LARGEST_RHAT}: the chains disagree."
            agreement = Verdict("convergence", "serious", message, "Raise num_warmup and num_draws.")
        else:
            agreement = Verdict("convergence", "ok", f"R̂ is at most {worst:.3f}: the chains agree.")
        return [agreement, *_trajectories(posterior)]
    modes = result.settings.get("modes")
    if result.converged and modes:
        away = f"{modes[0]['decrement']:.2f} posterior standard deviations"
        return [Verdict("convergence", "ok", f"The mode was found: a Newton step would move it by {away}.")]
    if result.converged:
        return [Verdict("convergence", "ok", "The run took all its steps, and nothing says that it needs more.")]
    steps = len(result.trace)
    if steps == 0:
        return [
            Verdict("convergence", "serious", "The run broke off: this is its last good state.", "See result.warnings.")
        ]
    if "training" in result.settings:
        message = f"The extents took {steps} steps and need at least {FEWEST_STEPS} to cross their range."
        if steps >= FEWEST_STEPS:
            message = f"The objective of the extents was still rising after their {steps} steps."
        return [Verdict("convergence", "serious", message, "Raise epochs.")]
    message = f"The climb of the evidence ended after {steps} evaluations without reaching an optimum:"
    if not modes or modes[0].get("ended", True):  # files of earlier versions do not say
        return [Verdict("convergence", "serious", message, "raise max_steps.")]
    message += f" a Newton step of {modes[0]['decrement']:.2f} posterior standard deviations is left."
    cure = "Another seed starts elsewhere; where the importance weights are good, they make up for it."
    return [Verdict("convergence", "serious", message, cure)]


def bound_verdicts(posterior: InvariancePosterior) -> list[Verdict]:
    found = []
    for coordinate, high, share in _at_their_bound(posterior):
        name = coordinate.name
        message = f"{name} lies at the end of its prior, {coordinate.words(high)}, in {share:.0%} of the draws:"
        owner = _constructor_of(posterior, coordinate)
        if high < 0.999 * coordinate.largest:
            message += " it might reach further."
            advice = f"Give it a prior that reaches up to {coordinate.words(coordinate.largest)}."
        elif owner is not None:
            message += " it might reach further."
            now = f"largest={owner.largest}"
            advice = f"Raise {now} of {type(owner).__name__} and fit again."
            if getattr(owner, "sampling_rate", None) == 1.0:
                advice = (
                    f"Give {type(owner).__name__} the sampling_rate= of the recording, without which {now} is counted "
                    "at one sample a second, or raise largest=; then fit again."
                )
        elif _is_whole(coordinate):
            message += " all that this symmetry can do."
            advice = "Read it as at least the lower end of its interval."
        else:
            message += " the largest that is considered."
            advice = "Read it as at least the lower end of its interval."
        found.append(Verdict("bound", "note", message, advice))
    return found + _cut_off(posterior, {coordinate.name for coordinate, _, _ in _at_their_bound(posterior)})


def _cut_off(posterior: InvariancePosterior, known: set[str]) -> list[Verdict]:
    """Priors that end where the posterior is still high, though most of it lies below, and that could reach further."""
    found = []
    dominated = _repeat_their_prior(posterior)
    weights = _weights(posterior)
    for coordinate in posterior.model.coordinates:
        name = coordinate.name
        if posterior.result.is_point or name not in posterior.model.active or name in known or name in dominated:
            continue
        support = posterior.model.extents.priors[name].support
        high = float(getattr(support, "upper_bound", coordinate.largest))
        if high >= 0.999 * coordinate.largest and _constructor_of(posterior, coordinate) is None:
            continue  # nothing lies beyond
        bins = np.histogram(posterior[name].numpy(), CUT_BINS, (0.0, high), weights=weights)[0]
        if bins[-1] < max(CUT_HEIGHT * bins.max(), 1.0 / CUT_BINS):
            continue
        message = (
            f"The end of its prior, {coordinate.words(high)}, cuts the posterior of {name} off: {bins[-1]:.0%} of the "
            f"draws lie in the last {1 / CUT_BINS:.0%} of the range, and it might reach further."
        )
        advice = f"Give it a prior that reaches up to {coordinate.words(coordinate.largest)}."
        if high >= 0.999 * coordinate.largest:
            advice = f"Raise largest= of {type(_constructor_of(posterior, coordinate)).__name__} and fit again."
        found.append(Verdict("bound", "note", message, advice))
    return found


def _at_their_bound(posterior: InvariancePosterior) -> list[tuple[Coordinate, float, float]]:
    """The latent extents that lie at the end of their priors: coordinate, that end, and the share of draws there."""
    if posterior.result.is_point:
        return []
    found = []
    weights = _weights(posterior)
    for coordinate in posterior.model.coordinates:
        name = coordinate.name
        if name not in posterior.model.active:
            continue
        support = posterior.model.extents.priors[name].support
        high = float(getattr(support, "upper_bound", coordinate.largest))
        share = float(weights @ (posterior[name] > (1.0 - BOUND_ZONE) * high).double().numpy())
        if share >= BOUND_SHARE:
            found.append((coordinate, high, share))
    return found


def _weights(posterior: InvariancePosterior) -> Float[np.ndarray, " draws"]:
    """Those that summaries use: of the draws where they are good, else all alike; they sum to one."""
    log_weights = posterior.log_weights()
    total = posterior.result.num_chains * posterior.result.num_draws
    return np.full(total, 1.0 / total) if log_weights is None else np.exp(log_weights)


def _constructor_of(posterior: InvariancePosterior, coordinate: Coordinate) -> Transform | None:
    """The transform whose argument ``largest`` is the end of the coordinate's range; None where a law is."""
    name = coordinate.name.split("[")[0]  # of an output or a group
    for stage in posterior.model.orbit.transform.stages:
        if name in stage.names and "largest" in inspect.signature(type(stage)).parameters:
            return stage if hasattr(stage, "largest") else None
    return None


def _is_whole(coordinate: Coordinate) -> bool:
    """Whether nothing lies beyond the largest extent: elements equally likely, or angles all round."""
    return coordinate.is_discrete or (coordinate.unit == "°" and math.isclose(coordinate.largest, math.pi))


def _repeat_their_prior(posterior: InvariancePosterior) -> list[str]:
    """The latent extents whose distribution function is nowhere far from that of their prior."""
    if posterior.result.is_point:
        return []
    levels = np.linspace(0.02, 0.98, 49)
    quantiles = torch.stack([posterior.model.extents.prior_quantile(float(p)) for p in levels]).numpy()  # (levels, K)
    found = []
    weights = _weights(posterior)
    for k, name in enumerate(posterior.symmetries):
        if name in posterior.model.active:
            below = weights @ (posterior[name].numpy()[:, None] <= quantiles[:, k])
            if np.abs(below - levels).max() < PRIOR_DISTANCE:
                found.append(name)
    return found


def prior_verdicts(posterior: InvariancePosterior) -> list[Verdict]:
    """The largest distance of the posterior's distribution function from the prior's, symmetry by symmetry."""
    if posterior.result.is_point:
        return []
    dominated = _repeat_their_prior(posterior)
    priors = posterior.model.extents.priors
    pushed = [name for name in posterior.model.active if isinstance(priors[name], Outward)]
    if dominated:
        message = f"The posterior of {', '.join(dominated)} repeats its prior: these data say little about it."
        return [Verdict("prior", "note", message, "Quote it as not determined; fix it or switch it off to save time.")]
    if pushed:
        message = f"The prior of {', '.join(pushed)} pushes outwards: its extent is a trade-off and no belief."
        return [Verdict("prior", "note", message, "Quote the strength along with it.")]
    if not posterior.model.active or any(verdict.level == "serious" for verdict in convergence_verdicts(posterior)):
        return []  # a fit that has not settled is where it started, which no data have placed
    ended = [coordinate.name for coordinate, _, _ in _at_their_bound(posterior)]
    if ended:
        others = "The data place the other extents; " if len(ended) < len(posterior.model.active) else ""
        message = f"{others}the upper end of {', '.join(ended)} is that of the prior, and not of the data."
        return [Verdict("prior", "note", message[0].upper() + message[1:], "See what is said of its bound.")]
    return [Verdict("prior", "ok", "The posterior of no extent repeats its prior.")]


def _trajectories(posterior: InvariancePosterior) -> list[Verdict]:
    """Trajectories of NUTS that diverged or ran out of doublings; fits of before they were counted have neither."""
    result, found = posterior.result, []
    total = result.num_chains * result.num_draws
    divergences, saturated = (int(result.settings.get(name) or 0) for name in ("divergences", "saturated"))
    if divergences:
        message = (
            f"{divergences} of {counted(total, 'draw')} diverged: the sampler could not follow the posterior there, so "
            "that the intervals may miss a part of it."
        )
        level = "serious" if divergences > DIVERGENT_SHARE * total else "note"
        advice = "Raise num_warmup, give the extents a prior that ends further out, or compare with another guide."
        found.append(Verdict("convergence", level, message, advice))
    if saturated > SATURATED_SHARE * total:
        message = f"{saturated} of {counted(total, 'draw')} ended at the greatest tree depth: the chains move slowly."
        found.append(Verdict("convergence", "note", message, 'Raise num_draws, or start from guide="flow".'))
    return found
