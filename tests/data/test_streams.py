"""Minibatches: a function of (seed, purpose, step), with distinct examples, and all of them in every epoch."""

import random
from itertools import repeat

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from bayesinv import Affine2d, Data
from bayesinv.data.container import as_data
from bayesinv.data.streams import derive_seed, stream_of
from bayesinv.errors import DataError

N = 23


def images(n=N):
    """x whose every pixel is the example's index, and labels of three classes."""
    x = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 1, 4, 4).contiguous()
    return x, torch.arange(n) % 3


def rows(data):
    return data.x[:, 0, 0, 0].long().tolist()


class Counted(Dataset):
    """Items made on request, which are counted."""

    def __init__(self, n=N, noise=False, bad=None, label=None):
        self.n = n
        self.noise = noise
        self.bad = bad
        self.label = label
        self.read = []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.read.append(i)
        x = torch.full((1, 4, 4), float(i))
        if self.noise:
            x = x + 0.1 * torch.rand(()) + 0.1 * random.random() + 0.1 * np.random.rand()
            x = x.float()
        if i == self.bad:
            x[0, 1, 2] = torch.nan
        return x, i % 3 if self.label is None else self.label(i)


class Iterated(IterableDataset):
    def __init__(self, n=N):
        self.n = n

    def __len__(self):
        return self.n

    def __iter__(self):
        return zip(*images(self.n), strict=True)


def sources():
    x, y = images()
    return {
        "arrays": (x.numpy(), y.numpy()),
        "data": Data(x, y, 3),
        "tensors": TensorDataset(x, y),
        "dataset": Counted(),
        "loader": DataLoader(Counted(), batch_size=7),
        "shuffling": DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True),
    }


@pytest.mark.parametrize("name", sources())
def test_every_source_gives_the_same_batches(name):
    expected = stream_of(images(), "categorical")
    stream = stream_of(sources()[name], "categorical")
    assert stream.exact_resume
    assert (stream.num_total, stream.event_shape) == (N, (1, 4, 4))
    assert stream.batch_size == (7 if name in ("loader", "shuffling") else None)
    for step in (0, 3, 11, 2):
        one, other = (s.batch(4, "weights", step, 5) for s in (stream, expected))
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)
        assert one.y.dtype == torch.int64
    assert torch.equal(stream.subset(6, 1).x, expected.subset(6, 1).x)


@pytest.mark.parametrize("size", [1, 5, 22, 23])
@pytest.mark.parametrize("data", [images(), Counted()], ids=["memory", "dataset"])
def test_an_epoch_holds_every_example_and_a_batch_none_twice(data, size):
    stream = stream_of(data, "categorical")
    steps = -(-N // size)
    for epoch in range(2):
        batches = [rows(stream.batch(0, "weights", epoch * steps + t, size)) for t in range(steps)]
        assert all(len(batch) == len(set(batch)) == size for batch in batches)
        assert {row for batch in batches for row in batch} == set(range(N))


def test_epochs_seeds_and_purposes_have_orders_of_their_own():
    stream = stream_of(images(), "categorical")
    orders = [
        rows(stream.batch(seed, purpose, step, N))
        for seed, purpose, step in [(0, "weights", 0), (0, "weights", 1), (1, "weights", 0), (0, "extents", 0)]
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(N)) for order in orders)


def test_examples_come_equally_often_at_every_place():
    stream = stream_of(images(4), "categorical")
    counts = torch.zeros(4, 4)
    for seed in range(600):
        for place, row in enumerate(rows(stream.batch(seed, "weights", 0, 4))):
            counts[place, row] += 1
    # A count is binomial(600, 1/4): a standard deviation of 10.6, and 4.5 of them.
    assert float((counts - 150).abs().max()) < 48
    assert float((counts - 150).abs().max()) > 0


def test_the_size_is_cut_to_the_data():
    stream = stream_of(images(), "categorical")
    assert len(stream.batch(0, "weights", 5, 1000)) == N
    with pytest.raises(ValueError, match="at least 1"):
        stream.batch(0, "weights", 0, 0)


