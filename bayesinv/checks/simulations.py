"""Simulation-based calibration: fits to data whose extents are known, because the model itself has drawn them.

    η ~ p(η),   y ~ p(y | x, η)  (the same finite orbit),   η_1 ... η_L ~ q(η | y),   rank = #{ l : η_l < η }

If q is the posterior, every rank from 0 to L is equally likely (Cook, Gelman & Rubin, 2006; Talts et al., 2018,
arXiv:1804.06788). An overconfident posterior puts ranks at both ends, a biased one at one of them.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones import GaussianProcess
from bayesinv.checks.records import LEVELS, dataset_of, read_records, write_record
from bayesinv.data.container import Data
from bayesinv.inference import fit as default_fit
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.jobs import check_jobs, run_jobs
from bayesinv.numerics.quantiles import systematic_resample, weighted_quantile
from bayesinv.posterior.invariance_posterior import InvariancePosterior

Fit = Callable[[InvarianceModel, Data, int], Any]
HYPERPARAMETERS = ("learned", "known")
NOISE_SHARE = 0.1  # noise variance of a simulated regression whose function has variance one


@dataclass(frozen=True)
class Task:
    """Everything that one process needs to simulate and fit."""

    model: InvarianceModel
    x: Tensor
    fit: Fit
    hyperparameters: str
    num_outputs: int | None
    num_ranks: int
    prepare: Callable[[InvarianceModel, Tensor, int], None]


def simulation_based_calibration(
    model: InvarianceModel,
    x: Float[Tensor, n * event],
    num_simulations: int = 100,
    *,
    fit: Fit | None = None,
    fit_options: Mapping[str, Any] | None = None,
    hyperparameters: str = "learned",
    prepare: Callable[[InvarianceModel, Tensor, int], None] | None = None,
    num_outputs: int | None = None,
    num_ranks: int = 99,
    folder: str | os.PathLike[str] | None = None,
    jobs: int | None = 1,
    seed: int = 0,
) -> xr.Dataset:
    """Draw extents and targets from the model, fit, and rank the truth among the posterior's draws.

    Args:
        model: what is checked. Kernel, noise and means are those that it holds, if it has been initialised
            (``posterior.model`` checks a fitted model at its own hyperparameters), and otherwise where ``prepare`` puts
            them. The weights of a network are drawn from their prior, anew for each simulation.
        x: inputs, (n, *event).
        num_simulations: how many; a 90 % interval's coverage is then known to ± 0.3 / √num_simulations.
        fit: ``(model, data, seed) -> posterior``, or draws of the extents (J, K) in internal units, or such draws of
            several inferences by name, to compare on the same simulations; None is ``bayesinv.fit`` with
            ``fit_options``.
        fit_options: of ``bayesinv.fit``, such as ``{"inference": "nuts", "max_steps": 300}``.
        hyperparameters: "learned", by every fit anew, as users do; or "known": held at the values that drew the
            targets, which asks whether the inference over extents alone is right (Gaussian processes).
        prepare: ``(model, x, seed)`` starts a model that has not been initialised; None is `start_hyperparameters`.
        num_outputs: classes, or outputs of a regression.
        num_ranks: L, draws that the truth is ranked among.
        folder: where finished simulations are kept, one file each; a second call goes on from them.
        jobs: processes of joblib's backend, each with one thread; None is what ``joblib.parallel_config`` says. Their
            number changes no result.
        seed: of everything; simulation i has a seed of its own, which its record holds.

    Returns:
        Dimensions ``simulation``, ``symmetry`` (the latent ones), ``level`` and ``weighting`` ("draws" as the guide or
        the chains gave them, and "reweighted" by importance where a fit has weights; or the names that ``fit`` gave).
        Variables ``rank`` (0..L),
        ``truth``, ``median``, ``lower`` and ``upper`` in people's units, and facts of each fit. Failed fits are missing
        from the dataset, and counted and named in ``attrs``.

    Raises:
        ValueError: bad counts, nothing latent, a model with groups, or a folder of other simulations.

    References:
        S. Talts, M. Betancourt, D. Simpson, A. Vehtari, A. Gelman (2018). Validating Bayesian inference algorithms with
        simulation-based calibration. arXiv:1804.06788.

    Example:
        >>> from bayesinv import GaussianProcess, InvarianceModel
        >>> model = InvarianceModel(GaussianProcess(num_inducing=5), "rotation", likelihood="gaussian")
        >>> prior = lambda model, data, seed: model.extents.sample_prior(200, seed)
        >>> ranks = simulation_based_calibration(model, torch.rand(6, 1, 8, 8), 5, fit=prior)
        >>> dict(ranks.sizes)["simulation"], int(ranks["rank"].max()) <= 99
        (5, True)
    """
    check_jobs(jobs)
    for name, count in {"num_simulations": num_simulations, "num_ranks": num_ranks}.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{name}: expected an integer of at least 1, got {count!r}")
    if hyperparameters not in HYPERPARAMETERS:
        raise ValueError(f"hyperparameters: expected one of {list(HYPERPARAMETERS)}, got {hyperparameters!r}")
    if hyperparameters == "known" and model.is_network:
        raise ValueError('hyperparameters="known" is for Gaussian processes; the gains of a network are learned')
    if not model.active:
        raise ValueError("every symmetry of this model is fixed, so there is nothing to rank")
    if model.groups is not None:
        raise ValueError(
            "groups: expected a model with the same extents for everyone, since simulated examples are of no group; "
            "check one without groups, or simulate with model.simulate(x, groups=numbers) and fit"
        )
    options = dict(fit_options or {})
    if fit is not None and options:
        raise ValueError("fit_options belong to bayesinv.fit; give them to your own fit with functools.partial")
    own = fit if fit is not None else functools.partial(fit_with, options=options)
    task = Task(model, x, own, hyperparameters, num_outputs, num_ranks, prepare or start_hyperparameters)
    facts = {
        "seed": seed,
        "num_ranks": num_ranks,
        "hyperparameters": hyperparameters,
        "fit": "bayesinv.fit" if fit is None else getattr(fit, "__name__", type(fit).__name__),
        "fit_options": json.dumps(options, sort_keys=True, default=repr),
        "model": hashlib.blake2b(repr(_described(model, x, num_outputs)).encode()).hexdigest()[:16],
    }
    done = {} if folder is None else read_records(Path(folder), facts)
    missing = [i for i in range(num_simulations) if i not in done]
    for record in run_jobs(functools.partial(simulate_and_fit, task, seed=seed), missing, jobs):
        done[record["index"]] = record
        if folder is not None:
            write_record(Path(folder), record)
    units = {c.name: c.unit for c in model.transform.coordinates}
    return dataset_of([done[i] for i in range(num_simulations)], model.active, units, facts)


def start_hyperparameters(model: InvarianceModel, x: Float[Tensor, n * event], seed: int) -> None:
    """Starting values for targets of scale one: lengthscale at the median distance, noise a tenth of the variance.

    A model that has been initialised is left as it is.
    """
    if not isinstance(model.backbone, GaussianProcess) or len(model.backbone.inducing):
        return
    model.backbone.initialise(x, 1.0 if model.likelihood == "gaussian" else 4.0, seed)
    noise = getattr(model.evidence, "noise_model", None)
    if noise is not None:
        noise.noise = NOISE_SHARE


def fit_with(model: InvarianceModel, data: Data, seed: int, options: Mapping[str, Any]) -> InvariancePosterior:
    """``bayesinv.fit`` as a fit of `simulation_based_calibration`; its warnings are in the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return default_fit(model, data, seed=seed, **options)


