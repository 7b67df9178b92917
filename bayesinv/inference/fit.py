"""``bayesinv.fit``: one call from a model and data to a posterior."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import inspect
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from bayesinv.arguments import as_integer, as_number, counted
from bayesinv.data import Data, as_data, first_of
from bayesinv.errors import DataWarning, ImportanceWarning, NonFiniteError, NotConvergedWarning, NumericalError
from bayesinv.exact_evidence import exact_for_weights, inducing_gap
from bayesinv.groups import as_groups, numbered
from bayesinv.inference.devices import choose_device
from bayesinv.inference.guides import GuideFactory, check_guide, normal_of
from bayesinv.inference.importance import WeightedDraws, importance_sample, weigh
from bayesinv.inference.loop import Callback
from bayesinv.inference.minibatch_fit import fit_minibatches
from bayesinv.inference.modes import Mode
from bayesinv.inference.nuts import Chains, run_nuts
from bayesinv.inference.point import POINT_METHODS, PointMethod, as_point_method
from bayesinv.inference.result import InferenceResult
from bayesinv.inference.target import Target
from bayesinv.inference.training import Training
from bayesinv.inference.usual_mistakes import warn_of_empty_groups, warn_of_random_items, warn_of_usual_mistakes
from bayesinv.inference.vi import MIXTURES, approximate, climb, local_parameters, on_exact, train_guide
from bayesinv.model import InvarianceModel
from bayesinv.model_checks import check_weights
from bayesinv.model_conditioning import is_light
from bayesinv.posterior import InvariancePosterior
from bayesinv.psis import why_no_standard_error
from bayesinv.randomness import seeded
from bayesinv.threads import one_thread
from bayesinv.torch_modes import ordinary

INFERENCES = ("vi", "nuts")
MAX_STEPS = 200  # evaluations of a collapsed evidence from each start; minibatches count in epochs
NUM_DRAWS = 160  # where nothing says how many it takes
HYPERPARAMETERS = ("latent", "optimised")
# Vehtari et al. (2021, arXiv:1903.08008) ask for 1.01, with four chains or more. Of two chains of 300 draws with an
# autocorrelation of 0.5 and nothing wrong, the largest R̂ of three extents passed 1.01 in 66 % of 200 trials, and 1.05
# in none (at most 1.042).
LARGEST_RHAT = 1.05
WARNING_OF = {
    "baseline": DataWarning,
    "importance": ImportanceWarning,
    "convergence": NotConvergedWarning,
}  # by the name of a verdict


def fit(
    model: InvarianceModel | nn.Module,
    data: Any,
    inference: str | PointMethod = "vi",
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    guide: str | GuideFactory = "full_rank",
    max_steps: int | None = None,
    training: Training | None = None,
    hyperparameters: str = "latent",
    learning_rate: float = 0.05,
    num_draws: int | None = None,
    num_chains: int = 2,
    num_warmup: int = 150,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
    **unknown: Any,
) -> InvariancePosterior:
    """Fit the posterior over the extents of invariance, p(η | D).

    On a deterministic evidence ("vi"), extents and hyperparameters climb together to the modes of their joint density
    by L-BFGS from three starts, small to large extents; q is a mixture of Student t distributions around the modes,
    adapted to draws that the evidence weighs. "nuts" samples the same density. Networks train over minibatches: their
    weights on a detached orbit, the extents on the evidence (see :class:`Training`). The model passed in is left as it
    was.

    Args:
        model: what to fit; a network or a GPyTorch kernel alone is fitted to images under ``"affine2d"``, as a
            classification where y holds integers.
        data: (x, y) tensors or arrays, a ``Dataset``, or a ``DataLoader``. x is (n, *event) floating point; y is (n,)
            labels, numbers or text, or real targets (n,) or (n, outputs). Predictions have the text, or the
            ``.classes`` of a data set, as `Prediction.names`. A collapsed evidence reads it once, as a whole; others
            take it in minibatches, whatever its size. Weights of a sampler count nothing: an example of weight above 0
            counts once, and one of weight 0 drops out.
        inference: "vi" or "nuts"; for networks also the baselines "augerino", "augnet", "lila", "optima", "fixed",
            "policy" and "none", by name or as an object with options, such as
            ``bayesinv.inference.Augerino(regularisation=0.1)``. All but "optima" are point estimates.
        seed: of everything random; the same seed gives the same result on the CPU.
        device: "auto" (CUDA if there is one), "cpu", "cuda", ...
        guide: "full_rank", "mean_field", "flow" (collapsed evidences only), or a callable from the Pyro
            model to a guide. The last two are trained with Adam around the best mode, hyperparameters held there.
        max_steps: the most evaluations of a collapsed evidence from each start, 200 if None; with minibatches the most
            optimiser steps, ``training.epochs`` passes over the data if None.
        training: batch sizes, rates, schedules and checkpoints of a minibatch fit.
        hyperparameters: of a collapsed evidence: "latent", drawn along with the extents under weak priors (see
            :mod:`bayesinv.hyperparameters`), or "optimised", held at the best mode.
        learning_rate: of Adam, for the guides that it trains on a collapsed evidence.
        num_draws: posterior draws, per chain for NUTS, at least 5. After VI on a collapsed evidence each is weighed
            by one evaluation of the evidence, and None draws until the weighted draws are worth 100 independent ones,
            at most 480; elsewhere None stands for 160.
        num_chains, num_warmup: of NUTS. A fit over minibatches refuses these two, ``hyperparameters`` and
            ``learning_rate``, and a point method ``guide``, at any value but the default.
        progress: show a bar with the current extents.
        callbacks: called with a :class:`Step` after every optimiser step; True ends the run.
        unknown: anything else is a TypeError that says where it belongs.

    Returns:
        The posterior. With every extent fixed, and for point estimates, it is a point mass.

    Raises:
        DataError: unusable data. NumericalError: a weight of the model that is not finite. NonFiniteError: the
            objective could not be computed; its ``posterior`` holds the last good state, if there was one.
            CheckpointError: a checkpoint of another fit. ValueError: an argument out of range, or one that this fit
            does not use.

    Warns:
        ImportanceWarning: k̂ past its limit for so many draws, min(1 - 1 / log10 S, 0.7). NotConvergedWarning: R̂ > 1.05,
            more than 1 % of divergent draws, a gradient that says that the optimum was not reached, or too
            few steps over minibatches for the extents to cross their range. DataWarning: the evidence is no higher than
            that of a constant. Each is a serious verdict of ``posterior.check()``. UserWarning: inducing values that
            the library chose leave a gap in the evidence; a network that ends in a softmax or a sigmoid or has more
            outputs than there are classes, images that are not scaled, a data set that transforms at random, groups in
            the data that the model does not tell apart, or groups of the model without an example.

    Example:
        >>> from bayesinv import GaussianProcess, InvarianceModel
        >>> from bayesinv.datasets import digits
        >>> train = digits(rotation=0.8, num_train=60, seed=0).train
        >>> model = InvarianceModel(GaussianProcess(num_features=128), "rotation", num_orbit_samples=8)
        >>> posterior = fit(model, train, seed=0, num_draws=50)
        >>> posterior.sample(3).shape
        torch.Size([3, 1])
    """
    _refuse_unknown(unknown)
    model = _as_model(model, data)
    method = _method(inference)
    max_steps = None if max_steps is None else as_integer("max_steps", max_steps)
    num_chains, num_warmup = as_integer("num_chains", num_chains), as_integer("num_warmup", num_warmup)
    fixed_draws = as_integer("num_draws", NUM_DRAWS if num_draws is None else num_draws, 5)
    learning_rate = as_number("learning_rate", learning_rate)
    check_guide(guide)
    if hyperparameters not in HYPERPARAMETERS:
        raise ValueError(f"hyperparameters: expected one of {list(HYPERPARAMETERS)}, got {hyperparameters!r}")
    with seeded(seed):  # refuses what is no seed before anything is computed
        seed = int(seed)
    callbacks = _callbacks(callbacks)
    if training is not None and not isinstance(training, Training):
        raise TypeError(
            f"training: expected a bayesinv.Training, got a {type(training).__name__}: "
            "training=bayesinv.Training(epochs=5)"
        )
    place = choose_device(device)
    check_weights(model)
    warn_of_random_items(data)
    if isinstance(data, Data) and data.groups is not None:
        data = _with_groups(model, data)
    if model.evidence.minibatch or isinstance(method, PointMethod):
        _check_minibatch(model, method, guide)
        _refuse_unused(
            model,
            method,
            guide=guide,
            hyperparameters=hyperparameters,
            learning_rate=learning_rate,
            num_chains=num_chains,
            num_warmup=num_warmup,
        )
        return fit_minibatches(
            model,
            data,
            method,
            training=Training() if training is None else training,
            seed=seed,
            device=place,
            guide=guide,
            max_steps=max_steps,
            num_draws=fixed_draws,
            progress=progress,
            callbacks=callbacks,
        )
    if training is not None:
        raise ValueError(
            f"training: the {model.evidence_name} evidence takes all data at once and has no minibatches; "
            "use max_steps, or an evidence that takes minibatches"
        )
    max_steps = MAX_STEPS if max_steps is None else max_steps
    checked: Data = as_data(data, model.likelihood, model.transform, with_groups=model.groups is not None, seed=seed)
    if model.groups is not None and not isinstance(data, Data):
        checked = _with_groups(model, checked)
    began = time.perf_counter()
    with ordinary(grad=True):
        fitted = copy.deepcopy(model).to(place)
        checked = checked.to(place)
    with ordinary(grad=True), seeded(seed), local_parameters(), one_thread(is_light(fitted, checked)) as num_threads:
        fitted.initialise(checked, seed)
        warn_of_usual_mistakes(fitted, checked, stacklevel=3)
        facts, failure = _fit_collapsed(
            fitted,
            checked,
            method,
            guide,
            Settings(
                seed=seed,
                max_steps=max_steps,
                hyperparameters=hyperparameters,
                learning_rate=learning_rate,
                num_draws=fixed_draws,
                is_open=num_draws is None and method == "vi",
                num_chains=num_chains,
                num_warmup=num_warmup,
                num_threads=num_threads,
            ),
            progress,
            callbacks,
        )
    if failure is not None:
        facts["warnings"] = (*facts["warnings"], str(failure))
    settings = {
        "device": str(place),
        "max_steps": max_steps,
        "learning_rate": learning_rate,
        "num_train": len(checked),
        **facts.pop("settings"),
    }
    result = InferenceResult(**facts, seconds=time.perf_counter() - began, seed=seed, settings=settings)
    posterior = InvariancePosterior(fitted, checked, result)
    if failure is not None:
        failure.posterior = posterior
        raise failure
    return warn_serious(_with_inducing_gap(posterior))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a fit of a collapsed evidence was asked for; see ``fit``."""

    seed: int
    max_steps: int
    hyperparameters: str
    learning_rate: float
    num_draws: int
    is_open: bool  # whether their weights say how many draws it takes, where they can
    num_chains: int
    num_warmup: int
    num_threads: int


