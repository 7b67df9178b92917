"""Do data simulated from a fitted model look like the data that it was fitted to?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from bayesinv.backbones import GaussianProcess
from bayesinv.data.container import Data
from bayesinv.model.invariance_model import InvarianceModel

SMALLEST_P = 0.01  # real data have to lie inside the central 99 % of the simulated ones

EVIDENCE = "log evidence"
CLASS_ENTROPY = "entropy of the class shares"
TARGET_VARIANCE = "log variance of the targets"
REFITTED_EVIDENCE = "log evidence of refits"


def two_sided_p(real: float, simulated: Sequence[float]) -> float:
    """How probable it is to be as far from the middle as `real` is, for one more of the simulated numbers.

        p = 2 (min(#{T_i <= T}, #{T_i >= T}) + 1) / (M + 1)

    where some of the M simulated ones lie on either side, and beyond all of them, where ranks stop to count, that of
    Student's t = (T - mean) / (sd √(1 + 1/M)), if it is smaller.

    Example:
        >>> two_sided_p(1.5, [0.0, 1.0, 2.0, 3.0]), two_sided_p(99.0, [0.0, 1.0, 2.0, 3.0]) < 0.001
        (1.0, True)
    """
    from scipy.stats import t as student  # a second of the package's import, which few need

    values = np.asarray(simulated, float)
    M = len(values)
    beyond = min(int((values <= real).sum()), int((values >= real).sum()))
    by_rank = min(1.0, 2 * (beyond + 1) / (M + 1))
    if beyond or M < 3:
        return by_rank
    spread = float(values.std(ddof=1)) * np.sqrt(1 + 1 / M)
    if spread == 0:
        return by_rank if real == values[0] else 0.0
    return min(by_rank, float(2 * student.sf(abs(real - values.mean()) / spread, M - 1)))


def statistics_of(model: InvarianceModel, data: Data, eta: Tensor) -> dict[str, float]:
    """What real and simulated data are compared by, without a fit.

    Class shares or the variance of the targets; and log p(D | η) at the model's hyperparameters, for an evidence that
    depends on nothing that is trained for each data set.
    """
    values = {}
    if data.num_classes is not None:
        shares = torch.bincount(data.y.flatten(), minlength=data.num_classes).double() / data.y.numel()
        values[CLASS_ENTROPY] = float(-torch.special.xlogy(shares, shares).sum())
    else:
        variance = data.y.double().var(0, correction=0)
        values[TARGET_VARIANCE] = float(variance.clamp_min(1e-300).log().mean())
    if not model.evidence.minibatch:
        with torch.no_grad():
            values[EVIDENCE] = float(model.log_evidence(eta, data))
    return values


def simulated_data_check(
    model: InvarianceModel, data: Data, eta: Tensor, simulate: Callable[[int], Data], num: int
) -> dict[str, tuple[float, float, float, float]]:
    """Real data against `num` simulated ones.

    Learned inducing inputs raise the evidence of the data that they were learned on: a real one above the simulated
    then says nothing, and only one below them counts.

    Args:
        model: as fitted.
        data: what it was fitted to.
        eta: the posterior median, at which the data are simulated and the evidence is evaluated.
        simulate: data of a seed.
        num: how many.

    Returns:
        By statistic: p, the real value, and mean and standard deviation of the simulated ones.
    """
    real = statistics_of(model, data, eta)
    simulated = [statistics_of(model, simulate(seed), eta) for seed in range(num)]
    found = {}
    for name, value in real.items():
        others = [s[name] for s in simulated]
        p = two_sided_p(value, others)
        if name == EVIDENCE and _learned_inducing(model) and value > float(np.median(others)):
            p = 1.0
        found[name] = (p, value, float(np.mean(others)), float(np.std(others, ddof=1)))
    return found


def _learned_inducing(model: InvarianceModel) -> bool:
    return isinstance(model.backbone, GaussianProcess) and model.backbone.learn_inducing


def teacher_of(model: InvarianceModel, seed: int) -> InvarianceModel:
    """The model that simulates: as fitted, the weights of a network drawn from the prior at its fitted scales."""
    teacher = copy.deepcopy(model)
    if teacher.is_network:
        teacher.network.sample_weights(seed)
    return teacher
