"""Seeded blocks, code of the caller's inside of them, and forks."""

import os
import threading

import pytest
import torch
from pyro.poutine import runtime

from bayesinv.inference.loop import Step, ended_by
from bayesinv.numerics.randomness import drawing, seeded, unseeded


def wait_for(function):
    """Whether another thread has done it within ten seconds."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def in_child(function):
    """What a forked child's function returns, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(function()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        found = file.read()
    os.waitpid(child, 0)
    return found


def draw_seeded():
    with seeded(3):
        return float(torch.rand(()))


def test_another_thread_can_seed_while_a_callback_waits_for_it():
    with seeded(0), seeded(1):
        waited = []
        ended_by([lambda step: waited.append(wait_for(draw_seeded))], Step(1, 1, 0.0, {}, 0.0))
        assert waited == [True]
        assert not wait_for_a_moment(draw_seeded)  # the block has its lock again


def wait_for_a_moment(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(0.2)
    return not thread.is_alive()


@pytest.mark.parametrize("block", [seeded, drawing])
@pytest.mark.parametrize("other", [seeded, drawing])
def test_a_block_of_another_thread_changes_no_draw(block, other):
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with other(1):
            inside.set()
            leave.wait(10)

    with block(0):
        alone = [torch.rand(1), torch.rand(1)]
    with block(0):
        first = torch.rand(1)
        thread = threading.Thread(target=hold)
        thread.start()
        assert not inside.wait(0.1)  # it waits for the end of this one
        both = [first, torch.rand(1)]
    leave.set()
    thread.join(10)
    assert inside.is_set() and torch.equal(torch.cat(both), torch.cat(alone))


def test_draws_of_a_callback_are_its_own():
    torch.manual_seed(5)
    expected = torch.rand(2)
    after = torch.rand(1)
    torch.manual_seed(5)
    with seeded(0):
        alone = [torch.rand(1), torch.rand(1)]
    with seeded(0):
        first = torch.rand(1)
        with unseeded():
            drawn = torch.rand(2)
        both = [first, torch.rand(1)]
    assert torch.equal(torch.cat(both), torch.cat(alone))
    assert torch.equal(drawn, expected)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_during_another_threads_block_starts_clean():
    inside, leave = threading.Event(), threading.Event()

    def block():
        with seeded(0):
            runtime._PYRO_STACK.append("a handler of this thread")
            inside.set()
            leave.wait(20)
            runtime._PYRO_STACK.pop()

    thread = threading.Thread(target=block)
    thread.start()
    inside.wait(20)
    try:
        found = in_child(lambda: (runtime._PYRO_STACK, draw_seeded()))
    finally:
        leave.set()
        thread.join()
    assert found == str(([], draw_seeded()))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_inside_of_a_block_goes_on_in_it():
    def go_on():
        with seeded(1):
            inner = float(torch.rand(()))
        with unseeded():
            pass
        return inner, float(torch.rand(()))

    with seeded(0):
        found = in_child(go_on)
        assert found == str(go_on())