def _fit_collapsed(
    model: InvarianceModel,
    data: Data,
    method: str | PointMethod,
    guide: str | GuideFactory,
    asked: Settings,
    progress: bool,
    callbacks: Sequence[Callback],
) -> tuple[dict[str, Any], NonFiniteError | None]:
    """The facts of a fit on all data at once, and what ended it early."""
    target = Target(model, data)
    modes = climb(target, asked.max_steps, progress, callbacks, asked.num_threads)
    latent = asked.hyperparameters == "latent" and target.num_hyper > 0
    facts = _mode_facts(target, modes)
    facts["settings"]["hyperparameters"] = asked.hyperparameters
    exact = exact_for_weights(model, data) if isinstance(guide, str) and guide in MIXTURES else None
    if exact is not None:
        modes = on_exact(target, modes, exact, asked.max_steps, asked.num_threads)
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
            None if asked.is_open else asked.num_draws,
            latent,
            guide == "mean_field",
            asked.seed,
            progress,
            asked.num_threads,
            exact,
        )
        weighed = weigh(found.extents, found.log_weights)
        facts["settings"]["weighed_by"] = weighed_by
        facts |= _weighted_draws(weighed, guide)
        facts |= {"hyperparameters": found.hyperparameters, "density": found.density}
        failure = None
    else:
        found = None
        q, name, failure = train_guide(target, modes, guide, asked.learning_rate, progress, callbacks)
        weighed = importance_sample(model, q, data, asked.num_draws)
        facts |= _weighted_draws(weighed, name)
        facts["density"] = normal_of(q, model.extents)
        latent = False
        facts["settings"]["hyperparameters"] = "optimised"
    if method == "nuts" and failure is None:
        try:
            hyper = found.hyperparameters if found is not None and latent else None
            chains = run_nuts(
                target, weighed, hyper, asked.num_chains, asked.num_draws, asked.num_warmup, asked.seed, progress
            )
        except NumericalError as error:
            failure = NonFiniteError(f"NUTS: {error}; the variational posterior is kept", step=0)
        else:
            settings = facts["settings"] | {"num_warmup": asked.num_warmup, "guide": facts["guide"]}
            facts |= _chain_draws(chains, asked.num_warmup)
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
        }
        for mode in modes
    ]


