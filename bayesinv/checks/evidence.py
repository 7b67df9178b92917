"""log p(D) that can be quoted: importance sampling, an independent check by bridge sampling, and who may be ranked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float, Int
from pyro.distributions import MultivariateStudentT
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from bayesinv.checks.target import Target
from bayesinv.comparison.evidence_groups import evidence_facts
from bayesinv.errors import EvidenceError
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.inference.importance import weigh
from bayesinv.io.console import for_console
from bayesinv.io.tables import ConsoleTable
from bayesinv.numerics.psis import variance_is_finite, why_no_standard_error
from bayesinv.numerics.randomness import seeded

if TYPE_CHECKING:
    from bayesinv.posterior.invariance_posterior import InvariancePosterior

INFLATION = 1.2  # of the proposal's standard deviations, so that its tails cover the posterior's
DEGREES = 5.0  # of freedom of that proposal
LARGEST_SE = 0.5  # nats
BRIDGE_STEPS = 200  # of the fixed point, which settles in ten or so


@dataclass(frozen=True)
class EvidenceEstimate:
    """log p(D) by one method.

    Attributes:
        log_evidence: nats; hyperparameters are integrated out where the fit drew them, and else those it learned.
        se: its standard error, nats; None where the variance of the weights is infinite or k̂ is past its limit.
        method: "importance" or "bridge".
        num_evaluations: of the evidence.
        pareto_k: of the weights, for importance sampling.
    """

    log_evidence: float
    se: float | None
    method: str
    num_evaluations: int
    pareto_k: float | None = None

    @property
    def quotable(self) -> bool:
        """Whether there is a standard error, and one below half a nat."""
        return not self.why_not_quotable

    @property
    def why_not_quotable(self) -> str:
        """What stands against quoting the number, as a clause; empty where nothing does."""
        return _why_not_quotable(self.se, self.pareto_k, self.num_evaluations)

    def agrees_with(self, other: EvidenceEstimate, errors: float = 3.0) -> bool:
        """Whether the two lie within so many standard errors of their difference.

        Raises:
            EvidenceError: one of them has no standard error.
        """
        if self.se is None or other.se is None:
            without = self if self.se is None else other
            raise EvidenceError(
                f"the {without.method} estimate has no standard error to compare by: {without.why_not_quotable}"
            )
        return abs(self.log_evidence - other.log_evidence) <= errors * math.hypot(self.se, other.se)

    def __str__(self) -> str:
        error = "" if self.se is None else f" ± {self.se:.2f}"
        doubt = f", not to be quoted: {self.why_not_quotable}" if self.why_not_quotable else ""
        return for_console(f"log evidence {self.log_evidence:.2f}{error} nats ({self.method}){doubt}")


def importance_evidence(posterior: InvariancePosterior, num_draws: int = 500, seed: int = 0) -> EvidenceEstimate:
    """log p(D) = log E_g[ p(D, θ) / g(θ) ], with g a Student t (5) around the posterior's draws, a fifth wider.

    θ holds the extents, unconstrained, and the hyperparameters where the fit drew them (``hyperparameters="latent"``).
    Under a flat prior the density of an unconstrained extent falls like exp(-|z|) towards a bound, which a normal does
    not cover: its k̂ was past the largest limit in two of three fits of digits.

    Args:
        posterior: a fit of a collapsed evidence, by VI or NUTS.
        num_draws: of g.
        seed: of g.

    Raises:
        ValueError: a point estimate, or an evidence that is estimated from minibatches.

    Example:
        >>> estimate = importance_evidence(posterior)  # doctest: +SKIP
        >>> estimate.log_evidence, estimate.se, estimate.quotable  # doctest: +SKIP
    """
    target = Target(posterior)
    with seeded(seed):
        normal = _normal_around(target.theta_of(_posterior_draws(posterior)))
        degrees = torch.tensor(DEGREES, dtype=torch.float64)
        g = MultivariateStudentT(degrees, normal.loc, normal.scale_tril)
        theta = g.sample(torch.Size([num_draws]))
    drawn = weigh(target.eta_of(theta), target.log_density(theta) - g.log_prob(theta))
    return EvidenceEstimate(drawn.log_evidence, drawn.log_evidence_se, "importance", num_draws, drawn.pareto_k)


def bridge_evidence(posterior: InvariancePosterior, num_draws: int = 1000, seed: int = 0) -> EvidenceEstimate:
    """log p(D) by bridge sampling between the posterior, sampled anew by random-walk Metropolis, and a normal.

        r = [ 1/N₂ Σ_i l₂ᵢ / (s₁ l₂ᵢ + s₂ r) ] / [ 1/N₁ Σ_j 1 / (s₁ l₁ⱼ + s₂ r) ],   l = p(D, θ) / g(θ)

    with l₁ at N₁ draws of the posterior and l₂ at N₂ of g, s = N / (N₁ + N₂); r, a fixed point, is p(D). The normal is
    fitted to the first half of the chain and used on the second. It shares with importance sampling neither draws nor
    the assumption that g covers the posterior's tails.

    Args:
        posterior: a fit of a collapsed evidence, by VI or NUTS; only the chain's start and step come from it.
        num_draws: steps of the chain after a fifth as many to forget its start; half as many draws of the normal.
        seed: of everything.

    Raises:
        ValueError: a point estimate, or an evidence that is estimated from minibatches.

    References:
        X.-L. Meng, W. H. Wong (1996). Simulating ratios of normalizing constants via a simple identity. Statistica
        Sinica 6. S. Frühwirth-Schnatter (2004). Estimating marginal likelihoods for mixture and Markov switching
        models using bridge sampling techniques. Econometrics Journal 7 (the standard error).
    """
    target = Target(posterior)
    with seeded(seed):
        chain, densities = _metropolis(target, target.theta_of(_posterior_draws(posterior)), num_draws)
        half = len(chain) // 2
        g = _normal_around(chain[:half], inflation=1.0)
        z1, log_p1 = chain[half:], densities[half:]
        z2 = g.sample(torch.Size([len(z1)]))
    log_l1 = log_p1 - g.log_prob(z1)
    log_l2 = target.log_density(z2) - g.log_prob(z2)
    # The chain's draws count for as many as are independent.
    worth = float(effective_sample_size(z1[None], chain_dim=0, sample_dim=1).min().clamp(1.0, len(z1)))
    s1, s2 = worth / (worth + len(z2)), len(z2) / (worth + len(z2))
    shift = float(log_l1.median())
    l1, l2 = (log_l1 - shift).exp(), (log_l2 - shift).exp()
    r = 1.0
    for _ in range(BRIDGE_STEPS):
        new = float((l2 / (s1 * l2 + s2 * r)).mean() / (1.0 / (s1 * l1 + s2 * r)).mean())
        done = abs(new - r) < 1e-10 * r
        r = new
        if done:
            break
    f1, f2 = r / (s1 * l1 + s2 * r), l2 / (s1 * l2 + s2 * r)
    error = math.sqrt(float(f2.var() / f2.mean().square()) / len(f2) + float(f1.var() / f1.mean().square()) / worth)
    evaluations = len(z2) + round(1.2 * num_draws)
    return EvidenceEstimate(shift + math.log(r), error, "bridge", evaluations)


def rank_evidences(posteriors: Mapping[str, InvariancePosterior]) -> pd.DataFrame:
    """Log evidences with standard errors, the highest first, if they may be ranked at all.

    Args:
        posteriors: fits by name.

    Returns:
        ``log_evidence``, ``log_evidence_se``, ``difference`` to the best and ``difference_se``, nats, with NaN for a
        standard error that there is not; ``quotable``: a standard error below 0.5 nat from weights of finite variance;
        and ``reason``, what stands against quoting it.

    Raises:
        EvidenceError: a fit without evidence, or evidences of different kinds, orbits or data.
        TypeError: no mapping.

    Example:
        >>> rank_evidences({"affine": posterior, "none": plain})  # doctest: +SKIP
    """
    if not isinstance(posteriors, Mapping):
        raise TypeError(
            f'posteriors: expected a mapping {{"name": posterior}} with a name for each fit, got a '
            f"{type(posteriors).__name__}"
        )
    if not posteriors:
        raise EvidenceError("posteriors: expected at least one fit, got none")
    without = [name for name, p in posteriors.items() if p.log_evidence is None]
    if without:
        raise EvidenceError(f"{', '.join(map(str, without))}: no log evidence there; leave these fits out")
    facts = {name: evidence_facts(p) for name, p in posteriors.items()}
    first_name, first = next(iter(facts.items()))
    for name, others in facts.items():
        differing = [fact for fact, value in others.items() if value != first[fact]]
        if differing:
            raise EvidenceError(
                f"log evidences of {first_name!r} and {name!r} may not be ranked: they differ in "
                f"{', '.join(differing)}; compare them by held-out log loss, with bayesinv.compare"
            )
    rows = [
        {
            "fit": name,
            "log_evidence": p.log_evidence,
            "log_evidence_se": math.nan if p.log_evidence_se is None else p.log_evidence_se,
            "reason": _why_not_quotable(p.log_evidence_se, p.pareto_k, p.result.num_draws),
        }
        for name, p in posteriors.items()
    ]
    table = ConsoleTable(rows).set_index("fit").sort_values("log_evidence", ascending=False, kind="stable")
    best = table.iloc[0]
    difference = table["log_evidence"] - best["log_evidence"]
    error = (table["log_evidence_se"] ** 2 + best["log_evidence_se"] ** 2) ** 0.5
    error.iloc[0] = 0.0
    return table.assign(difference=difference, difference_se=error, quotable=table["reason"] == "")


def _why_not_quotable(se: float | None, k: float | None, num_draws: int) -> str:
    """What stands against quoting a log evidence; without k̂, as of bridge sampling or a minibatch ELBO, only its se."""
    if k is not None and not variance_is_finite(k, num_draws):
        return why_no_standard_error(k, num_draws)
    if se is None:
        return "no standard error"
    return "" if se < LARGEST_SE else f"its standard error, {se:.2f} nats, is not below {LARGEST_SE}"


def _posterior_draws(posterior: InvariancePosterior) -> Int[Tensor, " J"]:
    """Rows of the draws, reweighted where their weights are good."""
    if posterior.result.is_point:
        raise ValueError(f"{posterior.result.inference} is a point estimate, which has no draws")
    return posterior.sample_rows(400)


def _normal_around(z: Float[Tensor, "J d"], inflation: float = INFLATION) -> torch.distributions.MultivariateNormal:
    covariance = torch.atleast_2d(torch.cov(z.T)) * inflation**2
    factor = cholesky(covariance, "the covariance of the draws", regularise=True)
    return torch.distributions.MultivariateNormal(z.mean(0), scale_tril=factor)


def _metropolis(
    target: Target, start: Float[Tensor, "J d"], num_draws: int
) -> tuple[Float[Tensor, "num_draws d"], Float[Tensor, " num_draws"]]:
    """Random-walk Metropolis with steps of 2.4 / √d in the metric of the start (Roberts, Gelman & Gilks, 1997)."""
    d = start.shape[1]
    L = _normal_around(start, inflation=2.4 / math.sqrt(d)).scale_tril
    z = start[:1]
    log_p = target.log_density(z)
    chain, densities = [], []
    burn = num_draws // 5
    for step in range(burn + num_draws):
        proposal = z + torch.randn(1, d, dtype=z.dtype) @ L.T
        log_new = target.log_density(proposal)
        if float(torch.rand((), dtype=z.dtype).log()) < float(log_new - log_p):
            z, log_p = proposal, log_new
        if step >= burn:
            chain.append(z[0])
            densities.append(log_p[0])
    return torch.stack(chain), torch.stack(densities)