def simulate_and_fit(task: Task, index: int, seed: int) -> dict[str, Any]:
    """One simulation: a record that JSON can hold."""
    children = np.random.SeedSequence([seed, index]).generate_state(3)
    teacher_seed, data_seed, fit_seed = (int(s) & 0x7FFFFFFF for s in children)
    began = time.perf_counter()
    record: dict[str, Any] = {"index": index, "seed": [seed, index], "error": None}
    try:
        teacher = copy.deepcopy(task.model)
        task.prepare(teacher, task.x, teacher_seed)
        if teacher.is_network:
            teacher.network.sample_weights(teacher_seed)
        drawn = teacher.simulate(task.x, num_outputs=task.num_outputs, seed=data_seed)
        C = drawn.function.shape[1] if teacher.likelihood == "categorical" else None
        data = Data(task.x, drawn.y, C)
        student = copy.deepcopy(task.model)
        if task.hyperparameters == "known":
            student = teacher.hold_hyperparameters()
        fitted = task.fit(student, data, fit_seed)
        record |= _judged(task.model, fitted, drawn.extents, task.num_ranks, fit_seed)
    except (ArithmeticError, ValueError) as error:  # a fit that fails is a result too
        record["error"] = f"{type(error).__name__}: {error}"
    return record | {"seconds": time.perf_counter() - began}


