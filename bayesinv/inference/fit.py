"""``bayesinv.fit``: one call from a model and data to a posterior."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bayesinv.data.container import Data, as_data, first_of
from bayesinv.data.groups import as_groups, numbered
from bayesinv.errors import DataWarning, ImportanceWarning, NotConvergedWarning
from bayesinv.inference.collapsed_fit import fit_collapsed
from bayesinv.inference.devices import choose_device
from bayesinv.inference.guides import GuideFactory
from bayesinv.inference.loop import Callback
from bayesinv.inference.minibatch_fit import fit_minibatches
from bayesinv.inference.options import NUM_DRAWS, NUTS, VI, as_callbacks, as_method, refuse_unknown, refuse_unused
from bayesinv.inference.point import PointMethod
from bayesinv.inference.training import Training
from bayesinv.inference.usual_mistakes import warn_of_empty_groups, warn_of_random_items
from bayesinv.model.checks import check_weights
from bayesinv.model.exact_evidence import inducing_gap
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.processes import is_first, not_connected
from bayesinv.numerics.randomness import seeded
from bayesinv.posterior.invariance_posterior import InvariancePosterior

WARNING_OF = {
    "baseline": DataWarning,
    "importance": ImportanceWarning,
    "convergence": NotConvergedWarning,
}  # by the name of a verdict


def fit(
    model: InvarianceModel | nn.Module,
    data: Any,
    inference: str | VI | PointMethod = "vi",
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
    checkpoint: str | Path | None = None,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
    **unknown: Any,
) -> InvariancePosterior:
    """Fit the posterior over the extents of invariance, p(η | D).

    On a deterministic evidence ("vi") a population of points looks for the modes of the joint density of extents and
    hyperparameters, from which L-BFGS climbs, first on a part of the data; q is a mixture of Student t distributions
    around the modes, adapted to draws that the evidence weighs. "nuts" samples the same density. Networks train over
    minibatches: their weights on a detached orbit, the extents on the evidence (see :class:`Training`). The model that
    is passed in is left as it was.

    Args:
        model: what to fit; a network or a GPyTorch kernel alone is fitted to images under ``"affine2d"``, as a
            classification where y holds integers.
        data: (x, y) tensors or arrays, a ``Dataset``, or a ``DataLoader``. x is (n, *event) floating point; y is (n,)
            labels, numbers or text, or real targets (n,) or (n, outputs). Predictions have the text, or the
            ``.classes`` of a data set, as `Prediction.names`. A collapsed evidence reads it once, as a whole; others
            take it in minibatches, whatever its size. Weights of a sampler count nothing: an example of weight above 0
            counts once, and one of weight 0 drops out.
        inference: "vi" or "nuts", or :class:`VI` or :class:`NUTS` with options; for networks also the baselines
            "augerino", "augnet", "lila", "optima", "fixed", "policy" and "none", by name or as an object such as
            ``bayesinv.inference.Augerino(regularisation=0.1)``. All but "optima" are point estimates.
        seed: of everything random; the same seed gives the same result on the CPU.
        device: "auto" (CUDA if there is one), "cpu", "cuda", ...
        guide, max_steps, hyperparameters, learning_rate, num_draws, checkpoint: options of :class:`VI`, instead of an
            object.
        training: batch sizes, rates, schedules and checkpoints of a minibatch fit.
        num_chains, num_warmup: options of :class:`NUTS`. Refused at any value but the default: these two by "vi"; they,
            ``hyperparameters`` and ``learning_rate`` by a fit over minibatches; ``guide`` by a point method.
        progress: show a bar with the current extents.
        callbacks: called with a :class:`Step` after every optimiser step; True ends the run.
        unknown: anything else is a TypeError that says where it belongs.

    Returns:
        The posterior. With every extent fixed, and for point estimates, it is a point mass.

    Raises:
        DataError: unusable data. NumericalError: a weight of the model that is not finite. NonFiniteError: the
            objective could not be computed; its ``posterior`` holds the last good state, if there was one.
            CheckpointError: a checkpoint of another fit. RankError: another process has stopped. ValueError: an
            argument out of range, or one that this fit does not use.

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
    refuse_unknown(unknown, [*inspect.signature(fit).parameters][:-1])
    model = _as_model(model, data)
    method, options = as_method(
        inference,
        {
            "guide": guide,
            "max_steps": max_steps,
            "hyperparameters": hyperparameters,
            "learning_rate": learning_rate,
            "num_draws": num_draws,
            "num_chains": num_chains,
            "num_warmup": num_warmup,
            "checkpoint": checkpoint,
        },
    )
    with seeded(seed):  # refuses what is no seed before anything is computed
        seed = int(seed)
    callbacks = as_callbacks(callbacks)
    if training is not None and not isinstance(training, Training):
        raise TypeError(
            f"training: expected a bayesinv.Training, got a {type(training).__name__}: "
            "training=bayesinv.Training(epochs=5)"
        )
    _warn_of_processes_apart()
    place, progress = choose_device(device), progress and is_first()
    check_weights(model)
    warn_of_random_items(data)
    if isinstance(data, Data) and data.groups is not None:
        data = _with_groups(model, data)
    if model.evidence.minibatch or isinstance(method, PointMethod):
        _check_minibatch(model, method)
        refuse_unused(model.evidence_name, method, options)
        return fit_minibatches(
            model,
            data,
            method,
            training=Training() if training is None else training,
            seed=seed,
            device=place,
            guide=options.guide,
            max_steps=options.max_steps,
            num_draws=NUM_DRAWS if options.num_draws is None else options.num_draws,
            progress=progress,
            callbacks=callbacks,
        )
    if training is not None:
        raise ValueError(
            f"training: the {model.evidence_name} evidence takes all data at once and has no minibatches; "
            "use max_steps, or an evidence that takes minibatches"
        )
    checked: Data = as_data(data, model.likelihood, model.transform, with_groups=model.groups is not None, seed=seed)
    if model.groups is not None and not isinstance(data, Data):
        checked = _with_groups(model, checked)
    posterior = fit_collapsed(model, checked, method, seed=seed, device=place, progress=progress, callbacks=callbacks)
    return warn_serious(_with_inducing_gap(posterior))


def _warn_of_processes_apart() -> None:
    """Warn where a launcher started several processes, and each would fit on its own."""
    started = not_connected()
    if started:
        warnings.warn(
            f"{started} processes were started and not connected, so that each of them fits all of the model: call "
            "torch.distributed.init_process_group() first, or start one process",
            UserWarning,
            stacklevel=3,  # the line that called fit
        )


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


def _check_minibatch(model: InvarianceModel, method: VI | PointMethod) -> None:
    """Refuse what needs a deterministic evidence of all data."""
    if isinstance(method, NUTS):
        raise ValueError(
            f'inference="nuts" needs an evidence that is a deterministic function of the extents, and the '
            f'{model.evidence_name} evidence is an estimate from minibatches; use inference="vi", or a GaussianProcess '
            "(also on frozen features of a network: GaussianProcess(features=net))"
        )
    if isinstance(method, VI) and method.guide == "flow":
        raise ValueError('guide="flow" needs a deterministic evidence; use "full_rank" or a callable')
