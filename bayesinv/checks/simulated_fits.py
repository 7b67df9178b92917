"""Data drawn from a fitted model near where its fit lies, and fits to them: what recalibration learns from."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesinv.checks.records import read_records, write_record
from bayesinv.checks.simulated_data import teacher_of
from bayesinv.checks.simulations import Fit
from bayesinv.data.container import Data
from bayesinv.fitted.recalibrated import NORMAL_END, SMALLEST_SCALE, PriorScale, knots, standardised, weights_of
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.jobs import run_jobs

# β of the path: three times the standard deviation of a narrow posterior. Exact inference then has errors 5 % smaller
# than N(0, 1) in that half of the simulations, since the truth is known to lie nearby and the fit does not know it.
PATH = 1 / 9
MOST_ATTEMPTS = 50  # to simulate labels that are not all of one class


@dataclass(frozen=True)
class Job:
    """Everything that one process needs to simulate and fit."""

    model: InvarianceModel
    student: InvarianceModel
    data: Data
    fit: Fit
    extents: str
    scale: PriorScale
    at: Any  # (3, K), where the real fit lies, in z
    reweighted: bool | None


def student_of(model: InvarianceModel, seed: int) -> InvarianceModel:
    """What is fitted to simulated data: the model, the layers of a network started anew where they can start.

    ``fit`` starts the hyperparameters and inducing inputs of a Gaussian process anew, unless they are held.
    """
    student = copy.deepcopy(model)
    if student.is_network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in student.network.net.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset) and all(p.requires_grad for p in module.parameters(recurse=False)):
                    reset()
    return student


def true_extents(job: Job, index: int, seed: int) -> Tensor:
    """True extents of one simulation, (K,): every second one near the posterior, the others from the prior."""
    drawn = job.model.extents.sample_prior(1, seed)[0]
    if job.extents == "prior" or index % 2:
        return drawn
    sd = np.maximum((job.at[2] - job.at[0]) / (2 * NORMAL_END), SMALLEST_SCALE)
    variance = 1 / (PATH / sd**2 + 1 - PATH)
    z = variance * PATH * job.at[1] / sd**2 + np.sqrt(variance) * np.random.default_rng(seed).standard_normal(len(sd))
    near = torch.from_numpy(job.scale.from_z(z[None])[0])
    latent = torch.tensor([name in job.model.active for name in job.model.symmetries])
    return torch.where(latent, near, drawn)


def simulated_fits(
    job: Job, indices: range, jobs: int | None, folder: Path | None, facts: Mapping[str, Any], seed: int
) -> list[dict[str, Any]]:
    """Records of simulated fits, those that a folder holds or new ones."""
    done = {} if folder is None else read_records(folder, facts)
    missing = [i for i in indices if i not in done]
    for record in run_jobs(functools.partial(simulate_one, job, seed=seed), missing, jobs):
        done[record["index"]] = record
        if folder is not None:
            write_record(folder, record)
    return [done[i] for i in indices]


def simulate_one(job: Job, index: int, seed: int) -> dict[str, Any]:
    """One simulation: a record that JSON can hold, extents in z."""
    began = time.perf_counter()
    record: dict[str, Any] = {"index": index, "seed": [seed, index], "error": None}
    try:
        eta, data, fit_seed = _usable(job, index, seed)
        fitted = job.fit(copy.deepcopy(job.student), data, fit_seed)
        record |= _record(job, fitted, eta)
    except (ArithmeticError, ValueError) as error:  # a fit that fails is a result too
        record["error"] = f"{type(error).__name__}: {error}"
    return record | {"seconds": time.perf_counter() - began}


def _usable(job: Job, index: int, seed: int) -> tuple[Tensor, Data, int]:
    """Extents, data and the seed of their fit; drawn anew where labels are all alike, since no real fit has such data.

    Raises:
        ValueError: no two different labels in many attempts.
    """
    for attempt in range(MOST_ATTEMPTS):
        children = np.random.SeedSequence([seed, index, attempt]).generate_state(4)
        extents_seed, teacher_seed, data_seed, fit_seed = (int(s) & 0x7FFFFFFF for s in children)
        eta = true_extents(job, index, extents_seed)
        data = simulated_data(job, eta, teacher_seed, data_seed)
        if data.num_classes is None or bool((data.y != data.y.flatten()[0]).any()):
            return eta, data, fit_seed
    raise ValueError(f"the labels of {MOST_ATTEMPTS} simulated data sets are all alike")


def simulated_data(job: Job, eta: Tensor, teacher_seed: int, data_seed: int) -> Data:
    """The training data with targets drawn from the fitted model."""
    teacher, data = teacher_of(job.model, teacher_seed), job.data
    more = {} if data.groups is None or job.model.groups is None else {"groups": data.groups}
    drawn = teacher.simulate(data.x, eta, num_outputs=data.num_outputs, seed=data_seed, **more)
    return Data(data.x, drawn.y, data.num_classes, data.groups)


def _record(job: Job, fitted: Any, eta: Tensor) -> dict[str, Any]:
    """Where one fit lies, and how far from the truth."""
    result = getattr(fitted, "result", None)
    draws = torch.as_tensor(fitted if result is None else result.draws).double().cpu().numpy()
    if draws.ndim != 2 or draws.shape[1] != len(job.model.symmetries):
        raise ValueError(f"fit: expected a posterior or draws (J, {len(job.model.symmetries)}), got {draws.shape}")
    at = knots(draws, None if result is None else weights_of(result, job.reweighted), job.scale)
    z = job.scale.to_z(eta.double().numpy()[None])
    columns = [job.model.symmetries.index(name) for name in job.model.active]
    evidence = getattr(fitted, "log_evidence", None)
    return {
        "truth": z[0, columns].tolist(),
        "knots": at[:, columns].tolist(),
        "errors": standardised(z, at)[0, columns].tolist(),
        "log_evidence": evidence if evidence is not None and np.isfinite(evidence) else None,
    }
