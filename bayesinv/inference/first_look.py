"""What a minibatch fit asks of a network before its first step."""

from __future__ import annotations

import contextlib
import copy
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones import NeuralNetwork
from bayesinv.backbones.memory import unchanged
from bayesinv.data.container import Data
from bayesinv.errors import DataError, first_line
from bayesinv.evidence import NetworkEvidence
from bayesinv.inference.target import start_extents
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.randomness import seeded

# Of the largest output: float32 sums in another order differ by less.
SAME_OUTPUT = 1e-3


@contextmanager
def differentiated() -> Iterator[None]:
    """Name what torch raises of a network that it cannot differentiate.

    Raises:
        DataError: in place of a RuntimeError.
        torch.OutOfMemoryError: with what takes less memory.
    """
    try:
        yield
    except torch.linalg.LinAlgError:
        raise
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise torch.OutOfMemoryError(
                f"{first_line(error)}; a smaller memory_budget of the InvarianceModel, batch_size or extent_batch_size "
                "of bayesinv.Training takes less memory"
            ) from error
        if not _in_derivative(error):
            raise DataError(f"the network failed on a few examples: {first_line(error)}") from error
        raise DataError(
            f"the gradient of the network's loss cannot be computed: {first_line(error)}; leave activation "
            "checkpointing to memory_budget, and layers without a second derivative out of the network, fit with "
            'evidence="plugin", or fit a Gaussian process on its frozen features, GaussianProcess(features=net)'
        ) from error


def _in_derivative(error: BaseException) -> bool:
    """Whether torch raised it while it differentiated."""
    files = [Path(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__)]
    return any({"autograd", "_functorch"}.intersection(parts) for parts in files)


def check_gradients(model: InvarianceModel, data: Data, learns_extents: bool) -> None:
    """Raise unless the likelihood has a gradient in the weights of a network, and in the extents.

    Args:
        model: initialised, with a network.
        data: a few examples.
        learns_extents: whether the method takes gradients in them.

    Raises:
        DataError: something inside of the network cuts the gradient off.
    """
    eta = start_extents(model, 0.5).requires_grad_()
    evidence, weights = model.evidence, model.network.weights()
    if not isinstance(evidence, NetworkEvidence):
        raise TypeError(f"expected the evidence of a network, got {evidence.name!r}")
    with unchanged(model.network.net), seeded(0), torch.enable_grad(), differentiated():
        prior = model.at(eta)
        value = evidence.mean_log_likelihood(prior, data)
        moves = prior.of_groups(data.groups).points(data.x).requires_grad
        found: tuple[Tensor | None, ...] = (None,) * (1 + len(weights))
        if value.requires_grad:
            found = torch.autograd.grad(value, [eta, *weights.values()], allow_unused=True)
    if all(gradient is None for gradient in found[1:]):
        raise DataError(
            "the network's outputs have no gradient in any of its weights, so that nothing can be learned; return "
            "them as they are: no detach(), .data, NumPy, rounding or torch.no_grad() on the way"
        )
    if learns_extents and model.active and moves and found[0] is None:
        raise DataError(
            "the network's outputs have no gradient in its inputs, so that no extent can be learned; freeze layers "
            "by requires_grad_(False) in place of torch.no_grad() or detach() in forward, or fit a Gaussian process on "
            'its frozen features, GaussianProcess(features=net), or inference="fixed"'
        )


@torch.no_grad()
def check_examples_apart(model: InvarianceModel, data: Data) -> None:
    """Raise unless the network gives an example the same output at every call, whatever stands beside it.

    An evidence that splits over examples has no meaning for others. The network is in evaluation mode, as in the
    evidence, so that layers that follow it (BatchNorm, dropout, stochastic depth) pass; others are found by what comes
    out.

    Raises:
        ValueError: it draws at random, changes its own state, or mixes examples.
    """
    network = model.network.evaluated()
    x = _unlike(data.x)
    differs = _differs(network, x)
    if any(differs):  # where numbers are far from one, float32 rounds a single row unlike a batch of them
        with contextlib.suppress(RuntimeError):
            differs = _differs(copy.deepcopy(network).double(), x.double())
    cure = (
        f'or fit with evidence="plugin": the {model.evidence.name} evidence needs a function of each input; '
        "GaussianProcess(features=net) takes frozen features in evaluation mode"
    )
    if differs[0]:
        raise ValueError(
            "the network gives another output at the second call with the same inputs, also in evaluation mode: it "
            "draws at random, or changes its own state; let it do so in training alone, as in "
            f"F.dropout(x, p, training=self.training), {cure}"
        )
    if differs[1]:
        raise ValueError(
            "the network's output for one input depends on the others in its batch; normalise within each input "
            f"(GroupNorm, LayerNorm), {cure}"
        )


def _unlike(x: Float[Tensor, n * event]) -> Float[Tensor, n * event]:
    """The first input, and the first that is another: of equal ones the statistics of a batch are those of each."""
    other = torch.nonzero((x != x[0]).flatten(1).any(1))
    return x[[0, int(other[0, 0])]] if len(other) else x[:2]


def _differs(network: NeuralNetwork, x: Float[Tensor, n * event]) -> tuple[bool, bool]:
    """Whether outputs change from call to call, and with what stands beside an input."""
    outputs = []
    with unchanged(network.net):
        for seed in (0, 1):
            with seeded(seed):
                outputs.append(network(x))
        with seeded(0):
            alone = torch.cat([network(one) for one in x.split(1)])
    within = SAME_OUTPUT * outputs[0].abs().max()
    again, single = (bool((outputs[0] - other).abs().max() > within) for other in (outputs[1], alone))
    return again, single
