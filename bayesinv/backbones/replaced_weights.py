"""A network called with other weights in place of its own, at every place where each of them stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def called_with(net: nn.Module, weights: Mapping[str, Tensor], *inputs: Any) -> Any:
    """net(*inputs) with some parameters replaced; the network is as it was afterwards.

    ``functional_call`` knows a tied weight by all of its names, and puts that of a layer that stands at two places back
    as a plain tensor: by default it replaces both names of what is one entry of one module. Here each such entry has
    one name.

    Args:
        net: the network.
        weights: what replaces its parameters, by any of their names.
        inputs: what it is called with.

    Example:
        >>> import torch
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> net = nn.Sequential(layer, layer)
        >>> called_with(net, {"0.weight": torch.tensor([[3.0]])}, torch.ones(1, 1))
        tensor([[9.]])
        >>> [name for name, _ in net.named_parameters()]
        ['0.weight']
    """
    values = {id(net.get_parameter(name)): value for name, value in weights.items()}
    entries = {
        f"{path}.{leaf}" if path else leaf: values[id(parameter)]
        for path, module in net.named_modules()  # each module once
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in values
    }
    return functional_call(net, entries, inputs, tie_weights=False)
