"""Hamiltonian Monte Carlo over extents and hyperparameters, from the draws of a variational fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pyro.infer import MCMC, NUTS
from torch import Tensor

from bayesinv.errors import NumericalError
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.inference.chain_diagnostics import effective_draws, rank_rhat
from bayesinv.inference.importance import WeightedDraws, weigh
from bayesinv.inference.target import Target
from bayesinv.io.progress import progress_bar
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.mixture import Mixture
from bayesinv.numerics.quantiles import systematic_resample

# The proposal for the evidence is a normal fitted to the draws, this much wider, so that its tails cover theirs.
PROPOSAL_INFLATION = 1.2
NUM_FRAME_DRAWS = 500  # resampled from the weighted draws
# Doublings of a trajectory, so that a draw costs at most 2⁶ - 1 gradients; in the frame of the guide two or three do.
MAX_TREE_DEPTH = 6


@dataclass(frozen=True)
class Chains:
    """Draws of several chains, and whether they can be trusted.

    Attributes:
        extents: (chains, draws, K), internal units.
        hyperparameters: (chains * draws, P) in latent coordinates, where they were sampled.
        rhat: rank-normalised split R̂ by symmetry; NaN where fixed.
        ess: the smaller of the bulk and the tail effective sample size by symmetry; NaN where fixed.
        evidence: draws around those of the chains, weighed, for log p(D).
        active: which symmetries are latent, (K,).
        divergences: draws, over all chains, whose trajectory the integrator could not follow.
        saturated: draws, over all chains, whose trajectory ended at ``MAX_TREE_DEPTH`` doublings.
    """

    extents: Float[Tensor, "chains draws K"]
    hyperparameters: Float[Tensor, "total P"] | None
    rhat: tuple[float, ...]
    ess: tuple[float, ...]
    evidence: WeightedDraws
    active: tuple[bool, ...]
    divergences: int = 0
    saturated: int = 0

    @property
    def worst_rhat(self) -> float:
        """The largest R̂ of a latent extent; infinite where it is undefined, as for a chain that never moved."""
        values = [value for value, latent in zip(self.rhat, self.active, strict=True) if latent]
        return max(value if math.isfinite(value) else math.inf for value in values)


def run_nuts(
    fitted: Target,
    weighed: WeightedDraws,
    hyperparameters: Float[Tensor, "J P"] | None,
    num_chains: int,
    num_draws: int,
    num_warmup: int,
    seed: int,
    progress: bool,
) -> Chains:
    """Sample p(η, u | D), every chain started from a draw of the variational fit.

    Args:
        fitted: the density, whose model holds the hyperparameters of the variational fit.
        weighed: draws of that fit and their weights, for the starts and the frame.
        hyperparameters: u of these draws where they are latent; None holds them where the model has them.
        num_chains, num_draws, num_warmup: draws are per chain; as many again estimate log p(D).
        seed: of the starts and of that estimate.
        progress: show a bar over all chains.

    Raises:
        NumericalError: no chain moved.

    References:
        Hoffman & Gelman, 2014, "The No-U-Turn Sampler", arXiv:1111.4246. Betancourt, 2017, "A conceptual introduction
        to Hamiltonian Monte Carlo", arXiv:1701.02434 (divergences).
    """
    model = fitted.model
    is_latent = hyperparameters is not None
    held = [p for p in model.parameters() if p.requires_grad]
    if is_latent:  # inducing inputs alone are held
        sampled = {id(h.parameter) for h in fitted.hyper}
        held = [p for p in held if id(p) not in sampled]
    for p in held:
        p.requires_grad_(False)
    divergences = saturated = 0
    try:
        target = Target(model, fitted.data, record=fitted.record)
        z = target.to_z(weighed.extents)
        draws = z if hyperparameters is None else torch.cat([z, hyperparameters], 1)
        rows = systematic_resample(NUM_FRAME_DRAWS, len(draws), weighed.log_weights.numpy(), seed)
        frame = Frame.around(draws[torch.from_numpy(rows)])
        potential = _within(target)
        chains = []
        with progress_bar(progress, "draw", num_chains * (num_warmup + num_draws)) as bar:
            for start in frame.whiten(draws[torch.from_numpy(rows[:num_chains])]):
                counter = _Counter(lambda u: potential(frame.unwhiten(u["u"])), bar)
                mcmc = MCMC(
                    NUTS(potential_fn=counter.potential, max_tree_depth=MAX_TREE_DEPTH),
                    num_samples=num_draws,
                    warmup_steps=num_warmup,
                    initial_params={"u": start},
                    disable_progbar=True,
                    hook_fn=counter.after_draw,
                )
                mcmc.run()
                divergences += sum(map(len, mcmc.diagnostics()["divergences"].values()))
                saturated += counter.saturated
                chains.append(frame.unwhiten(mcmc.get_samples()["u"]))
        theta = torch.stack(chains)  # (chains, draws, A + P)
        if num_draws > 1 and not bool((theta != theta[:, :1]).any()):
            raise NumericalError(
                f"no chain moved: with num_warmup={num_warmup} the step size did not come down to where a step is "
                f"accepted, in num_draws={num_draws}; raise num_warmup, which is 150 by default"
            )
        evidence = _evidence(target, theta, num_draws, seed)
        A = target.num_extents
        if is_latent:
            target.move(theta.flatten(0, 1).mean(0))
        return Chains(
            target.extents(theta[..., :A]),
            theta[..., A:].flatten(0, 1) if is_latent else None,
            _by_symmetry(model, rank_rhat(theta[..., :A])),
            _by_symmetry(model, effective_draws(theta[..., :A])),
            evidence,
            tuple(name in model.active for name in model.symmetries),
            divergences,
            saturated,
        )
    finally:
        for p in held:
            p.requires_grad_(True)


def _within(target: Target) -> Callable[[Float[Tensor, " size"]], Float[Tensor, ""]]:
    """Minus the log density inside the target's box, infinite outside.

    The first step sizes that NUTS tries can throw a chain far out, where amplitudes of e⁴⁰ leave nothing to factorise;
    the box holds all of the mass, and such a step is then a divergence like any other.
    """
    ends = [(-math.inf if low is None else low, math.inf if high is None else high) for low, high in target.bounds]
    low, high = torch.tensor(ends, dtype=torch.float64).T

    def potential(theta: Float[Tensor, " size"]) -> Float[Tensor, ""]:
        if bool(((theta < low) | (theta > high)).any()):
            return 0.0 * theta.sum() + math.inf
        return -target.differentiable(theta)

    return potential


class _Counter:
    """Counts the evaluations of the potential, from which the depth of each trajectory follows.

    Pyro keeps no tree depths. A trajectory of d doublings takes 2^d - 1 leapfrog steps with one evaluation each, and
    fewer where its last doubling is cut short; as many as the greatest depth has means that nothing turned around.
    """

    def __init__(self, potential: Callable[[dict[str, Tensor]], Tensor], bar: Any):
        self._potential = potential
        self._bar = bar
        self._since_last = 0
        self.saturated = 0

    def potential(self, u: dict[str, Tensor]) -> Tensor:
        """The potential at u."""
        self._since_last += 1
        return self._potential(u)

    def after_draw(self, kernel: Any, params: Any, stage: str, i: int) -> None:
        """Pyro's hook after each draw."""
        if stage.startswith("Sample"):
            self.saturated += self._since_last >= 2**MAX_TREE_DEPTH - 1
        self._since_last = 0
        self._bar.update()