def _with_inducing_gap(posterior: InvariancePosterior) -> InvariancePosterior:
    """The same with what inducing values cost at its medians among the settings, for ``check`` and for files."""
    gap = inducing_gap(posterior.model, posterior.data, posterior.quantile(0.5))
    if gap is None:
        return posterior
    result = dataclasses.replace(posterior.result, settings=posterior.result.settings | {"inducing": gap})
    return InvariancePosterior(posterior.model, posterior.data, result)


def warn_serious(posterior: InvariancePosterior) -> InvariancePosterior:
    """Warn of what puts the result in doubt, and write it into the result's warnings.

    A number of inducing values is an approximation that was asked for, often for its speed alone: what it costs is
    then written into the result, its text and ``check()``, and not warned of. Where the library chose inducing values,
    nobody expects the gap, and it is.
    """
    serious = posterior.check().serious
    for verdict in serious:
        if verdict.name == "inducing" and posterior.model.backbone.inducing_given:
            continue
        # stacklevel: the line that called fit
        warnings.warn(verdict.text, WARNING_OF.get(verdict.name, UserWarning), stacklevel=3)
    texts = (*posterior.result.warnings, *(verdict.text for verdict in serious))
    result = dataclasses.replace(posterior.result, warnings=texts)
    return InvariancePosterior(posterior.model, posterior.data, result)


