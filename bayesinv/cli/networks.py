"""Networks on the command line: built-in ones, somebody's own, and trainings that go on where they were interrupted."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bayesinv.datasets import Examples
from bayesinv.inference import Training
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.randomness import seeded
from bayesinv.posterior.invariance_posterior import InvariancePosterior, load
from bayesinv.transforms import Transform, from_config

__all__ = ["load_network", "make_network", "network_facts", "network_for", "training_for"]

CHECKPOINT_EVERY = 10  # steps: what an interruption can cost
GROUPS = 8  # of GroupNorm
EPOCHS, BATCH_SIZE = 60.0, 100  # of a training


def make_network(name: str, event_shape: Sequence[int], num_outputs: int, seed: int = 0) -> nn.Module:
    """A network from inputs of this shape to so many outputs.

    Args:
        name: "lenet" or "resnet8", for images; or "module:attr" in the current folder or on Python's path: a network,
            or a function of the number of outputs, or of nothing, that returns one.
        event_shape: of one input.
        num_outputs: classes or targets.
        seed: of the initial weights.

    Raises:
        ValueError: no such network, or one of another kind of data.

    Example:
        >>> make_network("lenet", (1, 16, 16), 10)(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """
    with seeded(seed):
        if ":" in name:
            return _own(name, num_outputs)
        if name not in _BUILT_IN:
            raise ValueError(f"--network: expected {', '.join(_BUILT_IN)} or module:attr, got {name!r}")
        if len(event_shape) != 3:
            raise ValueError(
                f"--network {name} takes images; got inputs of shape {tuple(event_shape)}. Name your own: module:attr"
            )
        return _BUILT_IN[name](event_shape[0], num_outputs)


def _own(name: str, num_outputs: int) -> nn.Module:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--network {name}: {error}; expected an importable module and a name in it") from error
    finally:
        sys.path.remove(os.getcwd())
    if callable(found) and not isinstance(found, nn.Module):
        try:
            found = found(num_outputs)
        except TypeError:
            found = found()
    if not isinstance(found, nn.Module):
        raise ValueError(f"--network {name}: expected a torch.nn.Module or a function, got {type(found).__name__}")
    return found


def _lenet(channels: int, num_outputs: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5, padding=2), nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten()),
        *(nn.Linear(256, 84), nn.Tanh(), nn.Linear(84, num_outputs)),
    )


def _resnet8(channels: int, num_outputs: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, 16), nn.ReLU()),
        *(_Block(16, 16, 1), _Block(16, 32, 2), _Block(32, 64, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_outputs)),
    )


class _Block(nn.Module):
    """x ↦ relu(shortcut(x) + conv(relu(conv(x)))), with group normalisation."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.inner = nn.Sequential(
            *(nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.GroupNorm(GROUPS, width)),
        )
        self.shortcut = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.shortcut(x) + self.inner(x))


_BUILT_IN = {"lenet": _lenet, "resnet8": _resnet8}


def network_for(options: argparse.Namespace, examples: Examples) -> nn.Module:
    """The network that `--network` names, for these examples."""
    return make_network(options.network, examples.x.shape[1:], _num_outputs(options.likelihood, examples), options.seed)


def _num_outputs(likelihood: str, examples: Examples) -> int:
    y = np.asarray(examples.y)
    if likelihood == "gaussian":
        return 1 if y.ndim == 1 else y.shape[1]
    return len(examples.classes) or int(y.max()) + 1


def network_facts(
    options: argparse.Namespace, examples: Examples, transform: Transform, priors: Mapping[str, float]
) -> dict[str, Any]:
    """What `load_network` needs to build the model again, as JSON."""
    return {
        "name": options.network,
        "event_shape": list(examples.x.shape[1:]),
        "num_outputs": _num_outputs(options.likelihood, examples),
        "transform": transform.config(),
        "likelihood": options.likelihood,
        "evidence": options.evidence,
        "priors": dict(priors),
        "num_orbit_samples": options.num_orbit_samples,
    }


def load_network(file: Path, facts: Mapping[str, Any]) -> InvariancePosterior:
    """The posterior that `bayesinv fit --network` saved.

    Raises:
        SavedFileError: the network is another one by now. ValueError: it can no longer be imported.
    """
    settings = dict(facts)
    net = make_network(settings.pop("name"), settings.pop("event_shape"), settings.pop("num_outputs"))
    model = InvarianceModel(net, from_config(settings.pop("transform")), **settings)
    return load(file, model=model)


def training_for(options: argparse.Namespace, checkpoint: Path) -> Training | None:
    """How a network is trained; None for a Gaussian process."""
    if options.network is None:
        return None
    return Training(
        epochs=EPOCHS if options.epochs is None else options.epochs,
        batch_size=BATCH_SIZE if options.batch_size is None else options.batch_size,
        checkpoint=checkpoint,
        checkpoint_every=CHECKPOINT_EVERY,
    )
