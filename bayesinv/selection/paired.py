"""Bayes factors of single symmetries where the evidence is an estimate: differences on the same random numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.data.container import Data, as_data
from bayesinv.extents.families import Extents
from bayesinv.extents.priors import Outward
from bayesinv.extents.spike_and_slab import SpikeAndSlab
from bayesinv.inference import Training, fit
from bayesinv.io.tables import ConsoleTable
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.randomness import seeded
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.selection.space import UnconstrainedSpace


def paired_bayes_factors(
    posterior: InvariancePosterior,
    data: Any = None,
    *,
    symmetries: Sequence[str] | None = None,
    num_draws: int = 40,
    batch_size: int = 128,
    refit: bool = False,
    training: Training | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """log Bayes factors of each symmetry against its absence, as differences of ELBOs, with standard errors.

        log BF_k ≈ E_q[ log p(D | η) - log p(D | η, η_k = 0) ] - E_q KL( q(η_k | η_-k) ‖ p(η_k) )

    η ~ q is drawn anew with a minibatch of its own; both evidences see that minibatch, the same fresh orbit and the
    same random outputs, so that what they share cancels. The second term is the price of knowing the extent.

    What it means depends on ``refit``. Without it, weights stay those that were trained with symmetry k in the orbit,
    and the guide of the others stays where it was; the model without k is then given less than its due, so that the
    numbers lean towards inclusion and are screening, not proof. With it the model is fitted again without each
    symmetry, from the weights that it has, and log BF_k is the difference between the two fits' ELBOs over the same
    minibatches; the second one has been trained for longer, and the standard error does not know that a training run
    from another seed ends elsewhere.

    Args:
        posterior: of a variational fit on an evidence that takes minibatches.
        data: the training data; None takes the examples that the posterior keeps (up to 1,000), and a refit needs all.
        symmetries: which ones; None is every latent one.
        num_draws: J, of η, each with a minibatch.
        batch_size: examples in it.
        refit: whether to fit the model without each symmetry.
        training: of the refits; give that of the original fit.
        seed: of everything random.

    Returns:
        Index `symmetry`; columns `log_bf_paired`, `log_bf_paired_se`, nats.

    Raises:
        ValueError: a deterministic evidence (use ``select``), an unknown symmetry, a point estimate, or a refit without
            all of the training data.
    """
    model = posterior.model
    chosen = tuple(model.active if symmetries is None else symmetries)
    unknown = sorted(set(chosen) - set(model.active))
    if unknown:
        raise ValueError(f"symmetries: {unknown} are not latent in this model; latent are {list(model.active)}")
    if not model.evidence.minibatch:
        raise ValueError(
            f"paired_bayes_factors: the {model.evidence_name} evidence is deterministic; use select(posterior), which "
            "integrates it"
        )
    if len(posterior.result.draws) < 5:
        raise ValueError("paired_bayes_factors: a point estimate has no posterior to average over; fit with 'vi'")
    if num_draws < 2:
        raise ValueError(f"num_draws: expected at least 2, got {num_draws!r}")
    num_total = int(posterior.result.settings.get("num_train", len(posterior.data)))
    examples, names = posterior.data, posterior.data.classes
    if data is not None:
        examples = as_data(data, model.likelihood, model.transform, with_groups=False, classes=names)
    if refit and len(examples) < num_total:
        raise ValueError(
            f"refit=True needs all {num_total} training examples and has {len(examples)}: pass data=(x, y)"
        )
    examples = examples.to(posterior.data.x.device)
    if refit:
        rows = {name: _refitted(posterior, examples, name, num_draws, batch_size, training, seed) for name in chosen}
    else:
        rows = _without(posterior, examples, chosen, num_draws, batch_size, num_total, seed)
    values = torch.tensor([rows[name] for name in chosen], dtype=torch.float64)
    columns = {"log_bf_paired": values[:, 0].tolist(), "log_bf_paired_se": values[:, 1].tolist()}
    return ConsoleTable(columns, index=pd.Index(chosen, name="symmetry"))


def _without(
    posterior: InvariancePosterior,
    data: Data,
    chosen: Sequence[str],
    num_draws: int,
    batch_size: int,
    num_total: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Mean and standard error with the weights as they are."""
    model = posterior.model
    eta = posterior.sample(num_draws, seed=seed)  # (J, K)
    places = [posterior.index(name) for name in chosen]
    full = evidence_values(model, eta, data, batch_size, num_total, seed)
    entropy, log_slab = _prices(posterior, eta)
    rows = {}
    for name, k in zip(chosen, places, strict=True):
        off = eta.clone()
        off[:, k] = 0.0
        gain = full - evidence_values(model, off, data, batch_size, num_total, seed)
        # -KL of the conditional = its entropy + E log slab
        i = model.active.index(name)
        values = gain + entropy[i] + log_slab[:, i]
        rows[name] = (float(values.mean()), float(values.std() / math.sqrt(num_draws)))
    return rows


