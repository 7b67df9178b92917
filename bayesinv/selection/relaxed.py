"""The selection from one fit under relaxed spike-and-slab priors: for many symmetries, and for stochastic evidences."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesinv.errors import ExtentError
from bayesinv.extents.priors import Outward
from bayesinv.extents.spike_and_slab import SpikeAndSlab
from bayesinv.io.tables import ConsoleTable
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.selection.result import Selection
from bayesinv.selection.sets import InclusionPrior, inclusion_probabilities, set_name

# Sets listed: those that at most this many draws of γ show.
SET_DRAWS = 2000


def with_spikes(model: InvarianceModel, prior_inclusion: InclusionPrior, spike: float) -> InvarianceModel:
    """A copy of the model whose latent extents have :class:`SpikeAndSlab` priors around their own.

    Raises:
        ValueError: "beta_binomial", which ties the symmetries together; the relaxed priors are one for each.
        ExtentError: an outward prior, under which no extent can be absent.
    """
    if isinstance(prior_inclusion, str):
        raise ValueError(
            f'prior_inclusion={prior_inclusion!r} needs method="subsets"; relaxed priors are one for each symmetry: '
            "give a probability, or one by name"
        )
    changed = copy.deepcopy(model)
    probabilities = inclusion_probabilities(prior_inclusion, model.active).tolist()
    for name, probability in zip(model.active, probabilities, strict=True):
        prior = model.extents.priors[name]
        if isinstance(prior, Outward):
            raise ExtentError(
                f"priors[{name!r}]: an Outward prior is a trade-off, not a belief; selection needs a slab such as the "
                "default UniformExtent(0, largest)"
            )
        slab = prior.slab if isinstance(prior, SpikeAndSlab) else prior
        changed.extents.priors[name] = SpikeAndSlab(slab, probability, spike)
    return changed


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RelaxedSelection(Selection, method="relaxed"):
    """Averages over posterior draws under relaxed spikes of the probability that each belongs to the slab.

        p(γ_k = 1 | D) ≈ Σ_j w_j p(γ_k = 1 | η_jk),     η_j ~ q, w_j importance weights where the evidence has them

    Standard errors are those of the average over draws alone. They leave out how far q is from the posterior: for
    networks nobody knows that, and a q that never jumped between spike and slab says so with probabilities near 0
    or 1. Odds beyond what the number of draws can show are cut there, and the column `at_limit` says so.

    Args:
        membership: p(γ_k = 1 | η_jk) of the posterior's draws, (J, K).
        weights: w_j, summing to one, (J,).
        paired: Bayes factors by paired evidences, if they were computed; see `paired_bayes_factors`.
        posterior: the fit under the relaxed priors; a file does not hold it, save it by its own `save`.
    """

    membership: Float[Tensor, "J K"]
    weights: Float[Tensor, " J"]
    paired: pd.DataFrame | None = None
    posterior: InvariancePosterior | None = None

    @staticmethod
    def of(posterior: InvariancePosterior, **facts: Any) -> RelaxedSelection:
        """The selection that a fit under :class:`SpikeAndSlab` priors says; other arguments as for the class."""
        model = posterior.model
        priors = model.extents.priors
        membership = torch.stack([priors[name].inclusion_given(posterior[name]) for name in model.active], 1)
        J = len(membership)
        log_weights = posterior.result.log_weights
        weights = torch.full((J,), 1.0 / J, dtype=torch.float64) if log_weights is None else log_weights.exp()
        return RelaxedSelection(
            symmetries=model.active, membership=membership, weights=weights, posterior=posterior, **facts
        )

    @property
    def inclusion(self) -> pd.DataFrame:
        """Index `symmetry`; columns `probability`, `standard_error` and `prior`."""
        w, member = self.weights, self.membership
        probability = w @ member
        error = (w.square() @ (member - probability).square()).sqrt()
        prior = inclusion_probabilities(self.prior_inclusion, self.symmetries)
        columns = {"probability": probability, "standard_error": error, "prior": prior}
        return ConsoleTable(
            {name: values.tolist() for name, values in columns.items()},
            index=pd.Index(self.symmetries, name="symmetry"),
        )

    @property
    def bayes_factors(self) -> pd.DataFrame:
        """`log_bf`, posterior over prior odds of inclusion, `log_bf_se` and `at_limit`; and the paired ones, if any."""
        table = self.inclusion
        limit = 0.5 * float(self.weights.square().sum())  # half of one effective draw
        p = table["probability"].clip(limit, 1.0 - limit)
        prior = table["prior"]
        result = ConsoleTable(
            {
                "log_bf": (p / (1 - p) * (1 - prior) / prior).map(math.log),
                "log_bf_se": table["standard_error"] / (p * (1 - p)),
                "at_limit": (table["probability"] < limit) | (table["probability"] > 1 - limit),
            }
        )
        return result if self.paired is None else result.join(self.paired)

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Symmetries whose `log_bf` and `log_bf_paired` differ in sign, both by more than twice their errors."""
        if self.paired is None:
            return ()
        table = self.bayes_factors
        clear = (table["log_bf"].abs() > 2 * table["log_bf_se"]) & (
            table["log_bf_paired"].abs() > 2 * table["log_bf_paired_se"]
        )
        return tuple(table.index[clear & (table["log_bf"] * table["log_bf_paired"] < 0)])

    @property
    def subsets(self) -> pd.DataFrame:
        """Sets by posterior probability; index `set`, columns `size`, `probability` and `standard_error`.

        Candidates are the sets that draws of γ show; the probability of each is averaged over the draws of η.
        """
        w, member = self.weights, self.membership
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.multinomial(w, SET_DRAWS, replacement=True, generator=generator)
        drawn = torch.rand(SET_DRAWS, len(self.symmetries), dtype=torch.float64, generator=generator) < member[rows]
        sets: Bool[Tensor, "sets K"] = torch.unique(drawn, dim=0)
        p = torch.where(sets[:, None], member, 1.0 - member).prod(-1)  # (sets, J)
        probability = p @ w
        error = (p - probability[:, None]).square() @ w.square()
        names = [set_name([n for n, inside in zip(self.symmetries, row, strict=True) if inside]) for row in sets]
        columns = {
            "size": sets.sum(1).tolist(),
            "probability": probability.tolist(),
            "standard_error": error.sqrt().tolist(),
        }
        table = ConsoleTable(columns, index=pd.Index(names, name="set"))
        return table.sort_values("probability", ascending=False, kind="stable")

    def _packed(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        arrays = {"membership": self.membership.numpy(), "weights": self.weights.numpy()}
        paired = self.paired
        if paired is not None:
            arrays["paired"] = paired.to_numpy(dtype=float)
        return {"paired": None if paired is None else [list(paired.index), list(paired.columns)]}, arrays

    @classmethod
    def _unpacked(cls, header: dict[str, Any], arrays: dict[str, Tensor], common: dict[str, Any]) -> RelaxedSelection:
        paired = None
        if header["paired"] is not None:
            names, columns = header["paired"]
            paired = ConsoleTable(arrays["paired"].numpy(), index=pd.Index(names, name="symmetry"), columns=columns)
        return cls(**common, membership=arrays["membership"], weights=arrays["weights"], paired=paired)

    def _facts(self) -> str:
        evidence = self.settings.get("evidence", "an")
        return f"one fit with relaxed spikes, {evidence} evidence, {self.seconds:.0f} s"
