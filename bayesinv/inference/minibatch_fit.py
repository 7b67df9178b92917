"""``fit`` where data come in minibatches: variational inference and point methods on networks."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.data.streams import Stream, derive_seed, stream_of
from bayesinv.data.streams.indexed import MemoryStream
from bayesinv.errors import DataError, NonFiniteError, NotConvergedWarning
from bayesinv.evidence import LaplaceEvidence
from bayesinv.extents.priors import Outward
from bayesinv.fitted.result import InferenceResult
from bayesinv.inference.cost import estimate_cost, warn_of_cost
from bayesinv.inference.evidence_at_mode import evidence_at_mode
from bayesinv.inference.first_look import check_examples_apart, check_gradients, differentiated
from bayesinv.inference.guides import GuideFactory, normal_of
from bayesinv.inference.importance import draw_extents
from bayesinv.inference.loop import WINDOW, Callback, Trace, still_rising
from bayesinv.inference.minibatch import VariationalObjective
from bayesinv.inference.options import VI
from bayesinv.inference.own_weights import check_own_weights, is_cheap, own_weights
from bayesinv.inference.point import MethodObjective, PointMethod
from bayesinv.inference.predictive import KEPT_EXAMPLES, second_stage
from bayesinv.inference.training import Objective, Training, train
from bayesinv.inference.usual_mistakes import warn_of_empty_groups, warn_of_usual_mistakes
from bayesinv.inference.vi import local_parameters
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.torch_modes import ordinary
from bayesinv.posterior.invariance_posterior import InvariancePosterior

# Adam at the default rate moves an extent by 0.1 a step where its prior is N(0, 1), and from its start to the far end
# of the prior are three units.
FEWEST_STEPS = 30
# Minibatches over which the final ELBO is averaged, at the most.
EVIDENCE_BATCHES = 20


def fit_minibatches(
    model: InvarianceModel,
    data: Any,
    method: VI | PointMethod,
    *,
    training: Training,
    seed: int,
    device: torch.device,
    guide: str | GuideFactory,
    max_steps: int | None,
    num_draws: int,
    progress: bool,
    callbacks: Sequence[Callback],
) -> InvariancePosterior:
    """Train over minibatches and wrap what came out; arguments as for ``fit``.

    Raises:
        DataError: unusable data. CheckpointError: a checkpoint of another fit, or a damaged one.
        NonFiniteError: the objective could not be computed; its ``posterior`` holds the last good state.

    Warns:
        NotConvergedWarning: the extents took too few steps to cross their range. UserWarning: see
            :func:`warn_of_usual_mistakes`.
    """
    began = time.perf_counter()
    stream = stream_of(data, model.likelihood, model.transform, training.num_workers, model.groups)
    if stream.num_total == 0:
        raise DataError("the data set is empty; expected at least 1 example")
    batch_size = min(training.batch_size, stream.num_total)
    per_epoch = max(1, stream.num_total // batch_size)
    total_steps = max(1, round(training.epochs * per_epoch)) if max_steps is None else max_steps
    second_steps = _second_steps(model, method, training, total_steps)
    num_steps = total_steps - second_steps
    whole, training = training, training.first_stage()
    with ordinary():
        fitted = method.copied(model) if isinstance(method, PointMethod) else copy.deepcopy(model)
        fitted.predictive = None
        fitted = fitted.to(device)
    failure: NonFiniteError | None = None
    with ordinary(grad=True), seeded(seed), local_parameters():
        kept = stream.subset(min(KEPT_EXAMPLES, stream.num_total), seed).to(device)
        if isinstance(method, PointMethod):
            method.check(kept)
        fitted.initialise(kept, seed, stream.num_total)
        warn_of_usual_mistakes(fitted, kept, stream.num_classes is not None)
        everything = _whole(stream, kept)
        if fitted.groups is not None and everything is not None and not isinstance(data, Data):  # fit has looked at it
            warn_of_empty_groups(fitted, everything)
        if fitted.is_network:
            fitted.network.mixed_precision = training.mixed_precision
            if stream.num_classes is None and fitted.likelihood == "categorical":
                stream.num_classes = fitted.network.initialise(kept.x, 1.0, seed)
            learns = not isinstance(method, PointMethod) or method.learns_extents
            check_gradients(fitted, kept.subset(slice(0, 2)), learns)
            if fitted.evidence.name == "laplace":
                check_examples_apart(fitted, kept)
        elif stream.num_classes is None:
            stream.num_classes = kept.num_classes  # what the process was sized for: later labels beyond are refused
        if training.own_weights and isinstance(method, PointMethod):
            raise ValueError(
                f"Training: own_weights: inference={method.name!r} has no posterior of extents to refit weights for; "
                "leave own_weights out"
            )
        if training.own_weights:
            check_own_weights(fitted, stream)
        point = method.objective(fitted, training, stream.num_total, seed) if isinstance(method, PointMethod) else None
        few = kept.subset(slice(0, 8))
        if point is None:
            with differentiated():
                variational = VariationalObjective(fitted, guide, few, stream.num_total)
        refits = point is None and training.own_weights is not False and bool(fitted.active)
        if refits and training.own_weights is None:
            refits = is_cheap(fitted, stream, training, seed)
        objective: Objective = variational if point is None else point
        name = method.name if isinstance(method, PointMethod) else "vi"
        if fitted.is_network:
            phases = objective.phases(training, num_steps)
            # To the last step of both stages: those of the second are of the finish, which has no steps in the first.
            warn_of_cost(estimate_cost(fitted, phases, training, few, stream.num_total, total_steps), fitted)
        fingerprint = _fingerprint(name, method, model, training, num_steps, seed, stream.num_total, guide)
        try:
            trace = train(
                objective, stream, training, num_steps, seed, fingerprint, progress, callbacks, not second_steps
            )
        except NonFiniteError as error:
            if error.step <= 1:
                raise
            trace, failure = Trace((), False), error
        settings: dict[str, Any] = {
            "device": str(device),
            "batch_size": batch_size,
            "epochs": total_steps / per_epoch,
            "num_train": stream.num_total,
            "training": _described(whole),
        }
        if point is not None:
            facts = _point_facts(point, name, settings, num_draws, seed)
            fitted = point.fitted_model()
        else:
            facts = _variational_facts(variational, kept, stream, training, num_steps, num_draws, seed, settings)
            if refits and failure is None:
                facts |= _own_weights(variational.mode, facts, stream, training, total_steps, seed, num_draws, settings)
    if fitted.is_network:
        fitted.network.mixed_precision = False
    notes = tuple(facts.pop("warnings", ())) + ((str(failure),) if failure is not None else ())
    short = point is None and bool(fitted.active) and len(trace.objective) < FEWEST_STEPS
    if short and failure is None:
        text = (
            f"the extents took {len(trace.objective)} steps and need at least {FEWEST_STEPS} to cross their range: "
            f"raise epochs{_times(len(trace.objective))}, or max_steps where it is given"
        )
        notes = (*notes, text)
        warnings.warn(text, NotConvergedWarning, stacklevel=3)  # the line that called fit
    rising = point is None and bool(fitted.active) and still_rising(trace.objective) is True
    if rising and failure is None:
        text = (
            f"the objective of the extents was still rising over their last {2 * WINDOW} steps: raise epochs, or "
            "max_steps where it is given"
        )
        notes = (*notes, text)
        warnings.warn(text, NotConvergedWarning, stacklevel=3)
    result = InferenceResult(
        **facts,
        trace=trace.objective,
        num_steps=num_steps,
        converged=failure is None and not short and not rising,
        seconds=time.perf_counter() - began,
        seed=seed,
        settings=settings,
        warnings=notes,
    )
    posterior = InvariancePosterior(fitted, kept, result)
    if failure is not None:
        failure.posterior = posterior
        raise failure
    if not second_steps:
        return posterior
    if whole.checkpoint is not None:  # a file of its own: the first one holds a finished run
        path = Path(whole.checkpoint)
        whole = dataclasses.replace(whole, checkpoint=path.with_name(f"{path.name}.second"))
    fingerprint = {"first": fingerprint, "second": _described(whole)["second_stage"]}
    return second_stage(posterior, model, stream, whole, second_steps, fingerprint, progress, callbacks)


def _second_steps(model: InvarianceModel, method: VI | PointMethod, training: Training, num_steps: int) -> int:
    """Steps of the second stage out of all; 0 without one.

    Raises:
        ValueError: there are no weights to train apart, or no step is left for one of the two.
    """
    second = training.second_stage
    if second is None:
        return 0
    if isinstance(method, PointMethod) or not model.is_network:
        what = f"inference={method.name!r}" if isinstance(method, PointMethod) else "this model"
        raise ValueError(
            f"Training: second_stage: {what} has no posterior of extents with a network to train under it; leave "
            "second_stage out, or call bayesinv.train(net, data, posterior) afterwards"
        )
    steps = round(second.share * num_steps)
    if not 0 < steps < num_steps:
        raise ValueError(
            f"SecondStage: share: expected a step or more for each stage, got {steps} of {num_steps} for the second"
        )
    return steps


def _times(num_steps: int) -> str:
    """How many times as long a fit has to be for the extents to take enough steps."""
    return f" {math.ceil(FEWEST_STEPS / num_steps)}-fold" if num_steps else ""


def _whole(stream: Stream, kept: Data) -> Data | None:
    """All examples of a stream where they are at hand, else None: a data set is not read for it."""
    if isinstance(stream, MemoryStream):
        return stream.data
    return kept if stream.exact_resume and len(kept) == stream.num_total else None


def _point_facts(
    objective: MethodObjective, name: str, settings: dict[str, Any], num_draws: int, seed: int
) -> dict[str, Any]:
    settings["training_copies"] = objective.training_copies
    settings["prediction_copies"] = objective.prediction_copies
    settings["method"] = objective.facts()
    extents = objective.draws(num_draws, seed)[None]
    return {"inference": name, "guide": None, "extents": extents, "density": objective.density()}


def _variational_facts(
    objective: VariationalObjective,
    kept: Data,
    stream: Stream,
    training: Training,
    num_steps: int,
    num_draws: int,
    seed: int,
    settings: dict[str, Any],
) -> dict[str, Any]:
    model = objective.model
    copies = 1 if not model.active and not any(model.extents.fixed.values()) else model.network_orbit.num_copies
    settings["training_copies"] = settings["prediction_copies"] = copies
    place = next(model.parameters()).device
    is_evidence = model.evidence.name != "plugin"
    if isinstance(model.evidence, LaplaceEvidence):
        with seeded(derive_seed(seed, "evidence")):
            found = evidence_at_mode(
                objective, kept, stream.num_total, num_steps, training.batch_size, training.weight_rate
            )
        elbo, error, is_evidence = found.value, found.se, not found.why_not
        settings["why_no_log_evidence"] = found.why_not
    else:
        elbo, error = estimate_elbo(objective, stream, training, seed, place)
    settings["elbo"], settings["elbo_se"] = elbo, error
    if objective.guide is None:
        extents = objective.fixed()[None, None]
    else:
        extents = draw_extents(model, lambda data: objective.guide(data, 1), kept, num_draws)[None]
    notes: tuple[str, ...] = ()
    # With groups the population's prior, which theirs follow.
    own = model.active if model.pooling is None else model.pooling.inner.names
    flat = [name for name in own if name in model.active and not isinstance(model.extents.priors[name], Outward)]
    if model.evidence.name == "plugin" and flat:
        notes = (
            f"the plug-in likelihood never rewards an extent: under the prior of {', '.join(flat)} only "
            "upper_limit() says something; for a trade-off give an Outward(strength) prior",
        )
    return {
        "warnings": notes,
        "inference": "fixed" if objective.guide is None else "vi",
        "guide": objective.guide_name,
        "extents": extents,
        "density": None if objective.guide is None else normal_of(objective.guide, model.extents),
        "log_evidence": elbo if is_evidence else None,
        "log_evidence_se": error if is_evidence else None,
    }


def _own_weights(
    model: InvarianceModel,
    facts: Mapping[str, Any],
    stream: Stream,
    training: Training,
    num_steps: int,
    seed: int,
    num_draws: int,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Draws with weights of their own at every extent, those of the guide beside them."""
    found = own_weights(model, facts["extents"][0], stream, training, num_steps, seed, num_draws)
    if found is None:
        return {}
    asked = training.own_weights is True
    settings["own_weights"] = {**found.facts, "asked": asked}
    if found.problem:
        if asked:
            warnings.warn(found.problem, NotConvergedWarning, stacklevel=4)  # the line that called fit
        return {"warnings": (*facts["warnings"], found.problem)}
    return {"extents": found.extents[None], "guide_extents": facts["extents"], "surrogate": found.surrogate}


