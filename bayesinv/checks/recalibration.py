"""Intervals that are corrected by fits to simulated data: ``posterior.recalibrate()``.

    η ~ ½ r(η) + ½ p(η),    y ~ p(y | x, η) at the fitted hyperparameters,    fit,    e = (z_true - m) / s

and the quantiles of e are those of the real fit's error (:mod:`bayesinv.fitted.recalibrated`). The half near the
data matters most: r is the geometric path between posterior and prior, q(z)^β p(z)^(1 - β), three times as wide as a
narrow posterior and never wider than the prior, so that the correction is one of fits like this one. The half from the
prior guards against a posterior that lies in the wrong place, whose neighbourhood would not show that it does; under
the prior alone, exact inference is calibrated by definition (``extents="prior"``).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bayesinv.checks.simulated_data import (
    REFITTED_EVIDENCE,
    SMALLEST_P,
    simulated_data_check,
    two_sided_p,
)
from bayesinv.checks.simulated_fits import Job, simulated_data, simulated_fits, student_of
from bayesinv.checks.simulations import Fit, fit_with
from bayesinv.data.container import Data
from bayesinv.errors import RecalibrationError
from bayesinv.fitted.recalibrated import LEVEL, PriorScale, Recalibration, knots, weights_of
from bayesinv.inference import NUTS, SecondStage, Training
from bayesinv.inference import fit as default_fit
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.jobs import check_jobs

if TYPE_CHECKING:
    from bayesinv.posterior.invariance_posterior import InvariancePosterior

EXTENTS = ("mixture", "prior")
FEWEST = 19  # errors that hold a 90 % interval: (1 - 0.9) / 2 = 1 / 20
NUM_CHECKED = 40  # data sets of the predictive check, which fits nothing
NUM_REFITTED = 20  # refits after which their log evidence is compared with the real one
_GUIDES = ("full_rank", "mean_field", "flow")


def recalibrate(
    posterior: InvariancePosterior,
    num_simulations: int = 100,
    *,
    fit: Fit | None = None,
    fit_options: Mapping[str, Any] | None = None,
    extents: str = "mixture",
    reweighted: bool | None = None,
    x: Tensor | None = None,
    jobs: int | None = 1,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    force: bool = False,
) -> InvariancePosterior:
    """Widen or shift the intervals of a posterior by what fits to simulated data get wrong.

    Extents are drawn near the posterior and from the prior, targets from the fitted model at the training inputs, and
    each data set is fitted as the real one was. Recalibrated 90 % intervals hold the truth of further such data sets
    in 90 % of them, on average; see :mod:`bayesinv.fitted.recalibrated` for the formula. Draws, predictions and
    evidence stay as they are, and ``summary()`` shows both intervals.

    Args:
        posterior: what ``fit`` returned.
        num_simulations: N, at least 19, each a fit. The coverage of 90 % intervals has a standard deviation of
            0.3 / √N over repetitions.
        fit: ``(model, data, seed) -> posterior``, or draws (J, K) in internal units: whatever made this posterior. None
            is ``bayesinv.fit`` with the settings of this posterior.
        fit_options: of ``bayesinv.fit``, in place of those of this posterior.
        extents: of the simulations, "mixture" (half near the posterior, half from the prior) or "prior".
        reweighted: whether to use importance weights, in every fit; None is where they are good.
        x: all training inputs, where the posterior of a minibatch fit keeps a part of them.
        jobs: processes of joblib's backend, each with one thread; None is what ``joblib.parallel_config`` says. Their
            number changes no result.
        folder: where finished simulations are kept, one file each; a second call goes on from them.
        seed: of everything; simulation i has a seed of its own.
        force: whether to go on, with a warning, where the predictive check fails.

    Returns:
        A posterior with the same draws and a ``recalibration``.

    Raises:
        RecalibrationError: the real data lie outside the central 99 % of simulated ones, in class shares, variance of
            the targets or log evidence; or fewer than 19 fits succeeded.
        ValueError: nothing latent, a point estimate, a plug-in likelihood, settings of the fit that are not known.

    Warns:
        UserWarning: the predictive check failed and `force` overruled it.

    References:
        V. Vovk, A. Gammerman, G. Shafer (2005). Algorithmic Learning in a Random World (split conformal prediction).
        D. Prangle, M. Blum, G. Popovic, S. Sisson (2014). Diagnostic tools for approximate Bayesian computation using
        the coverage property. arXiv:1301.3166.

    Example:
        >>> from bayesinv import Data, GaussianProcess, InvarianceModel, InvariancePosterior
        >>> from bayesinv.fitted.result import InferenceResult
        >>> x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> model = InvarianceModel(GaussianProcess(num_inducing=4), "rotation", likelihood="gaussian")
        >>> model.initialise(Data(x, x[:, 0, 0, :1]))
        >>> data = Data(x, model.simulate(x).y)
        >>> prior = lambda model, data, seed: model.extents.sample_prior(100, seed)
        >>> result = InferenceResult(inference="vi", guide=None, extents=prior(model, data, 0)[None], seed=0)
        >>> mended = recalibrate(InvariancePosterior(model, data, result), 19, fit=prior)
        >>> "raw_lower" in mended.summary(), mended.recalibration.num_simulations
        (True, 19)
    """
    _check(posterior, num_simulations, jobs, extents)
    job, facts = job_of(posterior, fit, fit_options, extents, reweighted, x, seed)
    p_values, notes = {}, []
    for name, found in _first_check(job, posterior, seed).items():
        p_values[name] = found[0]
        notes += _judged(name, *found, force)
    kept = None if folder is None else Path(folder)
    first = min(NUM_REFITTED, num_simulations)
    records = simulated_fits(job, range(first), jobs, kept, facts, seed)
    refitted = [r["log_evidence"] for r in records if r["error"] is None and r["log_evidence"] is not None]
    if posterior.log_evidence is not None and len(refitted) > first // 2:
        real = posterior.log_evidence
        p_values[REFITTED_EVIDENCE] = p = two_sided_p(real, refitted)
        notes += _judged(REFITTED_EVIDENCE, p, real, float(np.mean(refitted)), float(np.std(refitted, ddof=1)), force)
    records += simulated_fits(job, range(first, num_simulations), jobs, kept, facts, seed)
    failed = [r for r in records if r["error"] is not None]
    good = [r for r in records if r["error"] is None]
    if len(good) < FEWEST:
        first_error = f"; the first failed with: {failed[0]['error']}" if failed else ""
        raise RecalibrationError(
            f"{len(good)} of {num_simulations} simulated fits succeeded, and a 90 % interval takes {FEWEST}"
            f"{first_error}"
        )
    recalibration = Recalibration(
        symmetries=job.model.active,
        errors=np.array([r["errors"] for r in good]),
        extents=extents,
        reweighted=reweighted,
        num_failed=len(failed),
        p_values=p_values,
        assumptions=_assumptions(extents, p_values, len(failed)),
        settings={**facts, "failures": {str(r["index"]): r["error"] for r in failed}},
        warnings=tuple(notes),
    )
    return type(posterior)(posterior.model, posterior.data, posterior.result, recalibration)


def job_of(
    posterior: InvariancePosterior,
    fit: Fit | None,
    fit_options: Mapping[str, Any] | None,
    extents: str,
    reweighted: bool | None,
    x: Tensor | None,
    seed: int,
) -> tuple[Job, dict[str, Any]]:
    """What each process needs, and what has to be the same for records to be gone on from.

    Raises:
        ValueError: the posterior keeps a part of its inputs, or does not say how it was fitted.
    """
    if fit is not None and fit_options:
        raise ValueError("fit_options belong to bayesinv.fit; give them to your own fit with functools.partial")
    data = posterior.data.to("cpu")
    num_train = int(posterior.result.settings.get("num_train", len(data)))
    if x is not None:
        if data.groups is not None and len(x) != len(data):
            raise ValueError("x: expected the inputs that the posterior keeps, since simulated examples need groups")
        x = x.to("cpu", data.x.dtype)
        data = Data(x, data.y[torch.arange(len(x)) % len(data)], data.num_classes, data.groups)
    if len(data) != num_train:
        raise ValueError(
            f"x: the fit had {num_train} training inputs and the posterior keeps {len(data)}; give all of them: "
            "posterior.recalibrate(x=train.x)"
        )
    options = {} if fit is not None else refit_options(posterior, fit_options or {})
    model = copy.deepcopy(posterior.model).cpu()
    raw = weights_of(posterior.result, reweighted)
    scale = PriorScale(model.extents)
    at = knots(posterior.result.draws.numpy(), raw, scale)
    own = fit if fit is not None else functools.partial(fit_with, options=options)
    job = Job(model, student_of(model, seed), data, own, extents, scale, at, reweighted)
    facts = {
        "seed": seed,
        "extents": extents,
        "reweighted": reweighted,
        "fit": "bayesinv.fit" if fit is None else getattr(fit, "__name__", type(fit).__name__),
        "fit_options": json.dumps(options, sort_keys=True, default=repr),
        "posterior": _digest(model, data, at),
    }
    return job, facts


def refit_options(posterior: InvariancePosterior, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``bayesinv.fit`` that repeat the fit of a posterior, with what is given in their place.

    Raises:
        ValueError: the settings of the fit do not say; names what to give.
    """
    result = posterior.result
    taken = set(inspect.signature(default_fit).parameters) - {"model", "data", "guide", "seed", "training"}
    options = {k: v for k, v in result.settings.items() if k in taken and v is not None}
    options |= {"inference": result.inference, "num_draws": result.num_draws}
    guide = result.settings.get("guide") if result.inference == "nuts" else result.guide
    if result.inference == "nuts":
        options["num_chains"] = result.num_chains
    method = given.get("inference", result.inference)
    if not isinstance(method, str):  # an object, which holds its options itself
        foreign = {field.name for field in dataclasses.fields(NUTS)}
    else:
        foreign = set() if method == "nuts" else {"num_chains", "num_warmup"}
    options = {name: value for name, value in options.items() if name not in foreign}
    if "guide" not in given and isinstance(method, str):
        if guide not in _GUIDES:
            raise ValueError(
                f"fit_options: this posterior was fitted with the guide {guide!r}, which is code; give it: "
                'recalibrate(fit_options={"guide": guide})'
            )
        options["guide"] = guide
    if posterior.model.evidence.minibatch and "training" not in given:
        second = result.settings.get("second_stage", {})
        described = {**result.settings.get("training", {}), "second_stage": None}
        try:
            if not result.settings.get("training"):
                raise ValueError("it has no settings of a training")
            if second:
                described["second_stage"] = SecondStage(second["share"])
            options["training"] = Training(**described).first_stage()  # the extents are learned there
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"fit_options: the posterior does not say how it was trained ({error}); give the Training of its fit: "
                'recalibrate(fit_options={"training": bayesinv.Training(...)})'
            ) from error
        options["max_steps"] = result.num_steps - second.get("num_steps", 0)
    return {**options, **given}


