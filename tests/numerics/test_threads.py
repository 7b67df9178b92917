"""Computations next to each other."""

import threading
import time

import pytest
import torch

from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.threads import LARGEST_FOR_ONE_THREAD, in_spare_threads, is_small, one_thread, side_by_side


def test_results_come_in_the_order_of_the_items():
    assert list(side_by_side(lambda i: i * i, range(20), 3)) == [i * i for i in range(20)]


def test_every_call_takes_one_thread_and_several_run_at_a_time():
    together = threading.Barrier(2, timeout=20)

    def compute(_):
        together.wait()  # would fail alone
        return torch.get_num_threads()

    assert list(side_by_side(compute, range(2), 2)) == [1, 1]


def test_an_error_ends_the_others():
    calls = []

    def compute(i):
        calls.append(i)
        if i == 1:
            raise ValueError("one of them")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="one of them"):
        list(side_by_side(compute, range(200), 2))
    assert len(calls) < 100


def test_seeded_blocks_run_in_the_thread_that_waits():
    """In a helper they would wait for ever for a lock that its own caller holds."""

    def compute(i):
        with seeded(i):
            return threading.current_thread() is threading.main_thread(), float(torch.rand(()))

    with seeded(7):
        found = list(side_by_side(compute, range(4), 2))
    assert all(in_main for in_main, _ in found)
    assert [value for _, value in found] == [compute(i)[1] for i in range(4)]


def test_the_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError), one_thread() as had:
            assert (had, torch.get_num_threads()) == (2, 1)
            raise RuntimeError
        assert torch.get_num_threads() == 2
        with one_thread(wanted=False) as had:
            assert (had, torch.get_num_threads()) == (2, 2)
        list(side_by_side(abs, range(4), 2))
        fresh = []
        thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert fresh == [2]
    finally:
        torch.set_num_threads(before)


def test_large_data_keep_the_threads_inside_of_products():
    assert [is_small(torch.zeros(n, 1)) for n in (LARGEST_FOR_ONE_THREAD, 1001)] == [True, False]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_blocks_take_the_threads_to_spare(two_threads):
    together = threading.Barrier(2, timeout=20)

    def compute(i):
        together.wait()  # would fail alone
        return i * i, torch.get_num_threads()

    with one_thread():
        assert in_spare_threads(compute, range(4)) == [(i * i, 1) for i in range(4)]
    assert torch.get_num_threads() == 2


def test_blocks_stay_in_a_thread_that_works_beside_others(two_threads):
    def names(_):
        return in_spare_threads(lambda _: threading.current_thread().name, range(4))

    with one_thread():
        assert all(len(set(found)) == 1 for found in side_by_side(names, range(4), 2))
        assert len(set(names(None))) <= 2
    assert set(names(None)) == {threading.current_thread().name}  # where products take the threads


def test_an_error_in_a_block_ends_the_others(two_threads):
    running, calls = set(), []

    def compute(i):
        calls.append(i)
        running.add(i)
        time.sleep(0.01)
        running.remove(i)
        if i == 1:
            raise ValueError("one of them")

    with one_thread(), pytest.raises(ValueError, match="one of them"):
        in_spare_threads(compute, range(200))
    assert not running
    assert len(calls) < 10
    with one_thread():
        assert in_spare_threads(abs, []) == []


def test_blocks_are_computed_in_the_mode_of_the_caller(two_threads):
    def compute(_):
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    with one_thread():
        assert in_spare_threads(compute, range(8)) == [(False, False)] * 8
        with torch.inference_mode():
            assert in_spare_threads(compute, range(8)) == [(True, False)] * 8
