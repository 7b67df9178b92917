"""``fit`` where the evidence takes all data at once: modes, weighed draws around them, and NUTS."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Sequence
from typing import Any

import torch

from bayesinv.data.container import Data
from bayesinv.errors import NonFiniteError, NumericalError
from bayesinv.fitted.result import InferenceResult
from bayesinv.inference.evaluation_record import EvaluationRecord, fingerprint
from bayesinv.inference.guides import normal_of
from bayesinv.inference.importance import WeightedDraws, importance_sample, weigh
from bayesinv.inference.loop import Callback
from bayesinv.inference.modes import RISE, Mode
from bayesinv.inference.nuts import Chains, run_nuts
from bayesinv.inference.options import NUM_DRAWS, NUTS, VI
from bayesinv.inference.target import Target
from bayesinv.inference.usual_mistakes import warn_of_usual_mistakes
from bayesinv.inference.vi import (
    ENOUGH_OF_LARGE,
    MIXTURES,
    approximate,
    are_enough,
    climb,
    local_parameters,
    on_exact,
    train_guide,
)
from bayesinv.model.conditioning import is_light
from bayesinv.model.exact_evidence import exact_for_weights
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.arguments import counted
from bayesinv.numerics.processes import is_first
from bayesinv.numerics.psis import why_no_standard_error
from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.threads import one_thread
from bayesinv.numerics.torch_modes import ordinary
from bayesinv.posterior.invariance_posterior import InvariancePosterior

MAX_STEPS = 200  # evaluations from each start
# Vehtari et al. (2021, arXiv:1903.08008) ask for 1.01, with four chains or more. Of two chains of 300 draws with an
# autocorrelation of 0.5 and nothing wrong, the largest R̂ of three extents passed 1.01 in 66 % of 200 trials, and 1.05
# in none (at most 1.042).
LARGEST_RHAT = 1.05


def fit_collapsed(
    model: InvarianceModel,
    data: Data,
    method: VI,
    *,
    seed: int,
    device: torch.device,
    progress: bool,
    callbacks: Sequence[Callback],
) -> InvariancePosterior:
    """Fit to all data at once; arguments as for ``fit``.

    Raises:
        NonFiniteError: the evidence could not be computed; its ``posterior`` holds the last good state, if any.
        CheckpointError: a checkpoint of another fit, or a damaged one.
    """
    began = time.perf_counter()
    with ordinary(grad=True):
        fitted = copy.deepcopy(model).to(device)
        data = data.to(device)
    with ordinary(grad=True), seeded(seed), local_parameters(), one_thread(is_light(fitted, data)) as num_threads:
        fitted.initialise(data, seed)
        warn_of_usual_mistakes(fitted, data, stacklevel=4)  # the line that called fit
        record = None
        if method.checkpoint is not None and is_first():  # of several processes, which all compute the same
            record = EvaluationRecord(method.checkpoint, fingerprint(fitted, data, seed))
        with contextlib.nullcontext() if record is None else record.kept():
            target = Target(fitted, data, record=record)
            facts, failure = _facts(target, method, seed, num_threads, progress, callbacks)
    if failure is not None:
        facts["warnings"] = (*facts["warnings"], str(failure))
    settings = {
        "device": str(device),
        "max_steps": MAX_STEPS if method.max_steps is None else method.max_steps,
        "learning_rate": method.learning_rate,
        "num_train": len(data),
        **facts.pop("settings"),
    }
    result = InferenceResult(**facts, seconds=time.perf_counter() - began, seed=seed, settings=settings)
    posterior = InvariancePosterior(fitted, data, result)
    if failure is not None:
        failure.posterior = posterior
        raise failure
    return posterior


def _facts(
    target: Target,
    method: VI,
    seed: int,
    num_threads: int,
    progress: bool,
    callbacks: Sequence[Callback],
) -> tuple[dict[str, Any], NonFiniteError | None]:
    """The facts of a fit on all data at once, and what ended it early."""
    model, data, guide = target.model, target.data, method.guide
    max_steps = MAX_STEPS if method.max_steps is None else method.max_steps
    num_draws = NUM_DRAWS if method.num_draws is None else method.num_draws
    modes = climb(target, max_steps, progress, callbacks, num_threads)
    latent = method.hyperparameters == "latent" and target.num_hyper > 0
    facts = _mode_facts(target, modes)
    facts["settings"]["hyperparameters"] = method.hyperparameters
    exact = exact_for_weights(model, data) if isinstance(guide, str) and guide in MIXTURES else None
    if exact is not None:
        modes = on_exact(target, modes, exact, max_steps, num_threads)
        facts["settings"]["modes"] = _described(target, modes)
        facts["converged"] = modes[0].converged and not modes[0].ended
    weighed_by = "evidence" if exact is None else "exact evidence"
    if not model.active:
        target.move(modes[0].theta)
        facts["settings"]["weighed_by"] = weighed_by
        return facts | _point_mass(exact or model, data), None
    if isinstance(guide, str) and guide in MIXTURES:
        found = approximate(
            target,
            modes,
            num_draws if isinstance(method, NUTS) else method.num_draws,
            latent,
            guide == "mean_field",
            seed,
            progress,
            num_threads,
            exact,
        )
        weighed = weigh(found.extents, found.log_weights)
        facts["settings"]["weighed_by"] = weighed_by
        facts |= _weighted_draws(weighed, guide)
        facts |= {"hyperparameters": found.hyperparameters, "density": found.density}
        # At a kink a gradient stays. Where draws that cover the posterior have none that is higher, the mode is found
        # all the same; draws that miss it, or have no evidence, say nothing.
        cover = are_enough(found.log_weights, ENOUGH_OF_LARGE) and not modes[0].ended
        facts["converged"] |= cover and found.above < RISE
        failure = None
    else:
        found = None
        q, name, failure = train_guide(target, modes, guide, method.learning_rate, progress, callbacks)
        weighed = importance_sample(model, q, data, num_draws)
        facts |= _weighted_draws(weighed, name)
        facts["density"] = normal_of(q, model.extents)
        latent = False
        facts["settings"]["hyperparameters"] = "optimised"
    if isinstance(method, NUTS) and failure is None:
        try:
            hyper = found.hyperparameters if found is not None and latent else None
            chains = run_nuts(target, weighed, hyper, method.num_chains, num_draws, method.num_warmup, seed, progress)
        except NumericalError as error:
            failure = NonFiniteError(f"NUTS: {error}; the variational posterior is kept", step=0)
        else:
            settings = facts["settings"] | {"num_warmup": method.num_warmup, "guide": facts["guide"]}
            facts |= _chain_draws(chains, method.num_warmup)
            facts["settings"] = settings | facts["settings"]
    return facts, failure


def _mode_facts(target: Target, modes: Sequence[Mode]) -> dict[str, Any]:
    """Trace and convergence of the climb, and every mode."""
    best = modes[0]
    return {
        "trace": best.trace,
        "num_steps": sum(mode.evaluations for mode in modes),
        "converged": best.converged and not best.ended,
        "warnings": (),
        "settings": {"modes": _described(target, modes)},
    }


def _described(target: Target, modes: Sequence[Mode]) -> list[dict[str, Any]]:
    """Every mode, as JSON holds it."""
    return [
        {
            "start": mode.start,
            "log_joint": mode.value,
            "extents": target.extents(mode.theta[: target.num_extents]).tolist(),
            "evaluations": mode.evaluations,
            "decrement": mode.decrement,
            "merged": mode.merged,
            "ended": mode.ended,
        }
        for mode in modes
    ]


def _point_mass(model: InvarianceModel, data: Data) -> dict[str, Any]:
    """The facts of a fit whose extents are all fixed."""
    eta = torch.tensor([model.extents.fixed[name] for name in model.symmetries], dtype=torch.float64)
    with torch.no_grad():
        value = float(model.log_evidence(eta, data))
    return {
        "inference": "fixed",
        "guide": None,
        "extents": eta[None, None],
        "log_evidence": value,
        "log_evidence_se": 0.0,
    }


def _weighted_draws(drawn: WeightedDraws, guide: str) -> dict[str, Any]:
    """The facts of a variational fit."""
    notes: tuple[str, ...] = ()
    if drawn.num_failed:
        have = "has" if drawn.num_failed == 1 else "have"
        notes = (f"the evidence could not be computed at {counted(drawn.num_failed, 'draw')}, which {have} no weight",)
    return {
        "inference": "vi",
        "guide": guide,
        "extents": drawn.extents[None],
        "log_weights": drawn.log_weights,
        "pareto_k": drawn.pareto_k,
        "log_evidence": drawn.log_evidence,
        "log_evidence_se": drawn.log_evidence_se,
        "warnings": notes,
    }


def _chain_draws(chains: Chains, num_warmup: int) -> dict[str, Any]:
    """The facts of a NUTS run, in place of those of the variational fit that it started from."""
    notes: tuple[str, ...] = ()
    reason = why_no_standard_error(chains.evidence.pareto_k, len(chains.evidence.log_weights))
    if reason:
        notes = (f"log_evidence is rough and has no standard error: of its own weights, {reason}",)
    return {
        "inference": "nuts",
        "guide": None,
        "extents": chains.extents,
        "hyperparameters": chains.hyperparameters,
        "log_weights": None,
        "pareto_k": None,
        "log_evidence": chains.evidence.log_evidence,
        "log_evidence_se": chains.evidence.log_evidence_se,
        "num_steps": num_warmup + chains.extents.shape[1],
        "converged": chains.worst_rhat <= LARGEST_RHAT,
        "rhat": chains.rhat,
        "ess": chains.ess,
        "warnings": notes,
        "settings": {"divergences": chains.divergences, "saturated": chains.saturated, "weighed_by": "evidence"},
    }
