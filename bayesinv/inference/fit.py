"""``bayesinv.fit``: one call from a model and data to a posterior."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from bayesinv.data import Data, as_data
from bayesinv.errors import ImportanceWarning, NotConvergedWarning
from bayesinv.inference.guides import GuideFactory
from bayesinv.inference.importance import importance_sample
from bayesinv.inference.loop import Callback
from bayesinv.inference.nuts import run_nuts
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
    settings = {
        "device": str(place),
        "max_steps": max_steps,
        "learning_rate": learning_rate,
        "tolerance": tolerance,
        "num_train": len(checked),
    }
    with seeded(seed), local_parameters():
        fitted.initialise(checked, seed)
        if not fitted.active:
            trace = fit_hyperparameters(fitted, checked, schedule, progress, callbacks)
            eta = torch.tensor([fitted.extents.fixed[name] for name in fitted.symmetries], dtype=torch.float64)
            with torch.no_grad():
                value = float(fitted.log_evidence(eta, checked))
            result = InferenceResult(
                inference="fixed",
                guide=None,
                extents=eta[None, None],
                log_evidence=value,
                log_evidence_se=0.0,
                trace=trace.objective,
                seconds=time.perf_counter() - began,
                num_steps=len(trace.objective),
                converged=trace.converged,
                seed=seed,
                settings=settings,
            )
            return InvariancePosterior(fitted, checked, result)
        q, name, trace, failure = fit_guide(fitted, checked, guide, schedule, progress, callbacks)
        if inference == "vi" or failure is not None:
            drawn = importance_sample(fitted, q, checked, num_draws)
            notes = _note_importance(drawn.pareto_k)
            result = InferenceResult(
                inference="vi",
                guide=name,
                extents=drawn.extents[None],
                log_weights=drawn.log_weights,
                pareto_k=drawn.pareto_k,
                log_evidence=drawn.log_evidence,
                log_evidence_se=drawn.log_evidence_se,
                trace=trace.objective,
                seconds=time.perf_counter() - began,
                num_steps=len(trace.objective),
                converged=trace.converged,
                seed=seed,
                settings=settings,
                warnings=notes if failure is None else (*notes, str(failure)),
            )
        else:
            chains = run_nuts(fitted, q, checked, num_chains, num_draws, num_warmup, num_draws, progress)
            worst = max(value for value in chains.rhat if value == value)
            notes = () if worst <= LARGEST_RHAT else (_rhat_note(worst),)
            for note in notes:
                warnings.warn(note, NotConvergedWarning, stacklevel=2)
            result = InferenceResult(
                inference="nuts",
                guide=None,
                extents=chains.extents,
                pareto_k=None,
                log_evidence=chains.evidence.log_evidence,
                log_evidence_se=chains.evidence.log_evidence_se,
                trace=trace.objective,
                seconds=time.perf_counter() - began,
                num_steps=num_warmup + num_draws,
                converged=worst <= LARGEST_RHAT,
                seed=seed,
                rhat=chains.rhat,
                ess=chains.ess,
                settings={**settings, "num_warmup": num_warmup},
                warnings=notes,
            )
    posterior = InvariancePosterior(fitted, checked, result)
    if failure is not None:
        failure.posterior = posterior
        raise failure
    return posterior


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


def _note_importance(pareto_k: float) -> tuple[str, ...]:
    if pareto_k <= LARGEST_PARETO_K:
        return ()
    note = (
        f"Pareto k̂ = {pareto_k:.2f} is above {LARGEST_PARETO_K}: the guide misses part of the posterior, so that the "
        'reweighted posterior and log_evidence are rough. Try guide="flow", more max_steps, or inference="nuts"'
    )
    warnings.warn(note, ImportanceWarning, stacklevel=3)
    return (note,)


def _rhat_note(worst: float) -> str:
    return f"R̂ = {worst:.3f} is above {LARGEST_RHAT}: the chains disagree. Raise num_warmup and num_draws"