def test_a_data_set_is_never_read_whole():
    stream = stream_of(Counted(200_000), "categorical")
    fetch = stream._fetch.dataset
    stream.batch(0, "weights", 3, 10)
    stream.subset(20, 0)
    assert len(fetch.read) == 1 + 10 + 20
    assert len(set(fetch.read)) > 25


def test_random_items_depend_on_the_batch_alone_and_leave_global_state():
    torch.manual_seed(3)
    # Python's own generator is left too, but the shape checks of the tests draw from it.
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    stream, again = (stream_of(Counted(noise=True), "categorical") for _ in range(2))
    first = [stream.batch(0, "weights", t, 5).x for t in range(4)]
    for t in (2, 0, 3):
        assert torch.equal(again.batch(0, "weights", t, 5).x, first[t])
    fractions = torch.stack(first)[:, :, 0, 0, 0].frac().flatten()
    assert len(fractions.unique()) == 20
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_workers_change_nothing():
    plain = stream_of(Counted(noise=True), "categorical")
    pooled = stream_of(Counted(noise=True), "categorical", num_workers=1)
    state = torch.random.get_rng_state()
    try:
        for step in (0, 1, 2, 9, 10, 1):  # in order, and with jumps
            assert torch.equal(pooled.batch(0, "weights", step, 5).x, plain.batch(0, "weights", step, 5).x)
        assert pooled._fetch.dataset.read == [0]  # the rest was read by the worker
        assert torch.equal(torch.random.get_rng_state(), state)
    finally:
        pooled.close()
    assert not pooled._pools


def test_a_loaders_collate_function_is_used():
    def double(items):
        x, y = zip(*items, strict=True)
        return 2 * torch.stack(x), torch.tensor(y)

    x, y = images()
    stream = stream_of(DataLoader(TensorDataset(x, y), batch_size=4, collate_fn=double), "categorical")
    assert set(rows(stream.batch(0, "weights", 0, N))) == {2 * i for i in range(N)}


def test_a_subset_sampler_keeps_to_its_examples():
    chosen = [1, 4, 9, 16, 22]
    for data in (
        DataLoader(Counted(), batch_size=2, sampler=SubsetRandomSampler(chosen)),
        DataLoader(TensorDataset(*images()), batch_size=2, sampler=SubsetRandomSampler(chosen)),
        Subset(Counted(), chosen),
    ):
        stream = stream_of(data, "categorical")
        assert stream.exact_resume
        assert stream.num_total == 5
        assert sorted(rows(stream.batch(0, "weights", 0, 5))) == chosen
        assert rows(stream.subset(9, 0)) == chosen


@pytest.mark.parametrize("num", [N, 3])
def test_a_sampler_that_can_be_read_once_is_refused(num):
    with pytest.raises(DataError, match="range_iterator, which can be read once"):
        stream_of(DataLoader(Counted(), 2, sampler=iter(range(num))), "categorical")


def test_the_sampler_inside_a_batch_sampler_counts():
    def loader(sampler, data):
        return DataLoader(data, batch_sampler=BatchSampler(sampler, 4, False))

    chosen = [1, 4, 9, 16, 22]
    for data in (Counted(), TensorDataset(*images())):
        stream = stream_of(loader(SubsetRandomSampler(chosen), data), "categorical")
        assert stream.exact_resume
        assert (stream.num_total, stream.batch_size) == (5, 4)
        assert sorted(rows(stream.batch(0, "weights", 0, 5))) == chosen
        whole = stream_of(loader(RandomSampler(data), data), "categorical")
        assert (whole.exact_resume, whole.num_total, whole.batch_size) == (True, N, 4)
        assert torch.equal(
            whole.batch(4, "weights", 3, 5).x, stream_of(images(), "categorical").batch(4, "weights", 3, 5).x
        )
    twice = stream_of(loader([3, 1, 3, 2], Counted()), "categorical")
    assert (twice.exact_resume, twice.num_total) == (False, 3)
    shuffled = as_data(loader(RandomSampler(Counted()), Counted()), "categorical")
    assert rows(shuffled) == list(range(N))  # read in the order of the data set


class Batches:
    """A batch sampler of one's own: what `draw` gives, pass by pass."""

    def __init__(self, draw):
        self.draw = draw

    def __iter__(self):
        return iter(self.draw())


def of_ten():
    order = torch.randperm(10)
    return [order[:6], order[4:].tolist()]  # two of them twice, in another order on every pass


def test_a_batch_sampler_of_ones_own_stands_for_the_examples_it_serves():
    state = torch.random.get_rng_state()
    for sampler, n in {Batches(of_ten): 10, Batches(lambda: repeat(list(range(N)))): N}.items():
        stream = stream_of(DataLoader(Counted(), batch_sampler=sampler), "categorical")
        assert not stream.exact_resume
        assert stream.num_total == n
        assert set(rows(stream.batch(0, "weights", 0, n))) <= set(range(n))
    assert torch.equal(torch.random.get_rng_state(), state)
    listed = stream_of(DataLoader(Counted(), batch_sampler=[[5, 3], [8]]), "categorical")
    assert listed.num_total == 3
    assert rows(listed.batch(0, "weights", 0, 3)) == [5, 3, 8]


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ((batch for batch in [[1, 2], [3]]), r"generator, which can be read once.* lists of indices"),
        (Batches(lambda: repeat([0, 1])), r"batch_sampler Batches serves is not known.*Subset\(dataset, indices\)"),
        (Batches(lambda: [torch.randperm(N)[:5]]), "serves others on every pass"),
    ],
)
def test_batch_samplers_whose_examples_cannot_be_counted(sampler, message):
    with pytest.raises(DataError, match=message):
        stream_of(DataLoader(Counted(), batch_sampler=sampler), "categorical")


@pytest.mark.parametrize("data", [Iterated(), DataLoader(Iterated(), batch_size=4)], ids=["dataset", "loader"])
def test_what_is_iterated_comes_in_its_own_order(data):
    stream = stream_of(data, "categorical")
    assert not stream.exact_resume
    assert (stream.num_total, stream.event_shape) == (N, (1, 4, 4))
    assert rows(stream.subset(6, 0)) == list(range(6))  # which stay in the stream
    assert rows(stream.batch(0, "weights", 0, 5)) == [0, 1, 2, 3, 4]
    assert rows(stream.batch(0, "extents", 0, 9)) == list(range(5, 14))
    assert rows(stream.batch(0, "weights", 1, 11)) == [*range(14, 23), 0, 1]


def test_a_sampler_with_replacement_is_iterated():
    weights = [1.0, 1.0] + [0.0] * (N - 2)
    loader = DataLoader(Counted(), batch_size=5, sampler=WeightedRandomSampler(weights, 40))
    state = torch.random.get_rng_state()
    stream = stream_of(loader, "categorical")
    assert not stream.exact_resume
    assert stream.num_total == 2  # the others are never drawn
    assert set(rows(stream.batch(0, "weights", 0, 20))) == {0, 1}
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_seed_iterates_the_same_way():
    def order(seed):
        loader = DataLoader(Counted(), batch_size=5, sampler=WeightedRandomSampler([1.0] * N, N))
        return rows(stream_of(loader, "categorical").batch(seed, "weights", 0, 20))

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_classes_that_are_not_known_yet():
    stream = stream_of(Counted(), "categorical")
    assert stream.num_classes is None
    assert stream.subset(N, 0).num_classes == 3
    stream.num_classes = 5
    assert stream.batch(0, "weights", 0, 4).num_classes == 5
    assert stream_of(images(), "categorical").num_classes == 3
    real = stream_of(Counted(label=float), "gaussian").batch(0, "weights", 0, 4)
    assert real.num_classes is None
    assert tuple(real.y.shape) == (4, 1)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Counted(bad=17), r"batch 0 for weights \(data set indices 17\): x holds 1 value .*not finite"),
        (
            Counted(label=lambda i: 9 if i == 4 else 0),
            r"batch 0 for weights .*label 9 is out of range; expected 0\.\.2",
        ),
        (Counted(label=lambda i: -1), r"label -1 is out of range"),
        (Counted(label=lambda i: 0.5), r"expected integer labels"),
    ],
)
def test_a_bad_batch_is_named(dataset, message):
    with pytest.raises(DataError, match=message):  # some at the first example, which is read at once
        stream = stream_of(dataset, "categorical")
        stream.num_classes = 3
        stream.batch(0, "weights", 0, N)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_bad_batch_of_a_worker_is_named():
    stream = stream_of(Counted(bad=17), "categorical", num_workers=1)
    try:
        with pytest.raises(DataError, match=r"batch 0 for weights \(data set indices 17\)"):
            stream.batch(0, "weights", 0, N)
    finally:
        stream.close()