def _check(posterior: InvariancePosterior, num_simulations: int, jobs: int | None, extents: str) -> None:
    check_jobs(jobs)
    if not isinstance(num_simulations, int) or isinstance(num_simulations, bool) or num_simulations < FEWEST:
        raise ValueError(f"num_simulations: expected an integer of at least {FEWEST}, got {num_simulations!r}")
    if extents not in EXTENTS:
        raise ValueError(f"extents: expected one of {list(EXTENTS)}, got {extents!r}")
    if not posterior.model.active:
        raise ValueError("every symmetry of this model is fixed, so there is no interval to recalibrate")
    if posterior.result.is_point:
        raise ValueError(f"{posterior.result.inference} is a point estimate, which has no interval to recalibrate")
    if posterior.model.evidence_name == "plugin":
        raise ValueError(
            "the plug-in likelihood has no prior over weights, so that there is nothing to draw data from; fit with "
            'evidence="laplace"'
        )


def _first_check(job: Job, posterior: InvariancePosterior, seed: int) -> dict[str, tuple[float, float, float, float]]:
    """The predictive check that fits nothing, at the posterior median, on as many examples as the posterior keeps."""
    eta, real = posterior.quantile(0.5, recalibrated=False), posterior.data.to("cpu")
    seeds = np.random.SeedSequence([seed, 2**31]).generate_state(2 * NUM_CHECKED) & 0x7FFFFFFF

    def simulate(i: int) -> Data:
        return simulated_data(job, eta, int(seeds[2 * i]), int(seeds[2 * i + 1])).subset(slice(0, len(real)))

    return simulated_data_check(job.model, real, eta, simulate, NUM_CHECKED)


