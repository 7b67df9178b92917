"""Seeds as arguments: draw with a seed, and leave the global generators as they were."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
import pyro
import torch

# Torch's, NumPy's and Python's generators and Pyro's handlers belong to the process. Two threads that seed them at once
# would draw from one another's streams, so that the blocks of different threads run one after the other.
_one_at_a_time = threading.RLock()


# Threads that work for another one, which may hold the lock and wait for them.
_helper = threading.local()


class SeededInHelperError(RuntimeError):
    """A block was to be seeded in a thread that works for another one."""


def refuse_seeds() -> None:
    """From here on, in this thread, seeded blocks are an error in place of a wait that has no end."""
    _helper.refuses = True


def _renew_lock() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.RLock()  # whoever held it has no thread in a forked child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def seeded(seed: Any) -> Iterator[None]:
    """Run a block with every global generator seeded, and restore their states on the way out.

    Pyro samples through torch's global generator, so a seed can only be an argument if that
    generator is set and put back; Python's and NumPy's go with it because ``pyro.set_rng_seed``
    sets them too. CUDA generators are included when they exist. Blocks in several threads wait for each
    other; what a thread draws outside of such a block still comes from the generators of the process.

    Args:
        seed: any non-negative integer below 2**32.

    Example:
        >>> before = torch.random.get_rng_state()
        >>> with seeded(0):
        ...     first = torch.randn(2)
        >>> with seeded(0):
        ...     bool(torch.equal(first, torch.randn(2)))
        True
        >>> bool(torch.equal(before, torch.random.get_rng_state()))
        True
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= int(seed) < 2**32:
        raise ValueError(f"seed: expected an integer from 0 to 2**32 - 1, got {seed!r}")
    if getattr(_helper, "refuses", False):
        raise SeededInHelperError("a seeded block inside of a computation next to others")
    with _one_at_a_time:
        python_state, numpy_state = random.getstate(), np.random.get_state()
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
        try:
            with torch.random.fork_rng(devices=devices):
                pyro.set_rng_seed(int(seed))
                yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def derive_seed(*parts: int | str) -> int:
    """A seed below 2**32 that is a fixed function of its parts and shares nothing with that of other parts.

    Example:
        >>> derive_seed(0, "weights", 3) == derive_seed(0, "weights", 3)
        True
        >>> derive_seed(0, "weights", 3) == derive_seed(0, "extents", 3)
        False
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "little")


def set_seed(seed: int, device: torch.device | None = None) -> None:
    """Seed Python's, NumPy's and torch's global generators, and that of a device.

    ``torch.manual_seed`` would also leave a note, with a stack trace, for every kind of accelerator that has not been
    used yet; at one call a step these fill the memory.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Run a block with the generators of the CPU seeded, and restore them; cheap enough for every batch."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            set_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
