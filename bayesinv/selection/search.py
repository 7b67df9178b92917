"""Which sets get how many draws: every one a few, and more where the answer still depends on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesinv.errors import NumericalError
from bayesinv.selection.evidence_of_set import SetEvidence

# Few effective draws can miss the bulk of a set's evidence. Below FEW such a set is judged as if it had this many nats
# more: the error of a first pass over 8 symmetries was seen to reach 2.5.
FEW, BENEFIT = 5.0, 3.0
# What the Bayes factors of single symmetries need, whatever the share of their sets: a standard error of log Z in nats,
# as far as this many rounds reach it. A set that is out of the question keeps a larger one, which its table shows.
REFERENCE_ERROR, REFERENCE_ROUNDS = 0.2, 5
# Effective draws that a set needs before its own standard error is believed: that of a heavy-tailed average comes out
# too small first.
ENOUGH = 20.0


@dataclass(frozen=True)
class Budget:
    """How far the estimates are driven.

    Attributes:
        draws_per_round: evaluations of the evidence in a round of one set.
        max_rounds: of one set, the first pass included.
        tolerance: a set is drawn from until its error changes no probability by more than this.
    """

    draws_per_round: int = 16
    max_rounds: int = 10
    tolerance: float = 0.003


def reference_sets(sets: Bool[Tensor, "sets K"]) -> Bool[Tensor, " sets"]:
    """Those that single-symmetry Bayes factors compare: none, one alone, all, all but one."""
    K = sets.shape[1]
    size = sets.sum(1)
    return (size <= 1) | (size >= K - 1)


def estimate_sets(
    sets: Bool[Tensor, "sets K"],
    log_prior: Float[Tensor, " sets"],
    make: Callable[[Tensor], SetEvidence],
    budget: Budget,
    after_first: Callable[[Sequence[SetEvidence]], None] | None = None,
    on_round: Callable[[int, int], object] | None = None,
) -> list[SetEvidence]:
    """Estimate log Z_A of every set.

    Args:
        sets: the sets as rows.
        log_prior: log p(A).
        make: indices of a set's symmetries -> its estimator.
        budget: how far.
        after_first: called once every set has had a first round.
        on_round: called with the number of the round and how many sets draw in it.

    Returns:
        The estimators, in the order of the sets.

    Raises:
        NumericalError: the evidence could be computed nowhere.
    """
    estimators = [make(row.nonzero()[:, 0]) for row in sets]
    for estimator in estimators:
        estimator.draw(budget.draws_per_round)
    if all(estimator.num_failed == estimator.num_draws for estimator in estimators):
        raise NumericalError("the evidence could not be computed at any draw of any set of symmetries")
    if after_first is not None:
        after_first(estimators)
    reference = reference_sets(sets).tolist()
    for number in range(2, budget.max_rounds + 1):
        chosen = _in_play(estimators, log_prior, reference, budget)
        if on_round is not None:
            on_round(number, len(chosen))
        if not chosen:
            break
        for estimator in chosen:
            estimator.draw(budget.draws_per_round)
    return estimators


def optimistic_log_shares(estimators: Sequence[SetEvidence], log_prior: Tensor) -> Float[Tensor, " sets"]:
    """log p(A | D), with `BENEFIT` nats more for a set that few draws speak for."""
    values = torch.tensor([e.log_value for e in estimators], dtype=torch.float64) + log_prior
    poor = torch.tensor([not e.exact and e.effective_draws < FEW for e in estimators])
    return (values - values.logsumexp(0) + BENEFIT * poor).clamp_max(0.0)


def _in_play(
    estimators: Sequence[SetEvidence], log_prior: Tensor, reference: Sequence[bool], budget: Budget
) -> list[SetEvidence]:
    shares = optimistic_log_shares(estimators, log_prior).exp().tolist()
    chosen = []
    for estimator, share, is_reference in zip(estimators, shares, reference, strict=True):
        if estimator.exact:
            continue
        error = estimator.relative_error
        believed = estimator.effective_draws >= ENOUGH
        needed = share * (error if believed else max(error, 1.0)) > budget.tolerance
        open_reference = is_reference and estimator.num_rounds < REFERENCE_ROUNDS
        if needed or (open_reference and not (believed and error <= REFERENCE_ERROR)):
            chosen.append(estimator)
    return chosen
