"""``bayesinv.fit``: one call from a model and data to a posterior."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from bayesinv.data import Data, as_data
from bayesinv.errors import ImportanceWarning, NonFiniteError, NotConvergedWarning, NumericalError
from bayesinv.inference.guides import GuideFactory
from bayesinv.inference.importance import WeightedDraws, importance_sample
from bayesinv.inference.loop import Callback, Trace
from bayesinv.inference.nuts import Chains, run_nuts
from bayesinv.inference.result import InferenceResult
from bayesinv.inference.vi import Schedule, fit_guide, fit_hyperparameters, local_parameters
from bayesinv.model import InvarianceModel
from bayesinv.posterior import InvariancePosterior
from bayesinv.randomness import seeded

INFERENCES = ("vi", "nuts")
LARGEST_PARETO_K = 0.7  # Vehtari et al., 2024: past it the weights' mean has not settled at any feasible size
LARGEST_RHAT = 1.05


def fit(
    model: InvarianceModel,
    data: Any,
    inference: str = "vi",
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    guide: str | GuideFactory = "full_rank",
    max_steps: int = 1000,
    learning_rate: float = 0.05,
    tolerance: float = 0.02,
    num_draws: int = 300,
    num_chains: int = 2,
    num_warmup: int = 150,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
) -> InvariancePosterior:
    """Fit the posterior over the extents of invariance, p(η | D).

    Maximises the ELBO E_q[log p(D | η)] - KL(q ‖ p) over q, the kernel, the noise and the inducing inputs
    ("vi"), or samples p(η | D) at the values so learned ("nuts"). The model passed in is left as it was.

    Args:
        model: what to fit.
        data: (x, y) tensors or arrays, a ``Dataset``, or a ``DataLoader`` (read once, as a whole: the collapsed
            evidence does not split over batches). x is (n, *event) floating point; y is (n,) labels or real
            targets (n,) or (n, outputs).
        inference: "vi" or "nuts".
        seed: of everything random; the same seed gives the same result on the CPU.
        device: "auto" (CUDA if there is one), "cpu", "cuda", ...
        guide: "full_rank" (normal), "mean_field", "flow", or a callable from the Pyro model to a guide.
        max_steps: the most optimiser steps; the run ends earlier on a plateau.
        learning_rate: of Adam, for the guide.
        tolerance: of the plateau rule, in units of the objective's spread over a window.
        num_draws: posterior draws, per chain for NUTS, at least 5; after VI each is weighed by one evaluation of
            the evidence.
        num_chains, num_warmup: of NUTS.
        progress: show a bar with the current extents.
        callbacks: called with a :class:`Step` after every optimiser step; True ends the run.

    Returns:
        The posterior. With every extent fixed it is a point mass, and ``log_evidence`` is the evidence there.

    Raises:
        DataError: unusable data. NonFiniteError: the objective could not be computed; its ``posterior``
            holds the last good state, if there was one.

    Warns:
        ImportanceWarning: k̂ > 0.7. NotConvergedWarning: R̂ > 1.05, or max_steps reached before a plateau.

    Example:
        >>> from bayesinv import GaussianProcess, InvarianceModel
        >>> from bayesinv.datasets import digits
        >>> train = digits(rotation=0.8, num_train=60, seed=0).train
        >>> model = InvarianceModel(GaussianProcess(num_inducing=20), "rotation", num_orbit_samples=8)
        >>> posterior = fit(model, train, seed=0, num_draws=50)
        >>> posterior.sample(3).shape
        torch.Size([3, 1])
    """
    if not isinstance(model, InvarianceModel):
        raise TypeError(f"model: expected a bayesinv.InvarianceModel, got {type(model).__name__}")
    if not isinstance(inference, str):
        raise TypeError(
            f"inference: expected one of {list(INFERENCES)}, got a {type(inference).__name__}; pass x and y together: "
            "fit(model, (x, y))"
        )
    if inference not in INFERENCES:
        raise ValueError(f"inference: expected one of {list(INFERENCES)}, got {inference!r}")
    _check_counts(max_steps=max_steps, num_chains=num_chains, num_warmup=num_warmup)
    _check_counts(least=5, num_draws=num_draws)
    for name, value in {"learning_rate": learning_rate, "tolerance": tolerance}.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    with seeded(seed):  # refuses what is no seed before anything is computed
        seed = int(seed)
    place = choose_device(device)
    checked: Data = as_data(data, model.likelihood, model.transform)
    schedule = Schedule(max_steps, learning_rate, tolerance)
    began = time.perf_counter()
    fitted = copy.deepcopy(model).to(place)
    checked = checked.to(place)
    failure: NonFiniteError | None = None
    with seeded(seed), local_parameters():
        fitted.initialise(checked, seed)
        if not fitted.active:
            trace, failure = fit_hyperparameters(fitted, checked, schedule, progress, callbacks)
            facts = _point_mass(fitted, checked, trace)
        else:
            q, name, trace, failure = fit_guide(fitted, checked, guide, schedule, progress, callbacks)
            chains: Chains | None = None
            if inference == "nuts" and failure is None:
                try:
                    chains = run_nuts(fitted, q, checked, num_chains, num_draws, num_warmup, num_draws, progress)
                except NumericalError as error:
                    failure = NonFiniteError(f"NUTS: {error}; the variational posterior is kept", step=0)
            if chains is None:
                facts = _weighted_draws(importance_sample(fitted, q, checked, num_draws), name, trace)
            else:
                facts = _chain_draws(chains, trace, num_warmup)
    notes = list(facts["warnings"])
    if failure is not None:
        notes.append(str(failure))
    elif facts["inference"] != "nuts" and not trace.converged:
        notes.append(f"the objective was still rising after {len(trace.objective)} steps: raise max_steps")
        warnings.warn(notes[-1], NotConvergedWarning, stacklevel=2)
    facts["warnings"] = tuple(notes)
    settings = {
        "device": str(place),
        "max_steps": max_steps,
        "learning_rate": learning_rate,
        "tolerance": tolerance,
        "num_train": len(checked),
        "num_warmup": num_warmup if facts["inference"] == "nuts" else None,
    }
    result = InferenceResult(**facts, seconds=time.perf_counter() - began, seed=seed, settings=settings)
    posterior = InvariancePosterior(fitted, checked, result)
    if failure is not None:
        failure.posterior = posterior
        raise failure
    return posterior


def _check_counts(least: int = 1, **counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {count!r}")


def _point_mass(model: InvarianceModel, data: Data, trace: Trace) -> dict[str, Any]:
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
        "trace": trace.objective,
        "num_steps": len(trace.objective),
        "converged": trace.converged,
        "warnings": (),
    }


def _weighted_draws(drawn: WeightedDraws, guide: str, trace: Trace) -> dict[str, Any]:
    """The facts of a variational fit; warns past the largest k̂."""
    notes: tuple[str, ...] = ()
    if drawn.pareto_k > LARGEST_PARETO_K:
        notes = (
            f"Pareto k̂ = {drawn.pareto_k:.2f} is above {LARGEST_PARETO_K}: the guide misses part of the posterior, so "
            "that the reweighted posterior and log_evidence are rough. "
            'Try guide="flow", more max_steps, or inference="nuts"',
        )
        if not math.isfinite(drawn.pareto_k):
            notes = (
                f"the weights of {len(drawn.extents)} draws have too short a tail to be judged (Pareto k̂ needs about "
                "25): raise num_draws",
            )
        warnings.warn(notes[0], ImportanceWarning, stacklevel=3)
    if drawn.num_failed:
        notes = (*notes, f"the evidence could not be computed at {drawn.num_failed} draws, which have no weight")
    return {
        "inference": "vi",
        "guide": guide,
        "extents": drawn.extents[None],
        "log_weights": drawn.log_weights,
        "pareto_k": drawn.pareto_k,
        "log_evidence": drawn.log_evidence,
        "log_evidence_se": drawn.log_evidence_se,
        "trace": trace.objective,
        "num_steps": len(trace.objective),
        "converged": trace.converged,
        "warnings": notes,
    }


def _chain_draws(chains: Chains, trace: Trace, num_warmup: int) -> dict[str, Any]:
    """The facts of a NUTS run; warns past the largest R̂. The trace is that of the VI fit before it."""
    worst = chains.worst_rhat
    notes: tuple[str, ...] = ()
    if chains.evidence.pareto_k > LARGEST_PARETO_K:
        notes = (f"log_evidence is rough: its own weights have Pareto k̂ = {chains.evidence.pareto_k:.2f}",)
    if worst > LARGEST_RHAT:
        notes = (
            *notes,
            f"R̂ = {worst:.3f} is above {LARGEST_RHAT}: the chains disagree. Raise num_warmup and num_draws",
        )
        warnings.warn(notes[-1], NotConvergedWarning, stacklevel=3)
    return {
        "inference": "nuts",
        "guide": None,
        "extents": chains.extents,
        "log_evidence": chains.evidence.log_evidence,
        "log_evidence_se": chains.evidence.log_evidence_se,
        "trace": trace.objective,
        "num_steps": num_warmup + chains.extents.shape[1],
        "converged": worst <= LARGEST_RHAT,
        "rhat": chains.rhat,
        "ess": chains.ess,
        "warnings": notes,
    }


def choose_device(device: str | torch.device) -> torch.device:
    """The device of a name; "auto" is CUDA if there is one.

    Raises:
        ValueError: unknown, or not on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f'device: expected "auto", "cpu", or an accelerator that is there, got {device!r}; '
            f"CUDA devices on this machine: {torch.cuda.device_count()}"
        ) from error
    return place
