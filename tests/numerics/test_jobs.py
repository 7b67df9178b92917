"""Jobs in other processes, by any backend of joblib."""

import inspect

import joblib
import numpy as np
import pytest
import torch
from joblib._parallel_backends import ThreadingBackend

from bayesinv.numerics.jobs import check_jobs, run_jobs


class Counting(ThreadingBackend):
    """Counts what it is given; stands for Dask and Ray, whose backends register in the same way."""

    count = 0

    def submit(self, *args, **kwargs):
        type(self).count += 1
        return super().submit(*args, **kwargs)


class AtOnce(Counting):
    """One that does not give results as they come."""

    supports_return_generator = False


def threads(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(400, 400, generator=generator)
    return torch.get_num_threads(), float((x @ x).sum())


def test_results_are_in_order_and_take_one_thread():
    before = torch.get_num_threads()
    found = list(run_jobs(threads, range(4)))
    assert [used for used, _ in found] == [1] * 4 and torch.get_num_threads() == before


@pytest.mark.slow
def test_a_number_of_processes_changes_no_bit():
    alone = list(run_jobs(threads, range(4)))
    assert list(run_jobs(threads, range(4), 2)) == alone
    with joblib.parallel_config(n_jobs=2):
        assert list(run_jobs(lambda seed: threads(seed), range(4), None)) == alone  # what has no name travels too


@pytest.mark.parametrize("backend", [Counting, AtOnce])
def test_another_backend_takes_over(backend):
    backend.count = 0
    joblib.register_parallel_backend(backend.__name__, backend)
    with joblib.parallel_config(backend=backend.__name__):
        assert list(run_jobs(abs, [-1, -2, -3], 2)) == [1, 2, 3]
    assert backend.count > 0
    joblib.parallel.BACKENDS.pop(backend.__name__)


def test_results_come_as_they_are_ready():
    seen = []
    results = run_jobs(lambda i: (seen.append(i), i)[1], range(5))
    assert next(results) == 0 and seen == [0]


def test_errors_of_a_job_are_passed_on():
    with pytest.raises(ZeroDivisionError):
        list(run_jobs(lambda i: 1 / i, [1, 0]))


@pytest.mark.parametrize("jobs", [0, -1, True])
def test_what_is_no_number_of_jobs_is_refused(jobs):
    with pytest.raises(ValueError, match="jobs: expected an integer of at least 1, or None") as error:
        list(run_jobs(abs, [1], jobs))
    assert "jobs=None in a block of joblib.parallel_config(n_jobs=-1)" in str(error.value)


def test_integers_of_numpy_are_numbers_of_jobs():
    assert list(inspect.unwrap(run_jobs)(abs, [-1], np.int64(1))) == [1]  # without the checks of types in tests
    found = check_jobs(np.int64(2))
    assert found == 2 and type(found) is int and check_jobs(None) is None
