"""What a minibatch fit of a network will take, from its losses on a few examples before the first step."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bayesinv.backbones.gram_in_parts import bytes_at_once, num_passes
from bayesinv.backbones.memory import unchanged
from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.evidence import LaplaceEvidence
from bayesinv.inference.first_look import differentiated
from bayesinv.inference.objective import Phase, Training
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.randomness import seeded

LONG_SECONDS = 30 * 60
LARGE_BYTES = 4 * 2**30
# Examples of a first and a second look, whose difference tells the time of an example from that of a call. The second
# is left out where the first took so long that a call no longer counts.
FEW, MORE, LONG_LOOK = 3, 8, 0.5
# The weights' own gradients, both moments of Adam, and the states that a run can fall back on.
COPIES_OF_WEIGHTS = 6
# Under the Laplace evidence: those before the finish, and in both states.
KEPT_COPIES = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """An estimate before the first step.

    Attributes:
        seconds: of all steps.
        num_bytes: at the largest, beside the data.
    """

    seconds: float
    num_bytes: float

    def __str__(self) -> str:
        """In words.

        Example:
            >>> str(Cost(5400.0, 2.0**32))
            'about 1.5 hours and 4.0 GB'
        """
        s = self.seconds
        long = f"{s / 3600:.1f} hours" if s >= 3600 else f"{s / 60:.0f} minutes" if s >= 90 else f"{s:.1f} seconds"
        return f"about {long} and {self.num_bytes / 2**30:.1f} GB"


def estimate_cost(
    model: InvarianceModel, phases: Sequence[Phase], training: Training, few: Data, num_total: int, num_steps: int
) -> Cost:
    """Time and memory of a fit.

    Raises:
        DataError: torch cannot differentiate the network.

    Args:
        model: initialised, with a network.
        phases: what is going to be trained.
        training: batch sizes.
        few: some examples; the first eight at the most are looked at.
        num_total: n.
        num_steps: global steps.
    """
    seconds, losses = 0.0, {}
    with unchanged(model.network.net):
        # Of phases with one loss, that with the most to differentiate: prior scales need no derivative in the extents.
        for phase in sorted(phases, key=lambda phase: -len(phase.params)):
            if phase.loss not in losses:
                losses[phase.loss] = _time_of(phase, few, num_total)
            of_call, of_example = losses[phase.loss]
            size = min(phase.batch_size, num_total)
            steps = len(range(phase.start, num_steps if phase.stop is None else phase.stop, phase.every))
            seconds += steps * (of_call + size * of_example * _again(model, phase, few, size))
    return Cost(seconds, _bytes(model, phases, few, num_total))


def warn_of_cost(cost: Cost, model: InvarianceModel, stacklevel: int = 4) -> None:
    """Log the estimate; warn where it is long or large.

    Args:
        cost: the estimate.
        model: whose fit it is.
        stacklevel: of the warning; 4 is the line that called ``fit`` where a function of its calls this one.
    """
    _log.info("this fit takes %s", cost)
    if cost.seconds <= LONG_SECONDS and cost.num_bytes <= LARGE_BYTES:
        return
    weights = sum(w.numel() for w in model.network.weights().values())
    warnings.warn(
        f"this fit takes {cost}, estimated before its first step for {weights:,} weights and "
        f"{model.network_orbit.num_copies} copies of an input: learn the extents with a smaller network and pass them "
        'to the large one (inference="fixed"), fit a Gaussian process on frozen features '
        "(GaussianProcess(features=net)), or take fewer outputs, num_orbit_samples, extent_batch_size or epochs; "
        "a smaller memory_budget takes less memory, and a larger one less time",
        UserWarning,
        stacklevel=stacklevel,
    )


def _time_of(phase: Phase, few: Data, num_total: int) -> tuple[float, float]:
    """Seconds of a call, and of each example in it."""

    def look(n: int) -> float:
        data = few.subset(slice(0, n))
        began = time.perf_counter()
        try:
            with seeded(0), differentiated():  # the seed also puts back what the fit draws next
                loss = phase.loss(data, num_total)
                torch.autograd.grad(loss, list(phase.params), allow_unused=True)
        except DataError:
            raise
        except (ArithmeticError, ValueError, torch.linalg.LinAlgError):
            return 0.0  # the step itself says what is wrong, with the last good state
        if few.x.device.type == "cuda":
            torch.cuda.synchronize(few.x.device)
        return time.perf_counter() - began

    n = min(FEW, len(few))
    first = look(n)
    if first > LONG_LOOK or len(few) <= n:
        return 0.0, first / n
    more = min(MORE, len(few))
    first, second = look(n), look(more)  # without what a first call sets up
    of_example = max(0.0, (second - first) / (more - n))
    return max(0.0, first - n * of_example), of_example


def _again(model: InvarianceModel, phase: Phase, few: Data, size: int) -> float:
    """How many times as long an example takes in a full batch, parts of which are computed again."""
    points = size * model.network_orbit.num_copies
    each = model.network.bytes_per_point(few.x)
    if not _is_gram(model, phase):
        return 4 / 3 if points * each > model.memory_budget else 1.0
    if _gram_bytes(model, few, size) <= model.memory_budget:
        return 1.0
    passes = num_passes(size, _num_weights(model), few.x.element_size(), model.memory_budget)
    return 1.0 + 1.5 * passes  # forward, again for the columns, and once more with their derivatives


def _bytes(model: InvarianceModel, phases: Sequence[Phase], few: Data, num_total: int) -> float:
    network, budget = model.network, model.memory_budget
    each, item = network.bytes_per_point(few.x), torch.empty(0, dtype=network.dtype).element_size()
    largest = 0.0
    for phase in phases:
        size = min(phase.batch_size, num_total)
        copies = size * model.network_orbit.num_copies
        inputs = 2.0 * copies * few.x[0].numel() * item
        if _is_gram(model, phase):
            taken: float = _gram_bytes(model, few, size)
            if taken > budget:
                passes = num_passes(size, _num_weights(model), item, budget)
                columns = 2.0 * item * size * _num_weights(model) / passes
                one = bytes_at_once(model.network_orbit.num_copies, 1, _num_weights(model), each, item)
                taken = columns + max(budget / 2, one)
        else:
            taken = copies * each
            taken = taken if network.mixes_examples else min(taken, max(budget, each))
        largest = max(largest, inputs + taken)
    copies = COPIES_OF_WEIGHTS + (KEPT_COPIES if isinstance(model.evidence, LaplaceEvidence) else 0)
    return largest + copies * item * _num_weights(model)


def _is_gram(model: InvarianceModel, phase: Phase) -> bool:
    return isinstance(model.evidence, LaplaceEvidence) and phase.takes_evidence


def _gram_bytes(model: InvarianceModel, few: Data, size: int) -> int:
    points, each = size * model.network_orbit.num_copies, model.network.bytes_per_point(few.x)
    return bytes_at_once(points, size, _num_weights(model), each, few.x.element_size())


def _num_weights(model: InvarianceModel) -> int:
    return sum(w.numel() for w in model.network.weights().values())
