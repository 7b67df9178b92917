"""``bayesinv.select``: which symmetries, with probabilities, Bayes factors and sets."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bayesinv.errors import ImportanceWarning, NotConvergedWarning
from bayesinv.extents.priors import Outward, Prior
from bayesinv.extents.spike_and_slab import SpikeAndSlab
from bayesinv.inference import Training, fit
from bayesinv.io.progress import progress_bar
from bayesinv.model.exact_evidence import weighing_model
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.psis import limit_in_words
from bayesinv.numerics.randomness import seeded
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.selection.evaluations import evaluator, refitted_model
from bayesinv.selection.evidence_of_set import Moments, SetEvidence
from bayesinv.selection.paired import paired_bayes_factors
from bayesinv.selection.relaxed import RelaxedSelection, with_spikes
from bayesinv.selection.result import Selection
from bayesinv.selection.search import Budget, estimate_sets, optimistic_log_shares
from bayesinv.selection.sets import InclusionPrior, all_sets, inclusion_probabilities, log_prior_of_sets
from bayesinv.selection.slabs import log_masses
from bayesinv.selection.space import UnconstrainedSpace
from bayesinv.selection.subsets import SetDraws, SubsetSelection

METHODS = ("auto", "subsets", "relaxed")
# 2⁸ = 256 sets: with 16 draws each in the first pass, the most that minutes allow at a tenth of a second.
MOST_SYMMETRIES = 8
# Share of the posterior probability that may rest on sets of few effective draws without a warning.
LARGEST_ROUGH_SHARE = 0.05
# Nats below the best set within which refitted hyperparameters might bring a set back.
REFIT_WITHIN = 30.0


def select(
    fitted: InvariancePosterior | InvarianceModel,
    data: Any = None,
    *,
    prior_inclusion: InclusionPrior = 0.5,
    method: str = "auto",
    draws_per_round: int = 16,
    max_rounds: int = 10,
    tolerance: float = 0.003,
    refit_steps: int = 40,
    slab_scales: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
    spike: float = 0.002,
    training: Training | None = None,
    num_paired: int = 40,
    seed: int = 0,
    on_round: Callable[[int, int], object] | None = None,
    progress: bool = False,
) -> Selection:
    """Which symmetries the data call for: a spike-and-slab posterior over sets of symmetries.

        γ_k ~ Bernoulli(π_k),   η_k = 0 if γ_k = 0, else η_k ~ slab_k,      p(A | D) ∝ p(A) ∫ p(D | η_A, 0) p(η_A) dη_A

    The slab of a symmetry is its prior in the model. Candidates are the latent symmetries; fixed ones stay as they are.

    "subsets" (deterministic evidences, up to 8 symmetries) estimates the evidence of every set by adaptive importance
    sampling, with the kernel and the noise refitted for each likely set. "relaxed" (everything else) fits once more
    under :class:`SpikeAndSlab` priors and averages over its draws.

    Args:
        fitted: a posterior, whose extents start the search; or a model, which is fitted to `data` first.
        data: the training data, for a model; for a posterior only where "relaxed" needs more than the 1,000 examples
            that a minibatch fit keeps.
        prior_inclusion: π, one for all or by name; or "beta_binomial", which charges for the number of candidates.
        method: "auto", "subsets" or "relaxed".
        draws_per_round: evaluations of the evidence in one round of one set; at least 8.
        max_rounds: rounds of one set at the most. Every set has one, likely ones get more.
        tolerance: rounds end where no set's error changes a probability by more than this.
        refit_steps: the most evaluations for the hyperparameters of each set that is within 30 nats of the best one. 0
            holds them at the fit's values, which were learned with every symmetry in and favour what was in: on null
            data that gave false inclusions in 14 of 40 sets.
        slab_scales: shares of the slabs' reach for `sensitivity`; they cost nothing.
        spike: width of the relaxed spikes as a share of the reach.
        training: of the relaxed fit of an evidence that takes minibatches; give that of the original fit.
        num_paired: draws of the paired Bayes factors that a network's selection gets besides; 0 for none.
        seed: of everything random; the same seed gives the same result on the CPU.
        on_round: called with the number of each round after the first and how many sets draw in it.
        progress: show a bar of the evaluations with what they are for; of a fit, where there is one, its own.

    Returns:
        A :class:`SubsetSelection` or a :class:`RelaxedSelection`: `.inclusion`, `.bayes_factors`, `.subsets`,
        `.summary()`, `.plot()`, `.save(path)`.

    Raises:
        ValueError: no latent symmetry, an outward prior, a point estimate, or "subsets" where it cannot be had.
        TypeError: neither a posterior nor a model.

    Warns:
        ImportanceWarning: k̂ of the likeliest set is past its limit for so many draws, or cannot be estimated.
        NotConvergedWarning: too much rests on too few draws.

    Reference:
        T. J. Mitchell, J. J. Beauchamp (1988). Bayesian variable selection in linear regression. JASA 83:1023.

    Example:
        >>> from bayesinv import GaussianProcess
        >>> from bayesinv.datasets import digits
        >>> train = digits(rotation=0.8, num_train=60, seed=0).train
        >>> model = InvarianceModel(GaussianProcess(num_inducing=20), ["rotation", "shear"], num_orbit_samples=8)
        >>> posterior = fit(model, train, seed=0, max_steps=60, num_draws=25)  # doctest: +SKIP
        >>> select(posterior).inclusion  # doctest: +SKIP
    """
    began = time.perf_counter()
    if method not in METHODS:
        raise ValueError(f"method: expected one of {list(METHODS)}, got {method!r}")
    _check(draws_per_round, max_rounds, tolerance, refit_steps)
    model = fitted.model if isinstance(fitted, InvariancePosterior) else fitted
    if isinstance(model, InvarianceModel):  # before it is fitted, which may take long
        method = _checked_method(model, method)
        inclusion_probabilities(prior_inclusion, model.active)  # refuses what is none
    posterior = _as_posterior(fitted, data, training, seed, progress)
    model = posterior.model
    if method == "relaxed":
        return _relaxed(posterior, data, prior_inclusion, spike, training, num_paired, seed, began, progress)
    masses = log_masses(list(slabs_of(model).values()), slab_scales)
    budget = Budget(draws_per_round, max_rounds, tolerance)
    with progress_bar(progress, "evaluation") as bar:
        return _subsets(posterior, prior_inclusion, budget, refit_steps, masses, seed, began, on_round, bar)


def slabs_of(model: InvarianceModel) -> dict[str, Prior]:
    """The prior of each latent extent given that its symmetry is in."""
    priors = {name: model.extents.priors[name] for name in model.active}
    return {name: prior.slab if isinstance(prior, SpikeAndSlab) else prior for name, prior in priors.items()}


def _check(draws_per_round: int, max_rounds: int, tolerance: float, refit_steps: int) -> None:
    least = {"draws_per_round": (draws_per_round, 8), "max_rounds": (max_rounds, 1), "refit_steps": (refit_steps, 0)}
    for name, (value, lowest) in least.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise ValueError(f"{name}: expected an integer of at least {lowest}, got {value!r}")
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance: expected a positive number, got {tolerance!r}")


def _checked_method(model: InvarianceModel, method: str) -> str:
    """ "subsets" or "relaxed"; raises where the model has nothing that could be selected, or not in this way."""
    if not model.active:
        raise ValueError("select: every extent of this model is fixed, so there is nothing to select")
    if model.groups is not None:
        raise ValueError(
            "select: the extents of groups hang together through their population, which a spike for each would cut; "
            "select with a model without groups"
        )
    outward = [name for name in model.active if isinstance(model.extents.priors[name], Outward)]
    if outward or model.evidence_name == "plugin":
        raise ValueError(
            f"select: the {model.evidence_name} evidence with the priors of {outward or list(model.active)} is a "
            "trade-off without an Occam factor, which has no Bayes factors; use an evidence that integrates the "
            'function out (evidence="auto") and a slab such as the default prior'
        )
    exact = not model.evidence.minibatch
    if method == "auto":
        method = "subsets" if exact and len(model.active) <= MOST_SYMMETRIES else "relaxed"
    if method == "relaxed":
        return method
    if not exact:
        raise ValueError(
            f'method="subsets" integrates the evidence, and the {model.evidence_name} evidence is an estimate from '
            'minibatches; use method="relaxed"'
        )
    if len(model.active) > MOST_SYMMETRIES:
        raise ValueError(
            f'method="subsets" takes up to {MOST_SYMMETRIES} symmetries, and this model has {len(model.active)}; use '
            'method="relaxed", or fix those that are not in question'
        )
    return method


def _as_posterior(
    fitted: Any, data: Any, training: Training | None, seed: int, progress: bool = False
) -> InvariancePosterior:
    if isinstance(fitted, InvariancePosterior):
        if data is not None and not fitted.model.evidence.minibatch:
            raise ValueError("select(posterior, data): this posterior holds its training data; call select(posterior)")
        return fitted
    if isinstance(fitted, InvarianceModel):
        if data is None:
            raise ValueError("select(model): expected the training data too: select(model, (x, y))")
        return fit(fitted, data, seed=seed, training=training, progress=progress)
    hint = ": wrap the network in an InvarianceModel" if isinstance(fitted, nn.Module) else ""
    raise TypeError(f"select: expected an InvariancePosterior or an InvarianceModel, got {type(fitted).__name__}{hint}")


def _relaxed(
    posterior: InvariancePosterior,
    data: Any,
    prior_inclusion: InclusionPrior,
    spike: float,
    training: Training | None,
    num_paired: int,
    seed: int,
    began: float,
    progress: bool,
) -> RelaxedSelection:
    model = posterior.model
    num_total = int(posterior.result.settings.get("num_train", len(posterior.data)))
    if data is None and len(posterior.data) < num_total:
        raise ValueError(
            f'method="relaxed" fits again and needs all {num_total} training examples, of which this posterior keeps '
            f"{len(posterior.data)}: select(posterior, (x, y))"
        )
    examples = posterior.data if data is None else data
    spiked = with_spikes(model, prior_inclusion, spike)
    refitted = fit(spiked, examples, seed=seed, training=training, progress=progress)
    paired = None
    if num_paired and model.evidence.minibatch:
        paired = paired_bayes_factors(refitted, num_draws=num_paired, seed=seed)
    found = RelaxedSelection.of(
        refitted,
        prior_inclusion=prior_inclusion,
        seed=seed,
        seconds=time.perf_counter() - began,
        settings={"spike": spike, "num_train": num_total, "evidence": model.evidence_name}
        | ({} if refitted.result.converged else {"trusted": False}),
        warnings=refitted.result.warnings,
        paired=paired,
    )
    doubtful = found.contradictions
    if doubtful:
        note = (
            f"{', '.join(doubtful)}: the relaxed spikes and the paired evidences point in opposite directions, so that "
            "the guide has probably not settled between spike and slab: raise epochs, and trust neither alone"
        )
        found = dataclasses.replace(found, settings={**found.settings, "trusted": False})
        warnings.warn(note, NotConvergedWarning, stacklevel=3)
        found = dataclasses.replace(found, warnings=(*found.warnings, note))
    return found


def _subsets(
    posterior: InvariancePosterior,
    prior_inclusion: InclusionPrior,
    budget: Budget,
    refit_steps: int,
    masses: dict[float, Tensor],
    seed: int,
    began: float,
    on_round: Callable[[int, int], object] | None,
    bar: Any,
) -> SubsetSelection:
    data = posterior.data
    model = weighing_model(posterior.model, data, posterior.result.settings)
    slabs = slabs_of(model)
    space = UnconstrainedSpace(slabs, model.active)
    places = [posterior.index(name) for name in model.active]
    fixed = torch.tensor([model.extents.fixed.get(name, 0.0) for name in model.symmetries], dtype=torch.float64)
    evaluate = evaluator(model, data, fixed, places, bar.update)
    start = _start(posterior, space, places)
    sets = all_sets(len(model.active))
    log_prior = log_prior_of_sets(sets, prior_inclusion, model.active)

    def doing(what: str, evaluations: int) -> None:
        """Say what comes next, and how many evaluations it takes at the most."""
        bar.total = bar.n + evaluations
        bar.set_description(what)

    def refit(estimators: Sequence[SetEvidence]) -> None:
        if not refit_steps:
            return
        shares = optimistic_log_shares(estimators, log_prior)
        for estimator, share in zip(estimators, (shares - shares.max()).tolist(), strict=True):
            if share > -REFIT_WITHIN:
                names = ", ".join(model.active[k] for k in estimator.which) or "no symmetry"
                doing(f"hyperparameters with {names}", refit_steps + budget.draws_per_round)
                eta = fixed.clone()
                if not estimator.exact:
                    middle = space.to_extents(estimator.moments().mean[None], estimator.which)[0]
                    eta[torch.tensor(places)[estimator.which]] = middle
                better = refitted_model(model, data, eta, refit_steps, bar.update)
                if better is not None:
                    estimator.replace(evaluator(better, data, fixed, places, bar.update))
                    estimator.draw(budget.draws_per_round)

    def each_round(number: int, num_sets: int) -> None:
        if num_sets:
            doing(f"round {number} of at most {budget.max_rounds}, {num_sets} sets", num_sets * budget.draws_per_round)
        if on_round is not None:
            on_round(number, num_sets)

    doing(f"all {len(sets)} sets once", 1 + (len(sets) - 1) * budget.draws_per_round)
    with seeded(seed):
        estimators = estimate_sets(
            sets,
            log_prior,
            lambda which: SetEvidence(which, space, evaluate, start.of(which)),
            budget,
            after_first=refit,
            on_round=each_round,
        )
    bar.total = bar.n
    draws = tuple(SetDraws(e.extents, e.log_weights(), e.pareto_k, e.num_failed) for e in estimators)
    selection = SubsetSelection(
        symmetries=model.active,
        prior_inclusion=prior_inclusion,
        seed=seed,
        seconds=time.perf_counter() - began,
        settings={
            "num_train": len(data),
            "evidence": model.evidence_name,
            "refit_steps": refit_steps,
            "draws_per_round": budget.draws_per_round,
            "max_rounds": budget.max_rounds,
            "tolerance": budget.tolerance,
        },
        sets=sets,
        draws=draws,
        fixed=fixed,
        places=tuple(places),
        slab_high=torch.tensor([float(s.support.upper_bound) for s in slabs.values()], dtype=torch.float64),
        slab_log_mass=masses,
    )
    best = selection.draws[int(selection.log_probability.argmax())]
    trusted = best.good_weights and selection.rough_share <= LARGEST_ROUGH_SHARE
    settings = selection.settings if trusted else {**selection.settings, "trusted": False}
    return dataclasses.replace(selection, warnings=_notes(selection), settings=settings)


def _notes(selection: SubsetSelection) -> tuple[str, ...]:
    """What degrades the result, as warnings too."""
    notes = []
    best = selection.draws[int(selection.log_probability.argmax())]
    if not best.good_weights:
        k, num = best.pareto_k, best.num_weights
        found = f"Pareto k̂ = {k:.2f} of the likeliest set is above {limit_in_words(num)}"
        if not math.isfinite(k):
            found = f"the likeliest set has {num} draws of some weight, too few for a Pareto k̂"
        notes.append(f"{found}: its evidence is rough; raise draws_per_round or max_rounds")
        warnings.warn(notes[-1], ImportanceWarning, stacklevel=4)
    rough = selection.rough_share
    if rough > LARGEST_ROUGH_SHARE:
        notes.append(
            f"sets with a probability of {rough:.2f} together rest on fewer than five effective draws each: raise "
            "draws_per_round or max_rounds"
        )
        warnings.warn(notes[-1], NotConvergedWarning, stacklevel=4)
    failed = sum(d.num_failed for d in selection.draws)
    if failed:
        notes.append(f"the evidence could not be computed at {failed} draws, which have no weight")
    return tuple(notes)


def _start(posterior: InvariancePosterior, space: UnconstrainedSpace, places: Sequence[int]) -> Moments:
    """Moments in z of the posterior's draws; broad ones for a point estimate."""
    draws = posterior.result.draws[:, list(places)]
    K = len(places)
    if len(draws) < 5 * K or bool((draws == draws[0]).all()):
        raise ValueError(
            f"select: this posterior ({posterior.result.inference}) has {len(draws)} draws, and at least {5 * K} with "
            'a spread are needed to start from; fit with inference="vi" or "nuts"'
        )
    z = space.from_extents(draws, torch.arange(K))
    log_weights = posterior.log_weights(None)
    weights = torch.ones(len(z), dtype=torch.float64) if log_weights is None else torch.from_numpy(log_weights).exp()
    found = Moments.weighted(z, weights / weights.sum())
    return Moments(found.mean, found.covariance + 0.05**2 * torch.eye(K, dtype=torch.float64))
