"""Hamiltonian Monte Carlo over the extents, on the evidence whose hyperparameters VI has learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor
from tqdm.auto import tqdm

from bayesinv.data import Data
from bayesinv.extents import SITE_PREFIX
from bayesinv.inference.importance import WeightedDraws, importance_sample, weigh
from bayesinv.model import InvarianceModel

# The proposal for the evidence is a normal fitted to the draws, this much wider, so that its tails cover theirs.
PROPOSAL_INFLATION = 1.2


@dataclass(frozen=True)
class Chains:
    """Draws (chains, draws, K), R̂ and effective sizes by symmetry (NaN where fixed), and an evidence estimate."""

    extents: Float[Tensor, "chains draws K"]
    rhat: tuple[float, ...]
    ess: tuple[float, ...]
    evidence: WeightedDraws


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
        Hoffman & Gelman, 2014, "The No-U-Turn Sampler", arXiv:1111.4246.
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    for p in learned:  # no gradient to the inducing inputs: a third of the cost of a step
        p.requires_grad_(False)
    try:
        _, potential, transforms, _ = initialize_model(model, model_args=(data,))
        starts = importance_sample(model, guide, data, num_chains).extents
        unconstrained = []
        with tqdm(total=num_chains * (num_warmup + num_draws), disable=not progress, unit="draw") as bar:
            for chain in range(num_chains):
                initial = {
                    SITE_PREFIX + name: transforms[SITE_PREFIX + name](starts[chain, model.symmetries.index(name)])
                    for name in model.active
                }
                mcmc = MCMC(
                    NUTS(potential_fn=potential, full_mass=True, max_tree_depth=6),
                    num_samples=num_draws,
                    warmup_steps=num_warmup,
                    initial_params=initial,
                    disable_progbar=True,
                    hook_fn=lambda *_: bar.update(),
                )
                mcmc.run()
                draws = mcmc.get_samples()
                unconstrained.append(torch.stack([draws[SITE_PREFIX + name] for name in model.active], dim=-1))
        z = torch.stack(unconstrained)  # (chains, draws, active)
        evidence = _evidence(model, potential, transforms, z, num_evidence_draws)
    finally:
        for p in learned:
            p.requires_grad_(True)
    rhat = split_gelman_rubin(z, chain_dim=0, sample_dim=1)
    ess = effective_sample_size(z, chain_dim=0, sample_dim=1)
    return Chains(
        _constrain(model, transforms, z),
        _by_symmetry(model, rhat),
        _by_symmetry(model, ess),
        evidence,
    )


def _constrain(model: InvarianceModel, transforms: Any, z: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch K"]:
    columns = []
    for name in model.symmetries:
        if name in model.active:
            columns.append(transforms[SITE_PREFIX + name].inv(z[..., model.active.index(name)]))
        else:
            columns.append(torch.full(z.shape[:-1], model.extents.fixed[name], dtype=torch.float64))
    return torch.stack(columns, dim=-1).detach()


def _by_symmetry(model: InvarianceModel, values: Float[Tensor, " A"]) -> tuple[float, ...]:
    return tuple(
        float(values[model.active.index(name)]) if name in model.active else float("nan") for name in model.symmetries
    )


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
    proposal = torch.distributions.MultivariateNormal(flat.mean(0), covariance)
    samples = proposal.sample(torch.Size([num_draws]))
    hyperprior = model.log_hyperprior()
    log_weights = [
        -potential({SITE_PREFIX + name: row[i] for i, name in enumerate(model.active)}) - hyperprior for row in samples
    ]
    return weigh(
        _constrain(model, transforms, samples),
        torch.stack(log_weights) - proposal.log_prob(samples),
    )