@torch.no_grad()
def estimate_elbo(
    objective: VariationalObjective, stream: Stream, training: Training, seed: int, place: torch.device
) -> tuple[float, float]:
    """Mean and standard error of the ELBO over minibatches that together hold the data once, or 20 of them."""
    size = min(training.extent_batch_size, stream.num_total)
    num = max(2, min(EVIDENCE_BATCHES, stream.num_total // size))
    values: list[Tensor] = []
    with seeded(seed):
        for step in range(num):
            batch = stream.batch(seed, "evidence", step, size).to(place)
            values.append(-objective.extent_loss(batch, stream.num_total).detach().cpu().double().reshape(()))
    stacked = torch.stack(values)
    return float(stacked.mean()), float(stacked.std() / math.sqrt(num))


def _fingerprint(
    name: str,
    method: VI | PointMethod,
    model: InvarianceModel,
    training: Training,
    num_steps: int,
    seed: int,
    num_total: int,
    guide: Any,
) -> Mapping[str, Any]:
    """What has to be the same for a checkpoint to be gone on from."""
    try:
        config: Any = model.config()
    except (TypeError, ValueError, NotImplementedError):
        config = repr(model)
    return {
        "method": repr(method) if isinstance(method, PointMethod) else name,
        "model": config,
        "training": _described(training),
        "num_steps": num_steps,
        "seed": seed,
        "num_train": num_total,
        "guide": guide if isinstance(guide, str) else getattr(guide, "__name__", type(guide).__name__),
    }


def _described(training: Training) -> dict[str, Any]:
    """The settings that shape the result; where checkpoints go does not."""
    apart = ("checkpoint", "checkpoint_every", "resume", "num_workers", "second_stage")
    fields = [field.name for field in dataclasses.fields(training) if field.name not in apart]
    described = {name: getattr(training, name) for name in fields}
    second = training.second_stage
    return described if second is None else described | {"second_stage": second.described()}
