"""The evidence of extents as a selection asks for it, and hyperparameters fitted at given extents."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.inference.modes import find_modes
from bayesinv.inference.target import Target
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.torch_modes import ordinary
from bayesinv.selection.evidence_of_set import LogEvidence


def evaluator(
    model: InvarianceModel,
    data: Data,
    fixed: Tensor,
    places: Sequence[int],
    on_value: Callable[[], object] | None = None,
) -> LogEvidence:
    """η over the candidates -> log p(D | η), fixed extents added; `on_value` is called after each."""
    columns = torch.tensor(places)

    @torch.no_grad()
    def evaluate(eta: Tensor) -> float:
        value = float(model.log_evidence(fixed.index_copy(0, columns, eta), data))
        if on_value is not None:
            on_value()
        return value

    return evaluate


@ordinary(grad=True)
def refitted_model(
    model: InvarianceModel,
    data: Data,
    eta: Tensor,
    max_evaluations: int,
    on_value: Callable[[], object] | None = None,
    polish: bool = True,
) -> InvarianceModel | None:
    """A copy with the hyperparameters at the mode of log p(D | η) + log hyperprior; None if nothing improved.

    `on_value` is called after each evaluation. Without `polish` they are where L-BFGS ends, for half the evaluations;
    with it Newton steps follow.
    """

    def told(extents: Mapping[str, float]) -> None:
        if on_value is not None:
            on_value()

    changed = copy.deepcopy(model)
    target = Target(changed, data, extents=eta)
    if target.size == 0:
        return None
    try:
        told_each = None if on_value is None else told
        (mode,) = find_modes(target, max_evaluations, describe=told_each, curvature=polish)
    except NumericalError:  # not even where they are now
        return None
    if not mode.value > mode.trace[0]:
        return None
    target.move(mode.theta)
    return changed
