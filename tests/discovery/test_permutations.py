"""Groups that permutations generate, and their names."""

from bayesinv.discovery.permutations import _candidates, _name, generated


def test_groups():
    assert generated([]) == ()
    assert generated([(1, 0, 2)]) == ((0, 1, 2), (1, 0, 2))
    assert len(generated([(1, 2, 0)])) == 3
    assert len(generated([(1, 0, 2, 3), (1, 2, 3, 0)])) == 24
    assert generated([(1, 0, 2, 3, 4), (1, 2, 3, 4, 0)]) == ()  # 120 elements are too many


def test_candidates_are_all_orders_or_exchanges():
    assert len(_candidates(3)) == 4  # three exchanges, and one of the two cycles
    assert len(_candidates(6)) == 15
    assert all(sum(i != k for k, i in enumerate(order)) == 2 for order in _candidates(6))


def test_names():
    axes = ("a", "b", "c", "d")
    assert _name((1, 0, 2, 3), axes) == "exchange of a and b"
    assert _name((1, 2, 0, 3), axes) == "cycle of a, b, c"
    assert _name((1, 0, 3, 2), axes) == "exchange of a and b with exchange of c and d"
