"""What an :class:`InvarianceModel` refuses: parts that do not go together, and data that do not fit them.

The first four functions are for its constructor, the others for when it meets data.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bayesinv.backbones import GaussianProcess
from bayesinv.backbones.invariant_network import AVERAGES
from bayesinv.data.container import Data
from bayesinv.data.groups import as_groups
from bayesinv.errors import DataError, NumericalError
from bayesinv.evidence import Evidence, NetworkEvidence
from bayesinv.evidence.collapsed import CollapsedEvidence
from bayesinv.model.parts import ModelParts
from bayesinv.numerics.randomness import seeded


def check_outputs(model: ModelParts, average: str) -> None:
    """Raise unless every output can have extents of its own."""
    if not model.is_network and not isinstance(model.evidence, CollapsedEvidence):
        raise ValueError(
            f"outputs: extents for every output need the evidence 'softmax', 'dirichlet' or 'gaussian' of a "
            f"Gaussian process, or a network, got {model.evidence.name!r}, whose outputs share one orbit; name "
            "another evidence, or leave outputs out"
        )
    if model.likelihood == "bernoulli":
        raise ValueError(
            "outputs: a Bernoulli likelihood has a single output, whose extents are those of the model; use "
            'likelihood="categorical" with a network of two outputs, or leave outputs out'
        )
    if average != "function" and average in AVERAGES:
        raise ValueError(
            f'outputs: extents for every output take average="function", got {average!r}: the probabilities of the '
            "classes, each averaged over copies of its own, do not sum to one"
        )
    if model.output_action is not None:
        raise ValueError(
            "outputs: outputs that move with the input move by one transform, and extents for every output are one "
            "for each; leave outputs or output_action out"
        )


def check_groups(model: ModelParts) -> None:
    """Raise unless every group can have extents of its own."""
    if model.structure is not None:
        raise ValueError("outputs and groups: there are no extents for every output of every group; leave one out")
    if not isinstance(model.evidence, CollapsedEvidence | NetworkEvidence):
        raise ValueError(
            f"groups: extents for every group need a network, or a Gaussian process and the evidence 'softmax', "
            f"'dirichlet' or 'gaussian', got {model.evidence.name!r}, which has one orbit for all; name another "
            "evidence, or leave groups out"
        )


def for_evidence(backbone: GaussianProcess, evidence: Evidence) -> GaussianProcess:
    """The process in a space that the evidence works in; one over minibatches keeps q over inducing values.

    Raises:
        ValueError: features that were asked for, which such an evidence has no use for.
    """
    if isinstance(evidence, CollapsedEvidence) or backbone.space != "features":
        return backbone
    if backbone.features_given:
        raise ValueError(
            f"num_features: the {evidence.name} evidence keeps a distribution over inducing values; give num_inducing "
            "in place of num_features, or another evidence"
        )
    return backbone.with_inducing()


def check_exact(model: ModelParts) -> None:
    """Raise unless the covariance of the inputs can stand in for inducing values."""
    if not isinstance(model.evidence, CollapsedEvidence) or model.structure is not None or model.pooling is not None:
        raise ValueError(
            "num_inducing=None: the exact covariance goes with the collapsed evidences ('softmax', "
            "'dirichlet', 'gaussian') and extents in common; "
            "give a number of inducing values, such as num_inducing=150"
        )


def check_average(model: ModelParts, average: str) -> None:
    """Raise unless the evidence takes this average over the copies."""
    averages = model.evidence.averages if isinstance(model.evidence, NetworkEvidence) else ("function",)
    if average not in averages:
        known = "" if average in AVERAGES else f" (known are {list(AVERAGES)})"
        raise ValueError(f"average: the {model.evidence.name} evidence takes {list(averages)}, got {average!r}{known}")


def check_data(model: ModelParts, data: Data) -> None:
    """Raise unless the data have the groups and the outputs that the model has extents for."""
    if model.groups is not None:
        as_groups(data.groups, model.groups, len(data), training=True)
    if model.structure is not None and data.num_outputs != len(model.structure.outputs):
        missing = ""
        if model.likelihood == "categorical" and data.num_outputs < len(model.structure.outputs):
            number = len(model.structure.outputs)
            missing = f", or, where a class does not occur in the data, say so: Data(x, y, num_classes={number})"
        raise DataError(
            f"the model has extents for {len(model.structure.outputs)} outputs, "
            f"{', '.join(model.structure.outputs)}, and the data have {data.num_outputs}; "
            f"name each of them, in order{missing}"
        )


def check_network(model: ModelParts, num_outputs: int, data: Data) -> None:
    """Raise unless the network has an output for every class, or for every target."""
    wanted = data.num_outputs
    if model.structure is not None and num_outputs != wanted:
        raise DataError(
            f"the network has {num_outputs} outputs and the model extents for {wanted}; make its last layer "
            f"{wanted} wide, or name each of its outputs"
        )
    if model.likelihood == "gaussian" and num_outputs != wanted:
        raise DataError(
            f"the network has {num_outputs} outputs and y {wanted} columns; make its last layer {wanted} wide"
        )
    if model.likelihood == "bernoulli" and num_outputs != 1:
        raise DataError(
            f"the network has {num_outputs} outputs; a Bernoulli likelihood takes one logit, that of label 1: make "
            'its last layer one wide, or use likelihood="categorical"'
        )
    if model.likelihood == "categorical" and num_outputs < max(2, wanted):
        lowest = int(data.y.min())
        start = f"; or, if labels are to start at 0 and not at {lowest}, take y - {lowest}" if lowest > 0 else ""
        raise DataError(
            f"the network has {num_outputs} outputs for {wanted} classes; make its last layer {wanted} wide "
            f"(logits, without a softmax){start}"
        )


def check_cells(model: ModelParts, data: Data) -> None:
    """Raise unless the network's output has the shape of the targets, and moves as the action says."""
    with torch.no_grad(), seeded(0):
        outputs = model.network.evaluated()(data.x[:2])
    cells, wanted = tuple(outputs.shape[2:]), tuple(data.y.shape[1:]) if model.likelihood != "gaussian" else ()
    if cells and model.structure is not None:
        raise DataError(
            f"outputs: extents for every output are for networks that return (n, C), and {tuple(outputs.shape)} "
            "came; leave outputs out for maps"
        )
    if cells != wanted:
        cure = "flatten or pool what is left of the event axes inside it" if not wanted else "resize one of the two"
        raise DataError(
            f"the network has to return {('n', 'C', *wanted)} for targets {('n', *data.y.shape[1:])}, and "
            f"{('n', *outputs.shape[1:])} came; {cure}".replace("'", "")
        )
    if model.output_action is not None:
        t = torch.zeros(1, model.orbit.transform.num_columns, dtype=torch.float64, device=outputs.device)
        try:
            model.output_action.inverse(outputs[None], t)
        except ValueError as error:
            raise DataError(str(error)) from error


def check_weights(model: nn.Module) -> None:
    """Refuse numbers in a model that are no start for a fit, as those of a training that diverged.

    Raises:
        NumericalError: names the parameter or buffer.
    """
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, values in named:
            if is_lazy(values):
                continue
            bad = values.isnan() if kind == "buffer" else ~values.isfinite()  # bounds of constraints are infinite
            if bool(bad.any()):
                raise NumericalError(
                    f"the {kind} {name.removeprefix('backbone.net.').removeprefix('backbone.')!r} of the model holds "
                    f"values that are not finite, {int(bad.sum())} of {values.numel()}; expected finite weights. "
                    "Build or load the network again"
                )