def _judged(name: str, p: float, real: float, mean: float, sd: float, force: bool) -> list[str]:
    """Nothing where the check passes, a warning where it is overruled."""
    if p >= SMALLEST_P:
        return []
    text = (
        f"data simulated from the fitted model do not look like the real ones: {name} is {real:.4g} for the real data "
        f"and {mean:.4g} ± {sd:.2g} (sd) for simulated ones (p = {p:.1g}), so that intervals recalibrated on them may "
        "not hold for these data"
    )
    if not force:
        raise RecalibrationError(
            f"{text}; try another likelihood or kernel, more inducing points, longer training, or force=True to go on",
            name,
            p,
        )
    warnings.warn(text, UserWarning, stacklevel=4)  # the line that called posterior.recalibrate
    return [text]


def _assumptions(extents: str, p_values: Mapping[str, float], num_failed: int) -> str:
    origin = (
        "drawn half from the posterior, three times as wide, and half from the prior"
        if extents == "mixture"
        else "drawn from the prior"
    )
    checked = ", ".join(f"{name} p = {p:.2g}" for name, p in p_values.items())
    return (
        f"{LEVEL:.0%} intervals hold the truth in {LEVEL:.0%} of data sets like the simulated ones: targets of the "
        "fitted model, at its hyperparameters (weights of a network from the prior at the fitted scales), its finite "
        f"orbit and the training inputs, with true extents {origin}. That is an average over such extents and not a "
        "promise at each, and each symmetry is recalibrated on its own. That the real data are of this kind is "
        f"assumed, and checked by {checked}. {num_failed} simulated fits failed and do not count. Draws, predictions, "
        "p_inactive and the evidence are those of the fit, not recalibrated."
    )


def _digest(model: InvarianceModel, data: Data, at: np.ndarray) -> str:
    state = [(name, float(value.detach().double().sum())) for name, value in model.state_dict().items()]
    content = hashlib.blake2b(repr((model.symmetries, state, at.tolist(), tuple(data.x.shape))).encode())
    content.update(data.x.contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
