"""Independent pieces of work in processes of their own, by whichever engine joblib is told to use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import joblib

from bayesinv.numerics.arguments import as_integer
from bayesinv.numerics.threads import one_thread

__all__ = ["check_jobs", "run_jobs"]

T = TypeVar("T")
R = TypeVar("R")


def check_jobs(jobs: Any) -> int | None:
    """A number of processes as Python's int, or None.

    Raises:
        ValueError: something else.
    """
    try:
        return None if jobs is None else as_integer("jobs", jobs)
    except ValueError:
        raise ValueError(
            f"jobs: expected an integer of at least 1, or None for what joblib.parallel_config says, got {jobs!r}; for "
            "as many as there are cores: jobs=None in a block of joblib.parallel_config(n_jobs=-1)"
        ) from None


def run_jobs(job: Callable[[T], R], arguments: Iterable[T], jobs: int | None = 1) -> Iterator[R]:
    """What a job gives for each argument, in their order, as soon as it is there.

    Each runs with one thread, so that a number of processes, or of machines, changes no result.

    Args:
        job: sent to other processes with what it holds.
        arguments: one for each call.
        jobs: processes of joblib's backend, which is loky unless ``joblib.parallel_config`` names another, such as
            "dask" or "ray"; 1 runs all of them here, and None as many as that configuration says.

    Raises:
        ValueError: not a number of jobs. Whatever a job raises.

    Example:
        >>> list(run_jobs(abs, [-1, 2, -3]))
        [1, 2, 3]
    """
    jobs = check_jobs(jobs)
    arguments = list(arguments)
    alone = _OneThread(job)
    if jobs == 1 or len(arguments) <= 1:
        yield from map(alone, arguments)
        return
    calls = (joblib.delayed(alone)(argument) for argument in arguments)
    try:
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator")
    except ValueError:  # a backend that gives all results at once
        parallel = joblib.Parallel(n_jobs=jobs)
    yield from parallel(calls)


@dataclass(frozen=True)
class _OneThread(Generic[T, R]):
    """A job whose products take one thread."""

    job: Callable[[T], R]

    def __call__(self, argument: T) -> R:
        with one_thread():
            return self.job(argument)
