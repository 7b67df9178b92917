"""What an inference method hands back: the draws, and how far to trust them."""

import dataclasses
import json
import math
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from bayesinv.numerics.mixture import Mixture
from bayesinv.numerics.psis import why_no_standard_error
from bayesinv.numerics.surrogate import Surrogate

# Importance weights come out of a float64 logsumexp over thousands of draws: relative error of
# about 1e-13. Anything further from zero than this has not been normalised.
_NORMALISATION_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class InferenceResult:
    """The draws that approximate p(η | D) and the facts needed to judge them.

    With importance weights w_j proportional to p(D | η_j) p(η_j) / q(η_j), the reweighted
    posterior is Σ_j w_j δ(η − η_j); without them every draw counts the same.

    Args:
        inference: the method: "vi", "nuts", or "fixed" where no extent is latent.
        guide: the family of q(η) for "vi", None otherwise.
        extents: draws of the half-widths, (chains, draws, K), float64 on the CPU, internal units.
            Symmetries that are fixed are columns of one repeated number.
        hyperparameters: u of every draw, (chains * draws, P), in the latent coordinates of
            `bayesinv.model.hyperparameters`, where they were inferred along with the extents; else None.
        density: q over the unconstrained coordinates of the latent extents, for a fit by a mixture or a normal; after
            NUTS that of the variational fit that its chains started from.
        guide_extents: draws of the guide, as `extents`, where those come from weights of a network refitted at several
            extents (``Training.own_weights``); else None.
        surrogate: the regression of the log evidence on those extents; else None.
        log_weights: (draws,) log importance weights, Pareto-smoothed and normalised so that
            logsumexp(log_weights) = 0; only with a single chain. None where the draws need none.
        pareto_k: the shape k-hat of the Pareto fit to the largest weights; past
            `numerics.psis.pareto_limit(draws)` they cannot be trusted.
        log_evidence: an estimate of log p(D) in nats, or None.
        log_evidence_se: its standard error in nats; None where there is none, as where the variance of
            the weights is infinite.
        trace: the objective (nats), before any NUTS: the log joint density at each evaluation of the climb to the best
            mode, or the ELBO at every step of the extents over minibatches.
        seconds: wall-clock time of the fit.
        num_steps: optimiser steps, or transitions of one chain.
        converged: whether the method's own stopping rule was met.
        seed: the seed the fit ran with.
        rhat: rank-normalised split R-hat for each of the K symmetries (NaN for a fixed one), or None.
        ess: effective number of draws for each of the K symmetries, the smaller of that in the bulk and
            that in the tails (NaN for a fixed one), or None.
        settings: the remaining settings of the fit, anything that JSON can hold.
        warnings: what puts the result in doubt, in words; most of it the fit also warned of.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a field has an impossible value, or two fields contradict each other.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry, 2024, "Pareto smoothed importance sampling", arXiv
        1507.02646.

    Example:
        >>> import torch
        >>> extents = torch.rand(1, 100, 2, dtype=torch.float64)
        >>> result = InferenceResult(inference="vi", guide="full_rank", extents=extents, seed=0)
        >>> result.num_chains, result.num_draws, result.num_coordinates
        (1, 100, 2)
        >>> result.draws.shape
        torch.Size([100, 2])
    """

    inference: str
    guide: str | None
    # Shapes and dtypes are checked in __post_init__, which can say what to do about them.
    extents: Tensor
    hyperparameters: Tensor | None = None
    density: Mixture | None = None
    guide_extents: Tensor | None = None
    surrogate: Surrogate | None = None
    log_weights: Tensor | None = None
    pareto_k: float | None = None
    log_evidence: float | None = None
    log_evidence_se: float | None = None
    trace: tuple[float, ...] = ()
    seconds: float = 0.0
    num_steps: int = 0
    converged: bool = True
    seed: int
    rhat: tuple[float, ...] | None = None
    ess: tuple[float, ...] | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_extents(self.extents)
        if self.guide_extents is not None:
            _check_extents(self.guide_extents)
        if self.log_weights is not None:
            _check_log_weights(self.log_weights, self.extents)
        if self.hyperparameters is not None and len(self.hyperparameters) != self.num_chains * self.num_draws:
            raise ValueError(
                f"hyperparameters: expected a row for each of {self.num_chains * self.num_draws} draws, got "
                f"{len(self.hyperparameters)}"
            )
        for name in ("trace", "rhat", "ess"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(float(v) for v in value))
        for name in ("rhat", "ess"):
            value = getattr(self, name)
            if value is not None and len(value) != self.num_coordinates:
                raise ValueError(
                    f"{name} has {len(value)} entries for {self.num_coordinates} symmetries; "
                    "give one for each, NaN for a fixed symmetry"
                )
        if self.log_evidence_se is not None and not self.log_evidence_se >= 0:
            raise ValueError(f"log_evidence_se is a standard error, >= 0; got {self.log_evidence_se}")
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"seconds must be finite and >= 0; got {self.seconds}")
        if self.num_steps < 0:
            raise ValueError(f"num_steps must be >= 0; got {self.num_steps}")
        if any(not isinstance(w, str) for w in self.warnings):
            raise TypeError("warnings must be a tuple of strings")
        object.__setattr__(self, "warnings", tuple(self.warnings))
        try:
            settings = json.loads(json.dumps(self.settings))
        except (TypeError, ValueError) as error:
            raise TypeError(f"settings must be JSON (dict, list, str, number, bool, None): {error}") from None
        # Kept as JSON gives it back (tuples become lists), so that a saved result equals the one in
        # memory.
        object.__setattr__(self, "settings", settings)

    @property
    def num_chains(self) -> int:
        """How many chains; 1 for variational inference."""
        return self.extents.shape[0]

    @property
    def is_point(self) -> bool:
        """Whether there is one draw alone: a point estimate, or extents that are all fixed."""
        return self.num_chains * self.num_draws == 1

    @property
    def num_draws(self) -> int:
        """How many draws in each chain."""
        return self.extents.shape[1]

    @property
    def num_coordinates(self) -> int:
        """K, counting the fixed symmetries."""
        return self.extents.shape[2]

    @property
    def why_no_standard_error(self) -> str:
        """Why the weights give `log_evidence` no standard error, as a clause; empty where it has one."""
        if self.log_evidence is None or self.log_evidence_se is not None or self.log_weights is None:
            return ""
        return why_no_standard_error(self.pareto_k, self.num_draws)

    @property
    def why_no_log_evidence(self) -> str:
        """Why a fit of a network reports no log evidence, as a clause; empty where it reports one."""
        return "" if self.log_evidence is not None else str(self.settings.get("why_no_log_evidence", ""))

    @property
    def draws(self) -> Float64[Tensor, "total K"]:
        """All draws, chain after chain, (chains * draws, K), internal units."""
        return self.extents.flatten(0, 1)  # (chains, draws, K) -> (chains * draws, K)


