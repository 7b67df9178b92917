"""``posterior.check()``: what may be wrong with a fit, how badly, and what to do about it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from bayesinv.checks.approximations import inducing_verdicts, mode_verdicts, own_weights_verdicts
from bayesinv.checks.baseline import baseline_test, baseline_verdicts
from bayesinv.checks.verdicts import Verdict, Verdicts
from bayesinv.extents.priors import Outward
from bayesinv.inference.collapsed_fit import LARGEST_RHAT
from bayesinv.inference.minibatch_fit import FEWEST_STEPS
from bayesinv.numerics.arguments import counted
from bayesinv.numerics.psis import limit_in_words, variance_is_finite, weights_are_good
from bayesinv.transforms import Coordinate, Transform

if TYPE_CHECKING:
    from bayesinv.posterior.invariance_posterior import InvariancePosterior

FEWEST_EFFECTIVE_DRAWS = 50  # the ends of a 90 % interval then rest on two or three draws each
# Share of the posterior in the outermost twentieth of the range from which on an extent counts as at its bound: half
# of it there leaves the median undetermined by the data.
BOUND_SHARE, BOUND_ZONE = 0.5, 0.05
# Bins of the range, and the height of the last one beside the highest, from which on an end of a prior cuts a posterior
# off that lies below it for the most part; and at least what a flat posterior would have there.
CUT_BINS, CUT_HEIGHT = 10, 0.3
# sup |F_posterior - F_prior| below which data have said little: a tenth moves no quantile by more than ten per cent.
PRIOR_DISTANCE = 0.1
FEWEST_PER_CLASS = 5
LARGEST_CLASS_SHARE = 0.9
COPIES_PER_SYMMETRY = 4  # of a Sobol orbit; with fewer, half of a symmetry's range can be left without a copy
GUIDE_SHIFT, GUIDE_RATIO = 0.5, 1.5
# Shares of NUTS draws. Divergences pile up where the posterior is too sharp for the step size, which is where draws are
# then missing; a few of them are the noise of a step size that is nearly small enough. A trajectory that ran out of
# doublings costs effective draws and no correctness.
DIVERGENT_SHARE, SATURATED_SHARE = 0.01, 0.1


def diagnose(
    posterior: InvariancePosterior,
    other: InvariancePosterior | Mapping[str, InvariancePosterior] | None = None,
    orbit: bool = False,
    sensitivity: bool = False,
    test: Any = None,
) -> Verdicts:
    """Everything that can be judged from a fit, in one list; see ``InvariancePosterior.check``.

    Args:
        posterior: what ``fit`` returned.
        other: fits of the same model and data by other guides or by NUTS, one or several by name.
        orbit: whether to evaluate the evidence on other orbits (some hundreds of evaluations).
        sensitivity: whether to weigh the draws by powers of prior and likelihood (one evaluation a draw).
        test: data that the fit has not seen.

    Returns:
        Verdicts, in the order: convergence, modes, importance, draws, inducing, own weights, bound, prior, orbit,
            classes, baseline, sensitivity, predictive, baseline on the test data, guides; those with nothing to say are
            left out.

    Raises:
        TypeError: ``other`` is no fit. ValueError: a fit of other symmetries.
    """
    checks: list[Callable[[InvariancePosterior], list[Verdict]]] = [
        _convergence,
        mode_verdicts,
        _importance,
        _draws,
        inducing_verdicts,
        own_weights_verdicts,
        _bounds,
        _prior,
    ]
    found = [verdict for check in checks for verdict in check(posterior)]
    found += _orbit_size(posterior) if not orbit else _orbit_measured(posterior)
    found += _classes(posterior)
    found += baseline_verdicts(posterior)
    if sensitivity:
        found += _sensitivity(posterior)
    if test is not None:
        found.append(_predictive(posterior, test))
        found += baseline_test(posterior, test)
    if other is not None:
        for fit in other.values() if isinstance(other, Mapping) else [other]:
            if not hasattr(fit, "result"):
                raise TypeError(
                    f"other: expected another fit of the same model and data, got a {type(fit).__name__}; test data go "
                    "by name: check(test=(x, y))"
                )
        others = other if isinstance(other, Mapping) else {_label(other): other}
        found += [verdict for name, fit in others.items() for verdict in _guides(posterior, name, fit)]
    return Verdicts(found)


def _is_point(posterior: InvariancePosterior) -> bool:
    return posterior.result.num_chains * posterior.result.num_draws == 1


def _convergence(posterior: InvariancePosterior) -> list[Verdict]:
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
    return [Verdict("convergence", "serious", message, "raise max_steps.")]


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


def _importance(posterior: InvariancePosterior) -> list[Verdict]:
    result = posterior.result
    k = result.pareto_k
    if k is None:
        if result.inference == "vi" and result.surrogate is None:
            message = (
                "The draws carry no importance weights: the objective is an estimate from minibatches, so that how "
                "close the guide came to the posterior is not known."
            )
            return [Verdict("importance", "note", message, "checks.coverage(...) measures what the intervals hold.")]
        return []
    if not math.isfinite(k):
        draws = counted(result.num_draws, "draw")
        message = f"The weights of {draws} have too short a tail to be judged (Pareto k̂ needs about 25):"
        return [Verdict("importance", "serious", message, "raise num_draws.")]
    if not weights_are_good(k, result.num_draws):
        message = (
            f"Pareto k̂ = {k:.2f} is above {limit_in_words(result.num_draws)}: the guide misses part of the posterior, "
            "so that the reweighted posterior and log_evidence are rough."
        )
        advice = f'Raise num_draws, such as num_draws={4 * result.num_draws}; inference="nuts" is the referee.'
        return [Verdict("importance", "serious", message, advice)]
    message = f"Pareto k̂ = {k:.2f} is within {limit_in_words(result.num_draws)}: the importance weights can be trusted."
    if not variance_is_finite(k, result.num_draws):
        message += " Their variance is infinite, so that log_evidence has no standard error."
    return [Verdict("importance", "ok", message)]


def _draws(posterior: InvariancePosterior) -> list[Verdict]:
    result = posterior.result
    effective, found = math.inf, []
    if result.log_weights is not None:
        failed = int(torch.isinf(result.log_weights).sum())
        if failed:
            have = "has" if failed == 1 else "have"
            message = f"The evidence could not be computed at {counted(failed, 'draw')}, which {have} no weight."
            advice = "Where they are many, give the extents priors that end further in."
            if posterior.model.precision != "double":
                advice = f'Try InvarianceModel(..., precision="double"). {advice}'
            found.append(Verdict("draws", "note", message, advice))
        effective = float(torch.exp(-(2.0 * result.log_weights).logsumexp(0)))
    elif result.ess is not None:
        effective = min((e for e in result.ess if math.isfinite(e)), default=math.inf)
    if effective < FEWEST_EFFECTIVE_DRAWS:
        message = f"The draws are worth {effective:.0f} independent ones: the ends of an interval rest on few of them."
        found.append(Verdict("draws", "note", message, "Raise num_draws, or use a guide that fits better."))
    return found


def _bounds(posterior: InvariancePosterior) -> list[Verdict]:
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
        if _is_point(posterior) or name not in posterior.model.active or name in known or name in dominated:
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
    if _is_point(posterior):
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
    if _is_point(posterior):
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


def _prior(posterior: InvariancePosterior) -> list[Verdict]:
    """The largest distance of the posterior's distribution function from the prior's, symmetry by symmetry."""
    if _is_point(posterior):
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
    if not posterior.model.active or any(verdict.level == "serious" for verdict in _convergence(posterior)):
        return []  # a fit that has not settled is where it started, which no data have placed
    ended = [coordinate.name for coordinate, _, _ in _at_their_bound(posterior)]
    if ended:
        others = "The data place the other extents; " if len(ended) < len(posterior.model.active) else ""
        message = f"{others}the upper end of {', '.join(ended)} is that of the prior, and not of the data."
        return [Verdict("prior", "note", message[0].upper() + message[1:], "See what is said of its bound.")]
    return [Verdict("prior", "ok", "The posterior of no extent repeats its prior.")]


def _orbit_size(posterior: InvariancePosterior) -> list[Verdict]:
    """A rule of thumb; ``orbit=True`` measures it."""
    model = posterior.model
    if model.evidence.minibatch or _is_point(posterior):
        return []  # fresh draws at every step: a finite orbit adds noise and no error of its own
    # Every output and every group has an orbit of its own: what counts is what moves one copy.
    own = {c.name for c in model.orbit.transform.coordinates if c.order == 0}
    coordinates = {name.split("[")[0] for name in model.active} & own
    needed = COPIES_PER_SYMMETRY * len(coordinates)
    S = model.orbit.num_samples
    if needed <= S:
        return []
    message = f"{S} copies for {len(coordinates)} symmetries leave parts of the orbit without any."
    return [Verdict("orbit", "note", message, f"Set num_orbit_samples to {needed} or more, or call check(orbit=True).")]


def _orbit_measured(posterior: InvariancePosterior) -> list[Verdict]:
    from bayesinv.checks.orbit import orbit_sensitivity  # evaluates the model: only where asked for

    return [orbit_sensitivity(posterior).verdict()]


def _classes(posterior: InvariancePosterior) -> list[Verdict]:
    if posterior.model.likelihood != "categorical":
        return []
    labels = posterior.data.y.cpu().reshape(len(posterior.data), -1)  # (n, 1), or (n, cells) of maps
    # Examples that hold a class: the cells of one map are no examples of their own.
    counts = torch.stack([(labels == c).any(1).sum() for c in range(posterior.data.num_outputs)])
    share, fewest = float(labels.flatten().bincount().max() / labels.numel()), int(counts.min())
    if share > LARGEST_CLASS_SHARE:
        what = "labels" if posterior.data.y.ndim == 1 else "cells"
        message = f"{share:.0%} of the training {what} are of one class."
        return [Verdict("classes", "note", message, "Look at log loss and class by class rather than at accuracy.")]
    if fewest < FEWEST_PER_CLASS:
        rare = [c for c, count in enumerate(counts.tolist()) if count < FEWEST_PER_CLASS]
        listed = ", ".join(str(c) for c in rare[:5]) + (", ..." if len(rare) > 5 else "")
        have = f"Class {listed} has" if len(rare) == 1 else f"Classes {listed} have"
        message = f"{have} fewer than {FEWEST_PER_CLASS} training examples; the fewest is {fewest}."
        return [Verdict("classes", "note", message, "Extents lean on the other classes; gather examples of these.")]
    return [Verdict("classes", "ok", f"Every class has at least {fewest} training examples.")]


def _sensitivity(posterior: InvariancePosterior) -> list[Verdict]:
    from bayesinv.checks.sensitivity import prior_sensitivity

    return prior_sensitivity(posterior).verdicts()


def _predictive(posterior: InvariancePosterior, test: Any) -> Verdict:
    from bayesinv.checks.predictive import predictive_check

    return predictive_check(posterior, test)


def _label(posterior: InvariancePosterior) -> str:
    return posterior.result.guide or posterior.result.inference


def _guides(posterior: InvariancePosterior, label: str, other: InvariancePosterior) -> list[Verdict]:
    """Medians apart by half an interval's half-width, or widths by half: more than draws of one posterior would.

    Raises:
        ValueError: the other fit considers other symmetries.
    """
    if other.symmetries != posterior.symmetries:
        raise ValueError(
            f"other: expected a fit of the same symmetries {list(posterior.symmetries)}, got {list(other.symmetries)}"
        )
    levels = [0.05, 0.5, 0.95]
    (a_low, a, a_high), (b_low, b, b_high) = posterior.quantile(levels), other.quantile(levels)
    found = []
    for k, coordinate in enumerate(posterior.model.coordinates):
        if coordinate.name not in posterior.model.active:
            continue
        widths = [float(a_high[k] - a_low[k]), float(b_high[k] - b_low[k])]
        # Extents too small to see may differ by any factor.
        blank = float(posterior.model.transform.negligible(posterior.data.event_shape)[k])
        if max(float(a_high[k]), float(b_high[k])) < blank:
            continue
        shift = abs(float(a[k] - b[k])) / max(0.25 * sum(widths), 1e-12)  # in half-widths of an interval
        ratio = max(widths) / max(min(widths), 1e-12)
        if shift > GUIDE_SHIFT or ratio > GUIDE_RATIO:
            message = (
                f"{coordinate.name}: {coordinate.words(float(a[k]))} here and {coordinate.words(float(b[k]))} by "
                f"{label}; the wider of the two intervals is {ratio:.2g} times the other."
            )
            advice = "Trust NUTS, or the fit with the lower k̂ and the higher ELBO."
            found.append(Verdict("guides", "serious", message, advice))
    return found or [Verdict("guides", "ok", f"The fit by {label} gives the same extents.")]