def _judged(model: InvarianceModel, fitted: Any, truth: Tensor, num_ranks: int, seed: int) -> dict[str, Any]:
    """Ranks and intervals of one fit."""
    is_posterior = isinstance(fitted, InvariancePosterior)
    weighed: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    if is_posterior:
        drawn, weights = fitted.result.draws.double().cpu().numpy(), fitted.result.log_weights
        weighed["draws"] = (drawn, None)
        if weights is not None:
            weighed["reweighted"] = (drawn, weights.numpy())
    else:
        named = fitted if isinstance(fitted, Mapping) else {"draws": fitted}
        weighed |= {name: (torch.as_tensor(d).double().cpu().numpy(), None) for name, d in named.items()}
    for draws, _ in weighed.values():
        if draws.ndim != 2 or draws.shape[1] != len(model.symmetries):
            raise ValueError(
                f"fit: expected a posterior or draws (J, {len(model.symmetries)}), got an array of {draws.shape}"
            )
    columns = [model.symmetries.index(name) for name in model.active]
    coordinates = [model.transform.coordinates[k] for k in columns]
    record: dict[str, Any] = {
        "weightings": list(weighed),
        "truth": [float(c.to_people(float(truth[k]))) for c, k in zip(coordinates, columns, strict=True)],
        "largest": [float(c.to_people(c.largest)) for c in coordinates],
    }
    probabilities = np.array([0.5] + [0.5 - 0.5 * p for p in LEVELS] + [0.5 + 0.5 * p for p in LEVELS])
    rng = np.random.default_rng(seed)
    for weighting, (draws, log_w) in weighed.items():
        people = [np.asarray(c.to_people(draws[:, k]), float) for c, k in zip(coordinates, columns, strict=True)]
        table = np.stack(people, 1)  # (J, active)
        kept = table[systematic_resample(num_ranks, len(table), log_w, seed)]
        below, same = (kept < record["truth"]).sum(0), (kept == record["truth"]).sum(0)
        # A draw equal to the truth counts as below or above it at random: a point mass in the prior is no bias.
        ranks = below + rng.integers(0, same + 1)
        q = weighted_quantile(table, probabilities, log_w)
        record[weighting] = {
            "rank": ranks.tolist(),
            "median": q[0].tolist(),
            "lower": q[1 : 1 + len(LEVELS)].tolist(),
            "upper": q[1 + len(LEVELS) :].tolist(),
        }
    if is_posterior:
        k = fitted.pareto_k
        record["pareto_k"] = None if k is None or not np.isfinite(k) else float(k)
        record["converged"] = bool(fitted.result.converged)
        record["log_evidence"] = fitted.log_evidence
    return record


def _described(model: InvarianceModel, x: Tensor, num_outputs: int | None) -> list[Any]:
    """What has to be the same for simulations to be of one kind."""
    state = [(name, value.detach().cpu().double().sum().item()) for name, value in model.state_dict().items()]
    values = hashlib.blake2b(x.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()
    return [model.config(), state, tuple(x.shape), values, num_outputs]