def _with_groups(model: InvarianceModel, data: Data) -> Data:
    """Training data with the numbers of the model's groups; warns of groups without a use, or without an example."""
    if model.groups is None:
        warnings.warn(
            "the data say which group each example is of, and the model has the same extents for all groups; "
            "InvarianceModel(..., groups=[names]) gives each its own",
            UserWarning,
            stacklevel=3,  # the line that called fit
        )
        return numbered(data, None)
    as_groups(
        data.groups, model.groups, len(data), training=True
    )  # a number that is no group comes before a group without an example
    data = numbered(data, model.groups)
    warn_of_empty_groups(model, data, stacklevel=3)
    return data


def _as_model(model: Any, data: Any) -> InvarianceModel:
    """A model as it is, or one made around a backbone for images."""
    if isinstance(model, InvarianceModel):
        return model
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a bayesinv.InvarianceModel or a torch.nn.Module, got {type(model).__name__}")
    x, y = first_of(data)
    if x.ndim != 4:
        raise ValueError(
            f"fit({type(model).__name__}, data) takes images (channels, height, width), and one input here has shape "
            f"{tuple(x.shape[1:])}; say which symmetries to consider: fit(InvarianceModel(net, transforms), data)"
        )
    return InvarianceModel(model, "affine2d", likelihood="gaussian" if y.is_floating_point() else "categorical")


