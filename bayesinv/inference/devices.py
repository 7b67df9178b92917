"""Where a fit runs."""

from __future__ import annotations

import torch


def choose_device(device: str | torch.device) -> torch.device:
    """The device of a name; "auto" is CUDA if there is one.

    Raises:
        ValueError: unknown, or not on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f'device: expected "auto", "cpu", or an accelerator that is there, got {device!r}; '
            f"CUDA devices on this machine: {torch.cuda.device_count()}"
        ) from error
    return place
