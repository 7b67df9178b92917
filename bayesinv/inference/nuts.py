"""Hamiltonian Monte Carlo over the extents, on the evidence whose hyperparameters VI has learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor
from tqdm.auto import tqdm

from bayesinv.data import Data
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.inference.chain_diagnostics import effective_draws, rank_rhat
from bayesinv.inference.importance import WeightedDraws, draw_extents, weigh
from bayesinv.model import InvarianceModel

# The proposal for the evidence is a normal fitted to the draws, this much wider, so that its tails cover theirs.
PROPOSAL_INFLATION = 1.2
NUM_FRAME_DRAWS = 500  # of the guide, without evaluating the model
# Doublings of a trajectory, so that a draw costs at most 2⁶ - 1 gradients; in the frame of the guide two or three do.
MAX_TREE_DEPTH = 6


@dataclass(frozen=True)
class Chains:
    """Draws of several chains, and whether they can be trusted.

    Attributes:
        extents: (chains, draws, K), internal units.
        rhat: rank-normalised split R̂ by symmetry; NaN where fixed.
        ess: the smaller of the bulk and the tail effective sample size by symmetry; NaN where fixed.
        evidence: draws around those of the chains, weighed, for log p(D).
        active: which symmetries are latent, (K,).
        divergences: draws, over all chains, whose trajectory the integrator could not follow.
        saturated: draws, over all chains, whose trajectory ended at ``MAX_TREE_DEPTH`` doublings.
    """

    extents: Float[Tensor, "chains draws K"]
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
    model: InvarianceModel,
    guide: Any,
    data: Data,
    num_chains: int,
    num_draws: int,
    num_warmup: int,
    num_evidence_draws: int,
    progress: bool,
) -> Chains:
    """Sample p(η | D) at the model's hyperparameters, every chain started from a draw of the guide.

    Args:
        model: with learned hyperparameters, which are held.
        guide: a fitted guide, for the starts.
        data: inputs and targets.
        num_chains, num_draws, num_warmup: draws are per chain.
        num_evidence_draws: draws of the normal proposal for log p(D).
        progress: show a bar over all chains.

    References:
        Hoffman & Gelman, 2014, "The No-U-Turn Sampler", arXiv:1111.4246. Betancourt, 2017, "A conceptual introduction
        to Hamiltonian Monte Carlo", arXiv:1701.02434 (divergences).
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    for p in learned:  # no gradient to the inducing inputs: a third of the cost of a step
        p.requires_grad_(False)
    divergences = saturated = 0
    try:
        _, potential, transforms, _ = initialize_model(model, model_args=(data,))
        frame = Frame.around(_unconstrain(model, transforms, draw_extents(model, guide, data, NUM_FRAME_DRAWS)))
        chains = []
        with tqdm(total=num_chains * (num_warmup + num_draws), disable=not progress, unit="draw") as bar:
            for start in frame.whiten(_unconstrain(model, transforms, draw_extents(model, guide, data, num_chains))):
                counter = _Counter(lambda u: potential(_by_site(model, frame.unwhiten(u["u"]))), bar)
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
        z = torch.stack(chains)  # (chains, draws, active)
        evidence = _evidence(model, potential, transforms, z, num_evidence_draws)
    finally:
        for p in learned:
            p.requires_grad_(True)
    return Chains(
        _constrain(model, transforms, z),
        _by_symmetry(model, rank_rhat(z)),
        _by_symmetry(model, effective_draws(z)),
        evidence,
        tuple(name in model.active for name in model.symmetries),
        divergences,
        saturated,
    )


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
        covariance = torch.atleast_2d(torch.cov(z.T))
        return Frame(z.mean(0), cholesky(covariance, "the covariance of the guide's draws", regularise=True))

    def whiten(self, z: Float[Tensor, "draws A"]) -> Float[Tensor, "draws A"]:
        """u of z."""
        return torch.linalg.solve_triangular(self.L, (z - self.mean).T, upper=False).T

    def unwhiten(self, u: Float[Tensor, "*draws A"]) -> Float[Tensor, "*draws A"]:
        """z of u."""
        return self.mean + u @ self.L.T


def _by_site(model: InvarianceModel, z: Float[Tensor, "*draws A"]) -> dict[str, Tensor]:
    columns = [model.symmetries.index(name) for name in model.active]
    return {
        site: z[..., columns.index(where) if isinstance(where, int) else [columns.index(k) for k in where]]
        for site, where in model.extents.sites.items()
    }


def _unconstrain(model: InvarianceModel, transforms: Any, extents: Float[Tensor, "J K"]) -> Float[Tensor, "J A"]:
    z = torch.full_like(extents, torch.nan)
    for site, where in model.extents.sites.items():
        z[:, where] = transforms[site](extents[:, where])
    return z[:, [model.symmetries.index(name) for name in model.active]]


def _constrain(model: InvarianceModel, transforms: Any, z: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch K"]:
    fixed = [model.extents.fixed.get(name, torch.nan) for name in model.symmetries]
    extents = torch.tensor(fixed, dtype=torch.float64).repeat(*z.shape[:-1], 1)
    values = _by_site(model, z)
    for site, where in model.extents.sites.items():
        extents[..., where] = transforms[site].inv(values[site])
    return extents.detach()


def _by_symmetry(model: InvarianceModel, values: Sequence[float]) -> tuple[float, ...]:
    return tuple(values[model.active.index(name)] if name in model.active else math.nan for name in model.symmetries)


@torch.no_grad()
def _evidence(
    model: InvarianceModel,
    potential: Any,
    transforms: Any,
    z: Float[Tensor, "chains draws A"],
    num_draws: int,
) -> WeightedDraws:
    """log p(D) by importance sampling from a normal around the draws; hyperpriors left out."""
    flat = z.flatten(0, 1)
    covariance = torch.atleast_2d(torch.cov(flat.T)) * PROPOSAL_INFLATION**2
    factor = cholesky(covariance, "the covariance of the NUTS draws")
    proposal = torch.distributions.MultivariateNormal(flat.mean(0), scale_tril=factor)
    samples = proposal.sample(torch.Size([num_draws]))
    hyperprior = model.log_hyperprior()
    log_weights = [-potential(_by_site(model, row)) - hyperprior for row in samples]
    return weigh(
        _constrain(model, transforms, samples),
        torch.stack(log_weights) - proposal.log_prob(samples),
    )
