"""``bayesinv.fit``: one call from a model and data to a posterior."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from bayesinv.data import Data, as_data
from bayesinv.errors import ImportanceWarning, NonFiniteError, NotConvergedWarning
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
    max_steps: int = 400,
    learning_rate: float = 0.045,
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
        num_draws: posterior draws, per chain for NUTS; each is weighed by one evaluation of the evidence.
        num_chains, num_warmup: of NUTS.
        progress: show a bar with the current extents.
        callbacks: called with a :class:`Step` after every optimiser step; True ends the run.

    Returns:
        The posterior. With every extent fixed it is a point mass, and ``log_evidence`` is the evidence there.

    Raises:
        DataError: unusable data. NonFiniteError: the objective could not be computed; its ``posterior``
            holds the last good state, if there was one.

    Warns:
        ImportanceWarning: k̂ > 0.7. NotConvergedWarning: R̂ > 1.05.

    Example:
        >>> from bayesinv import GaussianProcess, InvarianceModel
        >>> from bayesinv.datasets import digits
        >>> train = digits(rotation=0.8, num_train=60, seed=0).train
        >>> model = InvarianceModel(GaussianProcess(num_inducing=20), "rotation", num_orbit_samples=8)
        >>> posterior = fit(model, train, seed=0, max_steps=100, num_draws=50)
        >>> posterior.sample(3).shape
        torch.Size([3, 1])
    """
    if not isinstance(model, InvarianceModel):
        raise TypeError(f"model: expected a bayesinv.InvarianceModel, got {type(model).__name__}")
    if inference not in INFERENCES:
        raise ValueError(f"inference: expected one of {list(INFERENCES)}, got {inference!r}")
    for name, count in {
        "max_steps": max_steps,
        "num_draws": num_draws,
        "num_chains": num_chains,
    }.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name}: expected a positive integer, got {count!r}")
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
            facts = _point_mass(fitted, checked, fit_hyperparameters(fitted, checked, schedule, progress, callbacks))
        else:
            q, name, trace, failure = fit_guide(fitted, checked, guide, schedule, progress, callbacks)
            if inference == "vi" or failure is not None:
                facts = _weighted_draws(importance_sample(fitted, q, checked, num_draws), name, trace)
            else:
                facts = _chain_draws(
                    run_nuts(fitted, q, checked, num_chains, num_draws, num_warmup, num_draws, progress),
                    trace,
                    num_warmup,
                )
    if failure is not None:
        facts["warnings"] = (*facts["warnings"], str(failure))
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
        warnings.warn(notes[0], ImportanceWarning, stacklevel=3)
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
    worst = max(value for value in chains.rhat if value == value)  # NaN where an extent is fixed
    notes: tuple[str, ...] = ()
    if worst > LARGEST_RHAT:
        notes = (f"R̂ = {worst:.3f} is above {LARGEST_RHAT}: the chains disagree. Raise num_warmup and num_draws",)
        warnings.warn(notes[0], NotConvergedWarning, stacklevel=3)
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
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f'device: expected "auto", "cpu" or an accelerator of this machine such as "cuda", got {device!r}'
        ) from error
    return place