@dataclass(frozen=True)
class Frame:
    """z = m + L u: coordinates in which the guide is a standard normal.

    A sampler that starts with the guide's covariance has nothing left to adapt but the step size, and turns around
    after a few leapfrog steps.
    """

    mean: Float[Tensor, " A"]
    L: Float[Tensor, "A A"]

    @staticmethod
    def around(z: Float[Tensor, "draws A"]) -> Frame:
        """The frame of the draws' mean and covariance."""
        return Frame(z.mean(0), _scale(z, "the covariance of the guide's draws"))

    def whiten(self, z: Float[Tensor, "draws A"]) -> Float[Tensor, "draws A"]:
        """u of z."""
        return torch.linalg.solve_triangular(self.L, (z - self.mean).T, upper=False).T

    def unwhiten(self, u: Float[Tensor, "*draws A"]) -> Float[Tensor, "*draws A"]:
        """z of u."""
        return self.mean + u @ self.L.T


def _scale(draws: Float[Tensor, "J d"], what: str) -> Float[Tensor, "d d"]:
    """The Cholesky factor of the draws' covariance, shrunk towards its diagonal where there are few of them."""
    covariance = torch.atleast_2d(torch.cov(draws.T))
    d, J = len(covariance), len(torch.unique(draws, dim=0))
    share = d / (d + J)
    shrunk = (1.0 - share) * covariance + share * torch.diag(covariance.diagonal())
    return cholesky(shrunk, what, regularise=True)


def _by_symmetry(model: InvarianceModel, values: Sequence[float]) -> tuple[float, ...]:
    return tuple(values[model.active.index(name)] if name in model.active else math.nan for name in model.symmetries)


def _evidence(target: Target, theta: Float[Tensor, "chains draws d"], num_draws: int, seed: int) -> WeightedDraws:
    """log p(D) by importance sampling from a normal around the draws; hyperpriors count where they were sampled."""
    flat = theta.flatten(0, 1)
    factor = PROPOSAL_INFLATION * _scale(flat, "the covariance of the NUTS draws")
    proposal = Mixture(torch.ones(1, dtype=torch.float64), flat.mean(0)[None], factor[None], math.inf)
    samples = proposal.sample(num_draws, seed)
    values = torch.tensor([target(row, hyperpriors=target.num_hyper > 0) for row in samples], dtype=torch.float64)
    return weigh(target.extents(samples[:, : target.num_extents]), values - proposal.log_prob(samples))
