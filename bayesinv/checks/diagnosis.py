"""``posterior.check()``: what may be wrong with a fit, how badly, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from bayesinv.checks.approximations import inducing_verdicts, mode_verdicts, own_weights_verdicts
from bayesinv.checks.baseline import baseline_test, baseline_verdicts
from bayesinv.checks.extent_verdicts import bound_verdicts, convergence_verdicts, prior_verdicts
from bayesinv.checks.verdicts import Verdict, Verdicts
from bayesinv.numerics.arguments import counted
from bayesinv.numerics.psis import limit_in_words, variance_is_finite, weights_are_good

if TYPE_CHECKING:
    from bayesinv.posterior.invariance_posterior import InvariancePosterior

FEWEST_EFFECTIVE_DRAWS = 50  # the ends of a 90 % interval then rest on two or three draws each
FEWEST_PER_CLASS = 5
LARGEST_CLASS_SHARE = 0.9
COPIES_PER_SYMMETRY = 4  # of a Sobol orbit; with fewer, half of a symmetry's range can be left without a copy
GUIDE_SHIFT, GUIDE_RATIO = 0.5, 1.5


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
        convergence_verdicts,
        mode_verdicts,
        _importance,
        _draws,
        inducing_verdicts,
        own_weights_verdicts,
        bound_verdicts,
        prior_verdicts,
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


def _orbit_size(posterior: InvariancePosterior) -> list[Verdict]:
    """A rule of thumb; ``orbit=True`` measures it."""
    model = posterior.model
    if model.evidence.minibatch or posterior.result.is_point:
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
