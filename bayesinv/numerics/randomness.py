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
from pyro.poutine import runtime

# Torch's, NumPy's and Python's generators and Pyro's handlers belong to the process. Two threads that seed them at once
# would draw from one another's streams, so that the blocks of different threads run one after the other.
_one_at_a_time = threading.RLock()
# What the process had before the outermost of the blocks that run now.
_outside: _Process | None = None


class _Own(threading.local):
    """Of each thread: in how many blocks it is, and whether it works for another one, which may hold the lock."""

    depth = 0
    refuses = False


_own = _Own()


class SeededInHelperError(RuntimeError):
    """A block was to be seeded in a thread that works for another one."""


def refuse_seeds() -> None:
    """From here on, in this thread, seeded blocks are an error in place of a wait that has no end."""
    _own.refuses = True


class _Process:
    """Generators, Pyro's handlers and its settings as they are now."""

    def __init__(self) -> None:
        self.take()

    def take(self) -> None:
        self.python, self.numpy, self.torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self.handlers, self.settings = list(runtime._PYRO_STACK), pyro.settings.get()

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        self.restore_pyro()

    def restore_pyro(self) -> None:
        runtime._PYRO_STACK[:] = self.handlers
        pyro.settings.set(**self.settings)


def _after_fork() -> None:
    global _one_at_a_time, _outside
    if _own.depth == 0:  # whoever held the lock has no thread in this child
        _one_at_a_time = threading.RLock()
        if _outside is not None:
            _outside.restore_pyro()  # not the generators: torch's may have been locked by that thread
            _outside = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
    global _outside
    with _alone():
        before = _Process()
        _outside = before if _own.depth == 0 else _outside
        _own.depth += 1
        try:
            pyro.set_rng_seed(int(seed))
            yield
        finally:
            before.restore()
            _own.depth -= 1
            _outside = None if _own.depth == 0 else _outside


@contextmanager
def _alone() -> Iterator[None]:
    """The generators of the process are this thread's for a block."""
    if _own.refuses:
        raise SeededInHelperError("a seeded block inside of a computation next to others")
    lock = _one_at_a_time  # a child forked inside of the block may have another
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def unseeded() -> Iterator[None]:
    """Run code of the caller's own, such as a callback, as if outside of all seeded blocks of this thread.

    Generators and Pyro's handlers are those from before the outermost block, and other threads may seed theirs: the
    code may wait for them, and what it draws changes nothing in the blocks, which go on as they were left.

    Example:
        >>> with seeded(0):
        ...     first = torch.randn(2)
        >>> with seeded(0):
        ...     with unseeded():
        ...         other = torch.randn(3)
        ...     bool(torch.equal(first, torch.randn(2)))
        True
    """
    global _outside
    depth, outside = _own.depth, _outside
    if depth == 0 or outside is None:
        yield
        return
    inside = _Process()
    outside.restore()
    _own.depth, _outside = 0, None
    for _ in range(depth):
        _one_at_a_time.release()
    try:
        yield
    finally:
        for _ in range(depth):
            _one_at_a_time.acquire()
        _own.depth, _outside = depth, outside
        outside.take()  # what the code drew is drawn, also after the blocks
        inside.restore()


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
    """Run a block with the generators of the CPU seeded, and restore them; cheap enough for every batch.

    Threads wait for each other as at :func:`seeded`.

    Example:
        >>> with drawing(3):
        ...     first = random.random()
        >>> with drawing(3):
        ...     random.random() == first
        True
    """
    with _alone():
        python_state, numpy_state = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng(devices=[]):
                set_seed(seed)
                yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