def _check_extents(extents: object) -> None:
    if not isinstance(extents, Tensor):
        raise TypeError(f"extents must be a torch.Tensor; got {type(extents).__name__}")
    if extents.ndim != 3 or 0 in extents.shape:
        raise ValueError(f"extents must be (chains, draws, K), none of them 0; got {tuple(extents.shape)}")
    if extents.dtype != torch.float64 or extents.device.type != "cpu" or extents.requires_grad:
        raise ValueError(
            "extents must be float64 on the CPU and detached; got "
            f"{extents.dtype} on {extents.device}, requires_grad={extents.requires_grad}"
        )
    if not bool(torch.isfinite(extents).all()):
        raise ValueError(f"extents hold {int((~torch.isfinite(extents)).sum())} values that are not finite")
    if bool((extents < 0).any()):
        raise ValueError(f"extents are half-widths, >= 0; the smallest is {float(extents.min()):.3g}")


def _check_log_weights(log_weights: object, extents: Tensor) -> None:
    if not isinstance(log_weights, Tensor):
        raise TypeError(f"log_weights must be a torch.Tensor; got {type(log_weights).__name__}")
    if extents.shape[0] != 1:
        raise ValueError(f"log_weights go with a single chain of draws; extents have {extents.shape[0]} chains")
    if log_weights.shape != extents.shape[1:2]:
        raise ValueError(
            f"log_weights must have shape (draws,) = ({extents.shape[1]},); got {tuple(log_weights.shape)}"
        )
    if log_weights.dtype != torch.float64 or log_weights.device.type != "cpu" or log_weights.requires_grad:
        raise ValueError(f"log_weights must be float64 on the CPU and detached; got {log_weights.dtype}")
    total = float(torch.logsumexp(log_weights, 0))
    if not abs(total) <= _NORMALISATION_TOLERANCE:  # also catches NaN
        raise ValueError(f"log_weights must be normalised, logsumexp = 0; got {total:.3g}")
