"""Torch's modes of the calling thread, which the caller's code may have changed around ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bayesinv.errors import DataError


def refuse_meta() -> None:
    """Raise inside of ``torch.device("meta")``, where new tensors hold no values.

    Example:
        >>> with torch.device("meta"):
        ...     refuse_meta()
        Traceback (most recent call last):
        bayesinv.errors.DataError: torch.device("meta") is on, where new tensors hold no values; leave that block ...
    """
    if torch.get_default_device().type == "meta":
        raise DataError(
            'torch.device("meta") is on, where new tensors hold no values; leave that block before you build, fit, '
            'load or predict (or call torch.set_default_device("cpu"))'
        )


@contextmanager
def ordinary(grad: bool | None = None) -> Iterator[None]:
    """Run a block, or a function that this decorates, without inference mode and autocast, whatever is on around it.

    Tensors made in inference mode cannot be differentiated later, and autocast would take the algebra of an evidence to
    bfloat16. A network runs under autocast where ``Training(mixed_precision=True)`` asks for it, and nowhere else.

    Args:
        grad: whether gradients are recorded; None leaves that as it is.

    Raises:
        DataError: inside of ``torch.device("meta")``. ValueError: tensors are half precision by default, in which no
            evidence can be computed.

    Example:
        >>> with torch.inference_mode(), ordinary(grad=True):
        ...     torch.ones(1, requires_grad=True).exp().requires_grad
        True
    """
    refuse_meta()
    if torch.get_default_dtype() not in (torch.float32, torch.float64):
        raise ValueError(
            f"expected float32 or float64 as torch's default type, got {torch.get_default_dtype()}: call "
            "torch.set_default_dtype(torch.float32); Training(mixed_precision=True) runs a network in bfloat16"
        )
    recorded = torch.is_grad_enabled() if grad is None else grad  # leaving inference mode would switch it on
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(recorded),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield
