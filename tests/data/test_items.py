"""Data sets and loaders that are read whole: different examples, by the seed, or an error at once."""

import itertools
import random
import re
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import bayesinv.data.items
from bayesinv.data.container import as_data
from bayesinv.data.items import changing_item, read_first, read_items, stack
from bayesinv.data.streams.sources import stream_of
from bayesinv.errors import DataError, DataWarning

N = 12


class Numbered(Dataset):
    """x whose every value is the index."""

    def __init__(self, n=N, noise=False, fault=None):
        self.n, self.noise, self.fault = n, noise, fault

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i == 7 and self.fault is not None:
            raise self.fault
        noise = torch.rand(()) + np.random.rand() + random.random() if self.noise else 0.0
        return torch.full((2,), float(i % N)) + noise, i % 2


class AtOnce(Numbered):
    """Several items at once, as `give` passes them on."""

    def __init__(self, give):
        super().__init__()
        self.give = give

    def __getitems__(self, indices):
        return self.give([self[i] for i in indices])


class Iterated(IterableDataset):
    """As many of these as `n` says; None for ever."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return (Numbered()[i] for i in (itertools.count() if self.n is None else range(self.n)))


class Promised(Iterated):
    def __init__(self, n, length):
        super().__init__(n)
        self.length = length

    def __len__(self):
        return self.length


def rows(data):
    return as_data(data, "categorical").x[:, 0].long().tolist()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (DataLoader(Numbered(), sampler=[0, -N, 11, -1, -2]), [0, 11, 10]),
        (DataLoader(Numbered(), sampler=SubsetRandomSampler([3, -9, -8])), [3, 4]),
        (DataLoader(Numbered(), batch_sampler=[[0, 1], [-12, -1]]), [0, 1, 11]),
        (Promised(None, 8), range(8)),
        (DataLoader(Promised(None, 8), batch_size=3), range(8)),
        (DataLoader(Promised(8, 8), batch_size=3, num_workers=2), range(8)),  # each would read all of it
        (Iterated(9), range(9)),
        (ChainDataset([Iterated(4), Iterated(4)]), [0, 1, 2, 3, 0, 1, 2, 3]),
        (DataLoader(Numbered(), batch_size=5, drop_last=True), range(N)),
        (DataLoader(Numbered(), batch_size=5, shuffle=True), range(N)),
        (DataLoader(Numbered(), sampler=RandomSampler(range(N), replacement=True, num_samples=99)), range(N)),
        (DataLoader(Numbered(), sampler=WeightedRandomSampler([1.0] * 9 + [0.0] * 3, 99)), range(9)),
        (DataLoader(Numbered(), sampler=SubsetRandomSampler([5, 2, 5])), [5, 2]),
        (DataLoader(Numbered(), batch_size=2, sampler=[3, 4, 3, 4]), [3, 4]),
        (DataLoader(Numbered(), batch_sampler=[[0, 1], [], [1, 2], [2]]), [0, 1, 2]),
        (DataLoader(Numbered(), batch_sampler=BatchSampler(itertools.cycle(range(N)), 5, False)), range(N)),
    ],
)
def test_every_example_is_read_once(data, expected):
    assert rows(data) == list(expected)


def test_weights_of_a_sampler_are_said_to_be_left_out():
    loader = DataLoader(Numbered(), sampler=WeightedRandomSampler([1.0] * 6 + [3.0] * 6, N))
    with pytest.warns(DataWarning, match="weights of the WeightedRandomSampler are not used"):
        assert rows(loader) == list(range(N))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Iterated(None), "Iterated has no __len__, and no end after"),
        (DataLoader(Iterated(None), batch_size=4), "no end after"),
        (Promised(8, 0), "empty"),
        (Promised(0, 8), "gave no example"),
        (Promised(5, 8), r"gave 5 examples, and len\(\) of Promised, .* is 8"),
        (DataLoader(Promised(5, 8), batch_size=2), "gave 5 examples"),
        (Numbered(0), "empty"),
        (Numbered(10**9), r"1000000000 examples by the __len__ of Numbered.*Subset\(dataset, range"),
        (Numbered(-1), "no number of examples"),
        (Numbered(fault=StopIteration()), r"raised StopIteration\(\) for the examples 0, 1"),
        (Numbered(fault=IndexError("out")), r"raised IndexError\('out'\)"),
        (DataLoader(Numbered(), batch_sampler=[0, 1]), "batch_sampler gave 0; expected lists of indices"),
        (DataLoader(Numbered(), batch_sampler=itertools.repeat([0, 1])), "has no end and serves some of the 12"),
        (DataLoader(Numbered(), sampler=SubsetRandomSampler([])), "serves no example"),
        (DataLoader(Numbered(), batch_size=None), "batch_size=None"),
        (DataLoader(Numbered(), batch_size=4, collate_fn=lambda items: (torch.zeros(1, 4, 2), torch.zeros(4))),
         r"examples 0 to 3 .*x of a batch has shape \(1, 4, 2\); expected 4 along its first axis"),
        (AtOnce(lambda items: items[:-1]), r"returned 11 items for the 12 examples 0, 1, .*; expected one for each"),
        (DataLoader(AtOnce(lambda items: items[:-1]), 4, collate_fn=stack), "returned 3 items for the 4 examples"),
        (AtOnce(lambda items: None), "returned 0 items for the 12 examples"),
        (DataLoader(Numbered(), collate_fn=lambda items: {"x": 1}), "of type dict; expected a pair"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_at_once(data, message):
    with pytest.raises(DataError, match=message):
        as_data(data, "categorical")


def test_items_at_once_may_be_any_iterable():
    assert torch.equal(as_data(AtOnce(iter), "categorical").x, as_data(Numbered(), "categorical").x)


@pytest.mark.parametrize(
    ("data", "x"),
    [
        (Numbered(), 0.0),
        (DataLoader(Numbered(), 4, sampler=[5, 3]), 5.0),
        (DataLoader(Numbered(), 4, shuffle=True), 0.0),
        (Promised(8, 8), 0.0),
        (DataLoader(Iterated(3), collate_fn=lambda items: [v + 1 for v in stack(items)]), 1.0),
    ],
)
def test_the_first_example_leaves_the_generators(data, x):
    before = torch.get_rng_state()
    first, label = read_first(data)
    assert first.tolist() == [[x, x]] and label.shape == (1,)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("data", [Iterated(0), Numbered(0), DataLoader(Iterated(0))])
def test_a_data_set_without_a_first_example(data):
    with pytest.raises(DataError, match="expected at least 1"):
        read_first(data)


def test_an_iterated_pass_without_a_length_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(bayesinv.data.items, "LARGEST_WITHOUT_LENGTH", 600)  # two numbers of four bytes each
    assert len(as_data(Iterated(64), "categorical")) == 64
    with pytest.raises(DataError, match="no end after 128 examples"):
        as_data(Iterated(130), "categorical")


def test_more_than_fits_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr(bayesinv.data.items, "LARGEST_WHOLE", 1000)
    with pytest.raises(DataError, match=r"the 1000 examples that the __len__ of Numbered promises would take"):
        as_data(Numbered(1000), "categorical")
    assert len(as_data(Numbered(100), "categorical")) == 100


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: DataLoader(d, 5, shuffle=True), lambda d: DataLoader(d, 5)])
def test_what_is_drawn_depends_on_the_seed_alone(wrap):
    first = as_data(wrap(Numbered(noise=True)), "categorical", seed=1).x
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    torch.rand(3), np.random.rand(3)
    moved = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    again = as_data(wrap(Numbered(noise=True)), "categorical", seed=1).x
    assert torch.equal(first, again)
    assert len((first[:, 0] - torch.arange(N)).unique()) == N
    assert not torch.equal(first, as_data(wrap(Numbered(noise=True)), "categorical", seed=2).x)
    assert torch.equal(torch.random.get_rng_state(), moved[0])
    assert (np.random.get_state()[1] == moved[1]).all()
    assert not torch.equal(states[0], moved[0])


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_workers_read_the_same():
    loaders = [DataLoader(Numbered(noise=True), 5, num_workers=workers) for workers in (0, 1)]
    assert torch.equal(*(read_items(loader, False)[0] for loader in loaders))


def test_items_become_tensors_as_arrays_do():
    reversed_rows = np.arange(4, dtype=">f4").reshape(2, 2)[::-1]
    x, y = stack([(reversed_rows, np.uint16(1)), (reversed_rows[::-1], True)])
    assert x.tolist() == [[[2.0, 3.0], [0.0, 1.0]], [[0.0, 1.0], [2.0, 3.0]]]
    assert y.tolist() == [1, 1]
    with pytest.raises(DataError, match=r"example 4: x holds 1 masked value"):
        stack([(np.ma.masked_less([1.0, 2.0], 1.5), 0)], [4])
    with pytest.raises(DataError, match=r"example 1 has 3 parts and those before it 2"):
        stack([(1.0, 0), (1.0, 0, "a")])


def test_an_iterated_pass_shorter_than_promised_is_refused():
    stream = stream_of(Promised(5, 8), "categorical")
    assert len(stream.batch(0, "weights", 0, 5)) == 5
    with pytest.raises(DataError, match=r"a pass over the data gave 5 examples, and len\(\) of Promised, .* is 8"):
        stream.batch(0, "weights", 1, 5)
    kept = stream_of(DataLoader(Promised(8, 8), batch_size=3, drop_last=True), "categorical")
    assert len(kept.batch(0, "weights", 0, 8)) == 8  # two of them from the next pass


def test_a_stream_passes_over_empty_batches_and_names_what_ends_loops():
    loader = DataLoader(Numbered(), batch_sampler=[[0, 1], [], list(range(2, N))])
    assert stream_of(loader, "categorical").batch(0, "weights", 0, N).x[:, 0].tolist() == list(range(N))
    for data in (Numbered(fault=StopIteration()), DataLoader(Numbered(fault=StopIteration()), sampler=[6, 7, 8])):
        with pytest.raises(DataError, match="raised StopIteration"):
            stream_of(data, "categorical").batch(0, "weights", 0, N)


class Own(Numbered):
    """Noise from a generator that the data set holds."""

    def __init__(self):
        super().__init__()
        self.generator, self.reads = np.random.default_rng(0), 0

    def __getitem__(self, i):
        self.reads += 1
        return torch.full((2,), float(i)) + self.generator.random(), 0


def test_an_item_that_changes_is_found_and_no_generator_moves():
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for noisy in (Numbered(noise=True), Subset(Numbered(noise=True), range(3)), DataLoader(Numbered(noise=True))):
        assert changing_item(noisy) == 0
    own = Own()
    both = ConcatDataset([own, own])
    assert changing_item(own) == changing_item(both) == changing_item(DataLoader(own, batch_size=3)) == 0
    assert own.reads == 0
    assert own.generator.random() == np.random.default_rng(0).random()
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def test_what_stays_or_cannot_be_looked_at_is_no_changing_item(monkeypatch):
    class Missing(Numbered):
        def __getitem__(self, i):
            return torch.tensor([torch.nan, 1.0]), i

    locked = Numbered(noise=True)
    locked.lock = threading.Lock()  # of which there is no copy
    tensors = TensorDataset(torch.rand(4, 2), torch.zeros(4))
    for data in (
        Numbered(),
        Missing(),
        tensors,
        Subset(tensors, [1]),
        Iterated(4),
        Numbered(n=0),
        locked,
        (1, 2),
        None,
    ):
        assert changing_item(data) is None
    monkeypatch.setattr(bayesinv.data.items, "LONGEST_LOOK", 0.0)
    assert changing_item(Numbered(noise=True)) is None


def test_examples_that_are_dictionaries_become_pairs_in_a_line():
    class Named(Numbered):
        def __getitem__(self, i):
            return {"image": torch.full((2,), float(i)), "label": i % 2}

    dataset = Named()
    with pytest.raises(DataError, match="of type dict; expected a pair") as caught:
        as_data(dataset, "categorical")
    loader = eval(str(caught.value).split("(x, y): ")[1])  # what the message says, as it says it
    assert as_data(loader, "categorical").x[:, 0].tolist() == list(range(N))


@pytest.mark.parametrize("batches", [False, True])
def test_generators_become_data_in_a_line(batches):
    def data():
        if batches:
            return ((torch.ones(3, 2) * k, torch.tensor([0, 1, 0])) for k in range(4))
        return ((torch.ones(2) * k, k % 2) for k in range(12))

    with pytest.raises(TypeError, match="data is of type generator") as caught:
        as_data(data(), "categorical")
    cure = re.search(r"tuple\(.*\)(?= where)" if batches else r"DataLoader\(list.*?32\)", str(caught.value)).group()
    assert len(as_data(eval(cure, globals(), {"data": data()}), "categorical")) == 12
    with pytest.raises(TypeError, match=r"\(data\['x'\], data\[\.\.\.\]\)"):
        as_data({"x": 0, "y": 1}, "categorical")
