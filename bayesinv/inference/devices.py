"""Where a fit runs."""

from __future__ import annotations

import os

import torch

from bayesinv.numerics.processes import current_group


def choose_device(device: str | torch.device) -> torch.device:
    """The device of a name; "auto" is CUDA if there is one, and for one of several processes that of its own.

    ``torchrun`` counts the processes of a machine in LOCAL_RANK.

    Raises:
        ValueError: unknown, or not on this machine.
    """
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        number = os.environ.get("LOCAL_RANK", "")
        return torch.device("cuda", int(number)) if current_group() and number.isdigit() else torch.device("cuda")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f'device: expected "auto", "cpu", or an accelerator that is there, got {device!r}; '
            f"CUDA devices on this machine: {torch.cuda.device_count()}"
        ) from error
    return place
