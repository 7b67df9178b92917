"""What is allowed and rarely meant when a model is fitted: said once, before the training."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.data.items import changing_item
from bayesinv.errors import DataWarning
from bayesinv.inference.units import unit_mistakes
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.randomness import seeded
from bayesinv.transforms.signals.mistakes import signal_mistakes

# That all of this many rows of logits sum to one, to float32's accuracy, does not happen by chance.
FIRST_EXAMPLES = 16
SUM_TOLERANCE = 1e-3
# At weights drawn from their prior logits spread by several units; that all stay in (0, 1] five times is no chance.
WEIGHT_DRAWS = 5


def warn_of_usual_mistakes(
    model: InvarianceModel, data: Data, all_classes_known: bool = True, stacklevel: int = 4
) -> None:
    """Warn of inputs or targets that are all alike; of units that decide the answer (:mod:`bayesinv.inference.units`);
    of signals with axes or clocks mixed up; of a network's probabilities for logits, and outputs without a class.

    Args:
        model: initialised.
        data: some of the training data, on the device of the model.
        all_classes_known: whether the data say how many classes there are, and not these examples alone.
        stacklevel: of the warnings; 4 is the line that called ``fit`` where a function of its calls this one.

    Warns:
        DataWarning: inputs or targets that are all alike.
        UserWarning: one for each of the others, with what to do.
    """

    def warn(text: str) -> None:
        warnings.warn(text, UserWarning, stacklevel=stacklevel + 1)

    x = data.x
    for text in _constant(data):
        warnings.warn(text, DataWarning, stacklevel=stacklevel)
    for text in unit_mistakes(model, data):
        warn(text)
    for text in signal_mistakes(model.orbit.transform.stages, data.event_shape, _reach(model)):
        warn(text)
    if not model.is_network or model.likelihood == "gaussian":
        return
    bounded = _is_bounded(model, x[:FIRST_EXAMPLES])
    if model.likelihood == "bernoulli":
        if bounded:
            warn(
                "the network's output lies between 0 and 1 whatever its weights, as by a sigmoid in its end; the "
                "likelihood takes a logit and applies a sigmoid of its own, so that label 0 could not be predicted: "
                "remove that layer"
            )
        return
    outputs = _outputs(model, x[:FIRST_EXAMPLES])
    num_outputs = outputs.shape[1]
    if all_classes_known and data.num_classes is not None and num_outputs > data.num_classes:
        warn(
            f"the network has {num_outputs} outputs and the data {data.num_classes} classes, so that the others are "
            f"never seen; make its last layer {data.num_classes} wide, or, where classes are missing from these data, "
            f"say so: bayesinv.Data(x, y, num_classes={num_outputs})"
        )
    layer = _normalised_by(outputs)
    if layer is not None:
        warn(
            f"the network's outputs are normalised over the classes already, as by a {layer} in its end; the "
            "likelihood takes logits and applies a softmax of its own: remove that layer"
        )
    elif bounded:
        warn(
            "the network's outputs lie between 0 and 1 whatever its weights, as by a sigmoid in its end; the "
            f"likelihood takes logits and applies a softmax of its own, so that no class of {num_outputs} could be "
            f"more probable than {math.e / (math.e + num_outputs - 1):.2f}: remove that layer"
        )


def warn_of_random_items(data: Any, stacklevel: int = 3) -> None:
    """Warn of a data set that changes its inputs at random, which hides from a fit what it is to learn.

    Args:
        data: as given to ``fit``.
        stacklevel: of the warning; 3 is the line that called ``fit`` where it calls this function.

    Warns:
        DataWarning: an item differs when it is read twice.
    """
    item = changing_item(data)
    if item is not None:
        warnings.warn(
            f"item {item} differs when read twice: your data set transforms at random; take the augmentation out, "
            "bayesinv learns it",
            DataWarning,
            stacklevel=stacklevel,
        )


def _constant(data: Data) -> list[str]:
    """What is the same in all examples, and so says nothing of symmetries."""
    if len(data) < 2:
        return []
    texts = []
    if bool((data.x == data.x[:1]).all()):
        texts.append(
            f"all {len(data)} inputs are alike, so that nothing tells their targets apart and the extents stay what "
            "the prior says; check how x was made"
        )
    if data.num_classes is None:
        fixed = [str(k) for k, column in enumerate(data.y.T) if bool((column == column[0]).all())]
        if fixed:
            which = "y is" if data.y.shape[1] == 1 else f"column {', '.join(fixed)} of y is"
            texts.append(
                f"{which} the same in all {len(data)} examples, which any extent explains: the posterior says nothing "
                "of symmetries; check how y was made, or leave out what does not vary"
            )
    return texts


def _reach(model: InvarianceModel) -> dict[str, float]:
    """The largest extent that the priors allow, of any output or group; by symmetry, internal units."""
    reach: dict[str, float] = {}
    for coordinate in model.coordinates:
        name = coordinate.name.split("[")[0]
        if coordinate.name in model.extents.fixed:
            far = model.extents.fixed[coordinate.name]
        else:
            support = model.extents.priors[coordinate.name].support
            far = float(getattr(support, "upper_bound", coordinate.largest))
        reach[name] = max(far, reach.get(name, 0.0))
    return reach


def warn_of_empty_groups(model: InvarianceModel, data: Data, stacklevel: int = 3) -> None:
    """Warn of groups of the model without a single example.

    Args:
        model: with groups.
        data: all training data, with the numbers of their groups.
        stacklevel: of the warning; 3 is the line that called ``fit`` where a function of its calls this one.

    Warns:
        UserWarning: names them, with what to do.
    """
    present = set(data.groups.tolist())
    empty = [name for number, name in enumerate(model.groups or ()) if number not in present]
    if not empty:
        return
    warnings.warn(
        f"no training example is of {', '.join(map(repr, empty))}, so that the extents there are the population's "
        "and its spread, as for any new group; leave such names out of groups=, and predict with -1 as the number "
        f"of such a group, or look whether the numbers are in the order {list(model.groups or ())}",
        UserWarning,
        stacklevel=stacklevel + 1,
    )


def _outputs(model: InvarianceModel, x: Tensor) -> Tensor:
    """h(x), (n, C, *cells), of a copy in evaluation mode: no statistics of a batch move."""
    network = copy.deepcopy(model.network).eval()
    with torch.no_grad(), seeded(0):
        out: Tensor = network(x).double()
    return out


def _normalised_by(outputs: Tensor) -> str | None:
    """ "softmax" or "log-softmax" where rows are such, else None."""
    if outputs.shape[1] < 2:
        return None
    candidates = {"softmax": (outputs >= 0, outputs), "log-softmax": (outputs <= 0, outputs.exp())}
    for layer, (possible, probs) in candidates.items():
        if bool(possible.all()) and float((probs.sum(1) - 1.0).abs().max()) < SUM_TOLERANCE:
            return layer
    return None


def _is_bounded(model: InvarianceModel, x: Tensor) -> bool:
    """Whether outputs lie in (0, 1] whatever the weights: at draws from their prior."""
    network = copy.deepcopy(model.network).eval()
    for seed in range(WEIGHT_DRAWS):
        network.sample_weights(seed)
        with torch.no_grad(), seeded(0):
            outputs = network(x)
        if not bool(((outputs > 0) & (outputs <= 1)).all()):
            return False
    return True
