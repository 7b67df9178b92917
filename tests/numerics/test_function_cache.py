"""What predictions keep: by draw, within a budget."""

import torch

from bayesinv.numerics.function_cache import FunctionCache, tensor_bytes


def of(size):
    return torch.zeros(size // 8, dtype=torch.float64)


def test_what_does_not_fit_is_not_kept_and_what_is_there_stays():
    cache = FunctionCache(100)
    for row, size in ((4, 48), (1, 64), (2, 48), (3, 8)):
        cache[row] = of(size)
    assert sorted(cache) == [2, 4] and cache.nbytes == 96
    assert cache.get(1) is None
    cache[4] = of(8)  # an entry gives up the room of the one that it replaces
    cache[3] = of(40)
    assert sorted(cache) == [2, 3, 4] and cache.nbytes == 96
    del cache[2]
    assert cache.nbytes == 48


def test_positions_among_draws_are_rows():
    cache = FunctionCache(1000)
    cache[7] = of(8)
    some = cache.of_rows([3, 7])
    assert list(some) == [1] and len(some) == 1 and some.get(0) is None
    some[0] = of(16)
    assert sorted(cache) == [3, 7] and cache[3].numel() == 2
    assert cache.of_rows([7])[0] is cache[7]
    del some[1]
    assert list(cache) == [3]


def test_storage_is_counted_once_and_that_of_modules_not_at_all():
    class Holder:
        def __init__(self, **parts):
            self.__dict__.update(parts)

    x = of(80)
    layer = torch.nn.Linear(100, 100)
    held = Holder(x=x, views=(x[:2], x.reshape(2, 5)), layer=layer, more={"y": [of(16)]}, name="text")
    held.itself = held
    assert tensor_bytes(held) == 96
    assert tensor_bytes(x[:1]) == 80  # a view keeps all of it
