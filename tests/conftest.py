"""Fixtures and collection rules shared by all tests.

Nothing of `bayesinv` is imported at the top: the shape checks (the jaxtyping hook in
pyproject.toml) only see modules that are imported after it is installed.
"""

import os

import pytest

# One thread a process: the tests are small, may run in parallel, and give the same numbers on every
# machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# Scripts that print a table, not tests; they import the packages they compare with.
collect_ignore = ["benchmarks"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `cuda` on a machine without a device."""
    import torch

    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def same_state_after_each_test():
    """Generator, default dtype and Pyro's parameters are as they were found, whatever a test does with them."""
    import pyro
    import torch

    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(dtype)
    pyro.clear_param_store()
