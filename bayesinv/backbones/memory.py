"""How much memory a network's gradients take, and how to take less: part after part, each computed twice.

Autograd keeps what every layer saw. For copies of many inputs that is far more than the copies themselves; how much
depends on the network alone, and is measured on two inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint


class Saved:
    """What autograd keeps, counted once for each piece of memory."""

    def __init__(self) -> None:
        self._pieces: dict[int, int] = {}

    @property
    def num_bytes(self) -> int:
        return sum(self._pieces.values())

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._pieces[storage.data_ptr()] = storage.nbytes()
        return tensor

    def forget(self, *tensors: Tensor) -> None:
        """Leave out what would be there without autograd too."""
        for tensor in tensors:
            self._pieces.pop(tensor.untyped_storage().data_ptr(), None)


@contextmanager
def counted() -> Iterator[Saved]:
    """Count what autograd keeps of the operations in a block.

    Example:
        >>> x = torch.ones(100, requires_grad=True)
        >>> with counted() as saved:
        ...     y = x.exp().sin()  # keeps exp(x), its own result and what sin saw
        >>> saved.num_bytes
        400
    """
    saved = Saved()
    with saved_tensors_hooks(saved.add, lambda tensor: tensor):
        yield saved


@contextmanager
def unchanged(net: nn.Module) -> Iterator[None]:
    """Put the running statistics of a network, and other buffers, back after a block."""
    values = [(buffer, buffer.clone()) for buffer in net.buffers()]
    entries = [(module, dict(module._buffers)) for module in net.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)
        for module, before in entries:  # forward may put another tensor in the place of one
            module._buffers.clear()
            module._buffers.update(before)


def in_parts(
    function: Callable[[Tensor], Tensor], points: Float[Tensor, N * event], size: int
) -> Float[Tensor, N * out]:
    """A function of each point, with what autograd keeps of no more than ``size`` points in memory.

    The gradient is the same; each part is computed again for it.

    Example:
        >>> x = torch.ones(5, 2, requires_grad=True)
        >>> in_parts(torch.exp, x, 2).sum().backward()
        >>> bool(torch.equal(x.grad, x.exp()))
        True
    """
    if size >= len(points):
        return function(points)
    if not torch.is_grad_enabled():
        return torch.cat([function(part) for part in points.split(size)])
    return torch.cat([checkpoint(function, part, use_reentrant=False) for part in points.split(size)])