def _refitted(
    posterior: InvariancePosterior,
    data: Data,
    name: str,
    num_draws: int,
    batch_size: int,
    training: Training | None,
    seed: int,
) -> tuple[float, float]:
    """Difference of the ELBOs of two fits, over the same minibatches and random numbers."""
    values = []
    for fitted in (posterior, fit(_switched_off(posterior.model, name), data, training=training, seed=seed)):
        eta = fitted.sample(num_draws, seed=seed)
        evidence = evidence_values(fitted.model, eta, data, batch_size, len(data), seed)
        values.append(evidence - _divergence(fitted, eta))
    difference = values[0] - values[1]
    return float(difference.mean()), float(difference.std() / math.sqrt(num_draws))


def _switched_off(model: InvarianceModel, name: str) -> InvarianceModel:
    """A copy with one extent fixed at zero, which goes on from the weights that it has."""
    changed = copy.deepcopy(model)
    priors = dict(model.extents.priors) | dict(model.extents.fixed) | {name: 0.0}
    changed.extents = Extents(model.transform.coordinates, priors)
    return changed


@torch.no_grad()
def evidence_values(
    model: InvarianceModel, eta: Float[Tensor, "J K"], data: Data, batch_size: int, num_total: int, seed: int
) -> Float[Tensor, " J"]:
    """Estimates of log p(D | η_j), the j-th with minibatch and random numbers that depend on seed and j alone."""
    size = min(batch_size, len(data))
    values = []
    for j, row in enumerate(eta):
        generator = torch.Generator().manual_seed(1000003 * seed + j)
        batch = data.subset(torch.randperm(len(data), generator=generator)[:size])
        with seeded(seed + j):
            values.append(model.log_evidence(row, batch, num_total).cpu())
    return torch.stack(values).to(torch.float64)


def _slabs(model: InvarianceModel) -> UnconstrainedSpace:
    priors = {}
    for name in model.active:
        prior = model.extents.priors[name]
        if isinstance(prior, Outward):
            raise ValueError(f"priors[{name!r}]: an Outward prior has no Bayes factor; give a slab such as the default")
        priors[name] = prior.slab if isinstance(prior, SpikeAndSlab) else prior
    return UnconstrainedSpace(priors, model.active)


def _normal_in_z(posterior: InvariancePosterior) -> tuple[UnconstrainedSpace, Tensor]:
    """The slabs and the precision (K, K) of the posterior's draws in z, where the guides are normal."""
    space = _slabs(posterior.model)
    which = torch.arange(len(space.symmetries))
    columns = [posterior.index(name) for name in space.symmetries]
    z = space.from_extents(posterior.result.draws[:, columns], which)
    covariance = torch.cov(z.T).reshape(len(columns), len(columns))
    return space, torch.linalg.inv(covariance + 1e-6 * torch.eye(len(columns), dtype=torch.float64))


def _prices(posterior: InvariancePosterior, eta: Tensor) -> tuple[Float[Tensor, " K"], Float[Tensor, "J K"]]:
    """Entropy of q(z_k | z_-k) for each k, and log slab(z_jk)."""
    space, precision = _normal_in_z(posterior)
    columns = [posterior.index(name) for name in space.symmetries]
    z = space.from_extents(eta[:, columns], torch.arange(len(columns)))
    entropy = 0.5 * (math.log(2.0 * math.pi) + 1.0 - precision.diagonal().log())
    return entropy, torch.stack([space.log_slab_of(z[:, k], k) for k in range(len(columns))], 1)


def _divergence(posterior: InvariancePosterior, eta: Tensor) -> Float[Tensor, " J"]:
    """Terms whose mean is KL(q ‖ p), q the normal in z: minus its entropy, minus log slab of each draw."""
    if not posterior.model.active:
        return torch.zeros(len(eta), dtype=torch.float64)
    space, precision = _normal_in_z(posterior)
    columns = [posterior.index(name) for name in space.symmetries]
    which = torch.arange(len(columns))
    z = space.from_extents(eta[:, columns], which)
    entropy = 0.5 * (len(columns) * (math.log(2.0 * math.pi) + 1.0) - torch.logdet(precision))
    return -entropy - space.log_slab(z, which)