def _method(inference: str | PointMethod) -> str | PointMethod:
    """ "vi", "nuts", or a point method."""
    if isinstance(inference, PointMethod):
        return inference
    names = [*INFERENCES, *POINT_METHODS]
    if isinstance(inference, type) and issubclass(inference, PointMethod):
        raise TypeError(f"inference: expected an object, got the class {inference.__name__}: {inference.__name__}(...)")
    if not isinstance(inference, str):
        raise TypeError(
            f"inference: expected one of {names} or a point method, got a {type(inference).__name__}; pass x and y "
            "together: fit(model, (x, y))"
        )
    if inference not in names:
        raise ValueError(f"inference: expected one of {names}, got {inference!r}")
    return inference if inference in INFERENCES else as_point_method(inference)


def _check_minibatch(model: InvarianceModel, method: str | PointMethod, guide: str | GuideFactory) -> None:
    """Refuse what needs a deterministic evidence of all data."""
    if method == "nuts":
        raise ValueError(
            f'inference="nuts" needs an evidence that is a deterministic function of the extents, and the '
            f'{model.evidence_name} evidence is an estimate from minibatches; use inference="vi", or a GaussianProcess '
            "(also on frozen features of a network: GaussianProcess(features=net))"
        )
    if guide == "flow" and method == "vi":
        raise ValueError('guide="flow" needs a deterministic evidence; use "full_rank" or a callable')


def _refuse_unknown(given: dict[str, Any]) -> None:
    """Raise as Python does for an argument that does not exist, and say where it belongs.

    Raises:
        TypeError: there are such arguments.
    """
    for name, value in given.items():
        text = f"fit() got an unexpected keyword argument {name!r}"
        if name in Training.__dataclass_fields__:
            raise TypeError(f"{text}, an option of Training: fit(..., training=bayesinv.Training({name}={value!r}))")
        known = [*inspect.signature(fit).parameters][:-1]
        near = difflib.get_close_matches(name, known, 1)
        raise TypeError(f"{text}; did you mean {near[0]}?" if near else f"{text}; expected one of {', '.join(known)}")


def _callbacks(callbacks: Any) -> list[Callback]:
    """Functions in a list.

    Raises:
        TypeError: something else.
    """
    if callable(callbacks):
        raise TypeError("callbacks: expected a list of functions, got one: callbacks=[function]")
    functions = list(callbacks or []) if isinstance(callbacks, Iterable | None) else [callbacks]
    if not all(callable(function) for function in functions):
        raise TypeError(f"callbacks: expected a list of functions of a Step, got {callbacks!r}: callbacks=[function]")
    return functions


def _refuse_unused(model: InvarianceModel, method: str | PointMethod, guide: str | GuideFactory, **given: Any) -> None:
    """Refuse arguments that a fit over minibatches would ignore; those at their defaults may have been left out."""
    if isinstance(method, PointMethod):
        given["guide"] = guide
    defaults = inspect.signature(fit).parameters
    unused = {name: value for name, value in given.items() if value != defaults[name].default}
    if unused:
        what = (
            f"inference={method.name!r}" if isinstance(method, PointMethod) else f"the {model.evidence_name} evidence"
        )
        raise ValueError(
            f"{', '.join(unused)}: expected nothing, since {what} trains over minibatches and does not use "
            f"{'it' if len(unused) == 1 else 'them'}, got {', '.join(f'{k}={v!r}' for k, v in unused.items())}; rates "
            "and steps of such a fit are in training=bayesinv.Training(...)"
        )


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
