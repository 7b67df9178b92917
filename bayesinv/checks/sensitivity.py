"""How far a posterior depends on its prior: draws reweighted by powers of the prior and of the likelihood.

    p_α(η | D) ∝ p(D | η) p(η)^α,      p_α(η | D) ∝ p(D | η)^α p(η),      α = 0.8 and 1.25

The distance between the posterior and a power-scaled one, per doubling of α, is its sensitivity; past 0.05 it matters
(Kallioinen, Paananen, Bürkner & Vehtari, 2023, arXiv:2107.14054).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.checks.target import Target
from bayesinv.checks.verdicts import Verdict
from bayesinv.io.tables import ConsoleTable
from bayesinv.numerics.psis import LARGEST_LIMIT, pareto_limit, pareto_smooth

if TYPE_CHECKING:
    from bayesinv.posterior.invariance_posterior import InvariancePosterior

POWERS = (0.8, 1.25)
THRESHOLD = 0.05
_CONFLICT, _STRONG, _FINE = "prior and data in conflict", "strong prior or weak data", "-"


@dataclass(frozen=True, eq=False)
class PriorSensitivity:
    """Sensitivities by symmetry.

    Attributes:
        table: index symmetry; ``prior`` and ``likelihood``, sensitivities; ``diagnosis``; ``median_weaker`` and
            ``median_stronger``, the median in people's units at the prior's power 0.8 and 1.25, and ``unit``.
        pareto_k: the largest of the four reweightings.
        limit: of k̂ for so many draws; past it the table cannot be trusted.
    """

    table: pd.DataFrame
    pareto_k: float
    limit: float = LARGEST_LIMIT

    def verdicts(self) -> list[Verdict]:
        """A note for every symmetry whose prior matters, or that nobody can say."""
        if not self.pareto_k <= self.limit:  # NaN is no pass
            message = (
                f"Pareto k̂ = {self.pareto_k:.2f} of the powers of prior and likelihood is above its limit, "
                f"{self.limit:.2f}: these draws do not show how far the prior matters."
            )
            return [Verdict("sensitivity", "note", message, "Fit with more num_draws, or again under another prior.")]
        found = []
        for symmetry, row in self.table.iterrows():
            if row["diagnosis"] == _FINE:
                continue
            message = (
                f"{symmetry}: {row['diagnosis']}; prior sensitivity {row['prior']:.2f}, likelihood sensitivity "
                f"{row['likelihood']:.2f} (past {THRESHOLD} it matters)."
            )
            advice = "Say which prior was used, and whether another one that you would defend changes the conclusion."
            found.append(Verdict("sensitivity", "note", message, advice))
        return found or [Verdict("sensitivity", "ok", "No extent depends on the strength of its prior.")]


def prior_sensitivity(posterior: InvariancePosterior, num_draws: int = 400, seed: int = 0) -> PriorSensitivity:
    """Power-scaling sensitivity of every latent extent.

    A flat prior stays flat at every power, so that its sensitivity is 0 by construction; what a flat prior decides is
    where it ends, and ``posterior.check()`` says whether an extent lies there.

    Args:
        posterior: of a collapsed evidence.
        num_draws: draws to use; an evaluation of the evidence each.
        seed: of which.

    Raises:
        ValueError: a point estimate, nothing latent, or an evidence that is estimated from minibatches.

    Example:
        >>> prior_sensitivity(posterior).table["diagnosis"]  # doctest: +SKIP
    """
    result = posterior.result
    if result.is_point:
        raise ValueError(f"{result.inference} is a point estimate, which has no sensitivity")
    target = Target(posterior)
    total = len(result.draws)
    keep = torch.from_numpy(np.random.default_rng(seed).permutation(total)[:num_draws])
    draws = result.draws[keep]
    base = torch.zeros(len(draws), dtype=torch.float64)
    if result.log_weights is not None:
        base = result.log_weights[keep]
    parts = {
        "prior": target.log_prior(draws),
        "likelihood": target.log_likelihood(draws, target.hyperparameters_of(keep)),
    }
    usable = torch.isfinite(parts["likelihood"]) & torch.isfinite(base)
    draws, base = draws[usable], base[usable] - base[usable].logsumexp(0)
    parts = {name: value[usable] for name, value in parts.items()}
    values = np.stack(
        [posterior.model.transform.coordinates[k].to_people(draws[:, k].numpy()) for k in target.columns], -1
    )
    worst, sensitivities, medians = -math.inf, {}, {}
    for name, log_part in parts.items():
        total_distance = np.zeros(values.shape[1])
        for alpha in POWERS:
            log_w, k = power_weights(base, log_part, alpha)
            worst = max(worst, k)
            for i in range(values.shape[1]):
                distance = cjs_distance(values[:, i], base.exp().numpy(), log_w.exp().numpy())
                total_distance[i] += distance / abs(math.log2(alpha)) / len(POWERS)
            if name == "prior":
                medians[alpha] = [_median(values[:, i], log_w.exp().numpy()) for i in range(values.shape[1])]
        sensitivities[name] = total_distance
    rows = []
    for i, symmetry in enumerate(posterior.model.active):
        prior, likelihood = float(sensitivities["prior"][i]), float(sensitivities["likelihood"][i])
        diagnosis = _FINE
        if prior >= THRESHOLD:
            diagnosis = _CONFLICT if likelihood >= THRESHOLD else _STRONG
        rows.append(
            {
                "symmetry": symmetry,
                "prior": prior,
                "likelihood": likelihood,
                "diagnosis": diagnosis,
                "median_weaker": medians[POWERS[0]][i],
                "median_stronger": medians[POWERS[1]][i],
                "unit": posterior.model.transform.coordinates[target.columns[i]].unit,
            }
        )
    return PriorSensitivity(ConsoleTable(rows).set_index("symmetry"), worst, pareto_limit(len(draws)))


def power_weights(
    base: Float[Tensor, " J"], log_part: Float[Tensor, " J"], alpha: float
) -> tuple[Float[Tensor, " J"], float]:
    """Normalised log weights of draws under part^α, Pareto-smoothed, and k̂."""
    raw = base + (alpha - 1.0) * log_part
    if float(log_part.max() - log_part.min()) < 1e-12:  # a constant part changes nothing
        return base, -math.inf
    return pareto_smooth(raw)


def cjs_distance(values: Float[np.ndarray, " J"], p: Float[np.ndarray, " J"], q: Float[np.ndarray, " J"]) -> float:
    """Cumulative Jensen-Shannon distance of two weightings of the same draws, between 0 and 1.

        CJS(P ‖ Q) = ∫ P log₂(2P / (P + Q)) dx + (1 / 2 ln 2) ∫ (Q - P) dx

    of the distribution functions, made symmetric, divided by its bound ∫ (P + Q) dx, and its root (Nguyen & Vreeken,
    2015).

    Example:
        >>> cjs_distance(np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 1.0]) / 3, np.array([1.0, 1.0, 1.0]) / 3)
        0.0
    """
    order = np.argsort(values, kind="stable")
    steps = np.diff(values[order])
    P, Q = (np.cumsum(w[order] / w.sum())[:-1] for w in (p, q))
    bound = float((steps * (P + Q)).sum())
    if bound <= 0:
        return 0.0

    def one_way(a: np.ndarray, b: np.ndarray) -> float:
        middle = 0.5 * (a + b)
        ratio = np.where(a > 0, a / np.where(middle > 0, middle, 1.0), 1.0)
        return float((steps * a * np.log2(ratio)).sum() + 0.5 / math.log(2) * (steps * (b - a)).sum())

    return math.sqrt(max(0.0, one_way(P, Q) + one_way(Q, P)) / bound)


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    cdf = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(cdf, 0.5)), len(values) - 1)])
