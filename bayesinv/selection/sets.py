"""p(A): the sets of symmetries that there are, and how likely each is beforehand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

InclusionPrior = float | int | str | Mapping[str, float | int]

BETA_BINOMIAL = "beta_binomial"


def all_sets(num_symmetries: int) -> Bool[Tensor, "sets K"]:
    """Every subset of K symmetries as a row of truth values, by size: the empty set first, the full one last.

    Example:
        >>> all_sets(2).int().tolist()
        [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    rows = [
        [k in chosen for k in range(num_symmetries)]
        for size in range(num_symmetries + 1)
        for chosen in itertools.combinations(range(num_symmetries), size)
    ]
    return torch.tensor(rows, dtype=torch.bool).reshape(len(rows), num_symmetries)


def inclusion_probabilities(prior: InclusionPrior, symmetries: Sequence[str]) -> Float[Tensor, " K"]:
    """The prior probability of each symmetry on its own, (K,).

    Args:
        prior: one probability for all; a probability by name, 0.5 for names left out; or "beta_binomial".
        symmetries: their names.

    Raises:
        ValueError: an unknown name or word, or a probability outside (0, 1). A symmetry that is certain is no question:
            leave it out of the model, or fix its extent.
    """
    if isinstance(prior, str):
        if prior != BETA_BINOMIAL:
            raise ValueError(
                f"prior_inclusion: expected a probability, a mapping by name or {BETA_BINOMIAL!r}, got {prior!r}"
            )
        return torch.full((len(symmetries),), 0.5, dtype=torch.float64)
    given = dict(prior) if isinstance(prior, Mapping) else dict.fromkeys(symmetries, prior)
    unknown = sorted(set(given) - set(symmetries))
    if unknown:
        raise ValueError(f"prior_inclusion: unknown symmetries {unknown}; latent in this model are {list(symmetries)}")
    values = [given.get(name, 0.5) for name in symmetries]
    for name, value in zip(symmetries, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise ValueError(
                f"prior_inclusion of {name!r}: expected a probability between 0 and 1, got {value!r}; a symmetry that "
                "is certainly in or out needs no selection: give it a fixed extent or None in the model's priors"
            )
    return torch.tensor(values, dtype=torch.float64)


def log_prior_of_sets(
    sets: Bool[Tensor, "sets K"], prior: InclusionPrior, symmetries: Sequence[str]
) -> Float[Tensor, " sets"]:
    """log p(A).

    Independent symmetries, p(A) = Π_{k in A} π_k Π_{k not in A} (1 - π_k); or, for "beta_binomial", one inclusion
    probability for all that is itself uniform on [0, 1]: p(A) = 1 / ((K + 1) binom(K, |A|)), which charges for the
    number of candidates (Scott & Berger, 2010, Annals of Statistics 38:2587).

    Example:
        >>> log_prior_of_sets(all_sets(2), 0.5, ("a", "b")).exp().tolist()
        [0.25, 0.25, 0.25, 0.25]
        >>> [round(p, 3) for p in log_prior_of_sets(all_sets(2), "beta_binomial", ("a", "b")).exp().tolist()]
        [0.333, 0.167, 0.167, 0.333]
    """
    probability = inclusion_probabilities(prior, symmetries)
    if isinstance(prior, str):
        K = len(symmetries)
        each = torch.tensor([-math.log((K + 1) * math.comb(K, size)) for size in range(K + 1)], dtype=torch.float64)
        return each[sets.sum(1)]
    return torch.where(sets, probability.log(), torch.log1p(-probability)).sum(1)


def set_name(names: Sequence[str]) -> str:
    """ "rotation + shear", or "none" for the empty set."""
    return " + ".join(names) if names else "none"
