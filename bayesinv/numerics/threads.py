"""One thread for each of several computations, in place of several threads inside of one.

Threads inside of products of some hundred rows gain less, and lose much where another process wants the same cores:
threads that wait for one another spin. Computations next to each other gain in full, and so do blocks of a large one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
from torch import Tensor

from bayesinv.numerics.randomness import SeededInHelperError, refuse_seeds

# Examples from which on a product is worth the threads inside of it, and computations next to each other the memory.
LARGEST_FOR_ONE_THREAD = 1000
MOST_THREADS = 8  # next to each other

T = TypeVar("T")
R = TypeVar("R")

_here = threading.local()  # spare: threads that a computation in this thread may take for blocks of it
_pools: dict[int, ThreadPoolExecutor] = {}  # by process, since threads do not survive a fork


def is_small(x: Tensor) -> bool:
    """Whether products on these inputs, (n, *event), take one thread each: few examples, on a CPU."""
    return len(x) <= LARGEST_FOR_ONE_THREAD and x.device.type == "cpu"


@contextlib.contextmanager
def one_thread(wanted: bool = True) -> Iterator[int]:
    """Within the block products take one thread; gives the number that they took before.

    Args:
        wanted: False leaves everything as it is.
    """
    before = torch.get_num_threads()
    if not wanted or before == 1:
        yield before
        return
    torch.set_num_threads(1)
    _here.spare, others = min(before, MOST_THREADS), getattr(_here, "spare", 1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
        _here.spare = others


def in_spare_threads(compute: Callable[[T], R], blocks: Sequence[T]) -> list[R]:
    """What ``compute`` gives for each block of a large computation, in their order.

    Within :func:`one_thread` the threads that were there before work at them together, at most eight, unless this is
    one of several computations :func:`side_by_side`. Nothing is recorded for derivatives. An error ends the others.
    """
    spare = min(getattr(_here, "spare", 1), len(blocks))
    if spare <= 1:
        return [compute(block) for block in blocks]
    found: list[Any] = [None] * len(blocks)
    order, lock = iter(range(len(blocks))), threading.Lock()
    inference = torch.is_inference_mode_enabled()

    def work() -> None:
        with torch.inference_mode(inference), torch.no_grad():  # which belong to a thread
            while True:
                with lock:
                    i = next(order, None)
                if i is None:
                    return
                try:
                    found[i] = compute(blocks[i])
                except BaseException:
                    with lock:
                        list(order)
                    raise

    helpers = [_pool().submit(work) for _ in range(spare - 1)]
    try:
        work()
    finally:
        wait(helpers)
    for helper in helpers:
        helper.result()
    return found


def _pool() -> ThreadPoolExecutor:
    """The helpers of this process, which begin when they are needed."""
    process = os.getpid()
    if process not in _pools:
        _pools[process] = ThreadPoolExecutor(MOST_THREADS - 1, initializer=_begin)
    return _pools[process]


def side_by_side(compute: Callable[[T], R], items: Iterable[T], num_threads: int) -> Iterator[R]:
    """What ``compute`` gives for each item, in their order; every call in one thread.

    Blocks of :func:`bayesinv.numerics.randomness.seeded` belong to one thread at a time: calls that want one run in
    this thread.

    Args:
        compute: must not change what another call reads.
        items: one for each call.
        num_threads: at most so many calls at a time.
    """
    if num_threads == 1:
        yield from map(compute, items)
        return

    def tried(item: T) -> tuple[T, R | None, bool]:
        try:
            return item, compute(item), True
        except SeededInHelperError:
            return item, None, False

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(num_threads, initializer=_begin)
    try:
        for item, found, done in pool.map(tried, items):
            yield found if done else compute(item)  # type: ignore[misc]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)  # which is one number for threads to come


def _begin() -> None:
    torch.set_num_threads(1)
    refuse_seeds()