class Ragged(Counted):
    def __getitem__(self, i):
        return torch.zeros(1, 4, 4 + i % 2), 0


class NoLength(Dataset):
    def __getitem__(self, i):
        return torch.zeros(1, 4, 4), 0


class Triples(Counted):
    def __getitem__(self, i):
        return torch.zeros(1, 4, 4), 0, i


class Empty(Iterated):
    def __iter__(self):
        return iter(())


class Given(Counted):
    """Images with targets, or pictures, as they come in data sets of one's own."""

    def __init__(self, y, x=None):
        super().__init__()
        self.y, self.x = y, torch.zeros(1, 4, 4) if x is None else x

    def __getitem__(self, i):
        return self.x, self.y


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (Given(torch.eye(3)[0]), DataError, r"y\.argmax\(-1\)"),
        (Given(torch.tensor([1])), DataError, "drop the axis"),
        (Given(1.0), DataError, r"use int\(y\)"),
        (Given("cat"), DataError, r"example 0.*y holds text, such as 'cat'.* names\.index\(y\) in the data set"),
        (DataLoader(Given("cat"), batch_size=4), DataError, r"y holds text, such as 'cat'"),
        ([(torch.zeros(1, 4, 4), 1)] * 9, DataError, r"9 pairs \(x, y\), one for each.*torch\.stack"),
        ([(np.zeros((1, 4, 4)), 1)] * 2, DataError, r"2 pairs \(x, y\), one for each"),
        (Given(1, PIL.Image.new("L", (4, 4))), DataError, r"example 0: .*torchvision\.transforms\.ToTensor\(\)"),
        (Ragged(), DataError, r"differ in shape: \(1, 4, 4\), \(1, 4, 5\)"),
        (NoLength(), DataError, "give NoLength a __len__"),
        (Triples(), DataError, r"expected pairs \(x, y\)"),
        (Counted(0), DataError, "empty"),
        (Empty(), DataError, "gave no example"),
        (DataLoader(Counted(), batch_size=None), DataError, "batch_size=None"),
        ((torch.full((3, 1, 4, 4), torch.nan), torch.tensor([0, 1, 1])), DataError, "not finite"),
        (3, TypeError, "expected"),
    ],
)
def test_unusable_data(data, error, message):
    with pytest.raises(error, match=message):
        stream_of(data, "categorical").batch(0, "weights", 0, 5)


def test_text_in_items_that_are_read_at_once():
    for data in (Given("cat"), DataLoader(Given("cat"), batch_size=4)):
        with pytest.raises(DataError, match=r"example 0: y holds text.* names\.index\(y\) in the data set"):
            as_data(data, "categorical")


def test_the_likelihood_and_the_transform_are_checked():
    with pytest.raises(ValueError, match="unknown likelihood 'poisson'"):
        stream_of(images(), "poisson")
    flat = torch.zeros(4, 5)
    for data in ((flat, torch.arange(4) % 2), DataLoader(TensorDataset(flat, torch.arange(4) % 2), collate_fn=list)):
        with pytest.raises(DataError):
            stream_of(data, "categorical", Affine2d(["rotation"]))


def test_a_digest_tells_data_apart():
    x, y = images()
    digest = stream_of((x, y), "categorical").digest()
    assert digest == stream_of((x.clone(), y.clone()), "categorical").digest()
    other = x.clone()
    other[20, 0, 3, 3] += 1e-3
    assert digest != stream_of((other, y), "categorical").digest()
    assert stream_of(Counted(), "categorical").digest() is None


def test_derived_seeds_are_fixed_and_apart():
    assert derive_seed(0, "weights", 3) == 1_202_006_772
    seeds = {derive_seed(s, p, t) for s in range(10) for p in ("weights", "extents") for t in range(100)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**32 for seed in seeds)
