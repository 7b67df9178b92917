"""A copy of a user's network that can be trained here: unwrapped, its weights real numbers in single precision."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bayesinv.data.arrays import widened
from bayesinv.errors import first_line

OLD_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)


def own_copy(net: nn.Module, name: str = "net", replaces_weights: bool = True) -> nn.Module:
    """The same function as a module of our own.

    ``DataParallel``, ``DistributedDataParallel`` and what ``torch.compile`` returns are taken off: they hide the layers
    from the per-example gradients. Weights in half precision become float32, since Adam's steps and the evidence's
    sums are lost in eight bits; ``Training(mixed_precision=True)`` runs a network in bfloat16.

    Args:
        net: the user's; it is left as it is.
        name: of the argument, for errors.
        replaces_weights: whether the network is going to be called with other weights than its own, which
            TorchScript cannot do.

    Raises:
        TypeError: a ScriptModule, a weight that a hook computes, no weight that is real, or a module that cannot be
            copied.
        ValueError: weights without numbers: lazy ones, or on the meta device.

    Example:
        >>> net = nn.DataParallel(nn.Linear(2, 1)).to(torch.bfloat16)
        >>> own_copy(net), own_copy(net).weight.dtype
        (Linear(in_features=2, out_features=1, bias=True), torch.float32)
    """
    net = _unwrapped(net)
    for path, module in net.named_modules():
        if replaces_weights and isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{name}: expected a torch.nn.Module written in Python, got a {type(module).__name__} (torch.jit)"
                f"{f' as layer {path!r}' if path else ''}, whose weights cannot be replaced; pass the module that was "
                "scripted or traced, with its weights"
            )
        old = [type(hook).__name__ for hook in module._forward_pre_hooks.values() if isinstance(hook, OLD_HOOKS)]
        if old:
            raise TypeError(
                f"{name}: expected weights that are parameters, got one that the hook {old[0]} of layer {path!r} "
                "computes before every call; use torch.nn.utils.parametrizations in place of "
                "torch.nn.utils.weight_norm and spectral_norm, and make a pruned network final with "
                "torch.nn.utils.prune.remove(layer, name)"
            )
    for path, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise ValueError(
                f"{name}: expected weights that hold numbers, got the lazy {path!r}, which has no shape yet; call the "
                "network once on a few inputs before it is passed: net(x[:2])"
            )
        if tensor.is_meta:
            raise ValueError(
                f"{name}: expected weights that hold numbers, got {path!r} on the meta device; make room with "
                'net.to_empty(device="cpu"), and initialise or load the weights'
            )
    complex_weights = [path for path, p in net.named_parameters() if p.is_complex()]
    if replaces_weights and complex_weights and not any(p.is_floating_point() for p in net.parameters()):
        raise TypeError(
            f"{name}: expected real weights, got complex ones alone, such as {complex_weights[0]!r}; keep real and "
            "imaginary parts as two real parameters, and put them together with torch.complex in forward"
        )
    try:
        own = copy.deepcopy(net)
    except Exception as error:  # whatever a user's class raises in __deepcopy__ or __reduce__
        raise TypeError(
            f"{name}: expected a module that copy.deepcopy can copy, got a {type(net).__name__} for which it fails: "
            f"{first_line(error)}; keep locks, files and tensors with a graph out of its attributes"
        ) from error
    for parent in list(own.modules()):
        for child, module in list(parent._modules.items()):  # named_children leaves out a second place
            if _unwrapped(module) is not module:
                setattr(parent, child, _unwrapped(module))
    half = any(widened(t) is not t for t in [*own.parameters(), *own.buffers()])
    return own._apply(widened) if half else own  # .float() would take double ones too


def _unwrapped(net: Any) -> nn.Module:
    while True:
        if isinstance(net, nn.DataParallel | DistributedDataParallel):
            net = net.module
        elif isinstance(getattr(net, "_orig_mod", None), nn.Module):  # OptimizedModule, whose import takes a second
            net = net._orig_mod
        else:
            return net
