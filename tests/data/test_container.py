"""Everything that may come in as data, and every way in which it may be wrong."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import bayesinv.data.container
import bayesinv.data.streams
from bayesinv.data.container import Data, as_data, as_inputs
from bayesinv.errors import DataError, DataWarning
from bayesinv.transforms import Affine2d
from tests.fakes import Listed

NUM = 6
X = torch.rand(NUM, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


class Pairs(Dataset):
    """A map-style data set that is not a TensorDataset and does not stop when iterated over."""

    def __len__(self):
        return NUM

    def __getitem__(self, index):
        return X[index % NUM], int(Y[index % NUM])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


@pytest.mark.parametrize(
    "given_as",
    [
        (X, Y),
        [X, Y],
        (X.numpy(), Y.numpy()),
        (X.tolist(), Y.tolist()),
        (X.numpy(), Y.numpy().astype(np.uint8)),
        (X.numpy(), Y.numpy().astype(np.uint64)),
        (X.numpy(), pd.Series(Y.numpy())),
        Data(X, Y, 3),
        TensorDataset(X, Y),
        Pairs(),
        Stream(),
        DataLoader(TensorDataset(X, Y), batch_size=4),
        DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True),
        DataLoader(Pairs(), batch_size=4, shuffle=True, drop_last=True),
        DataLoader(Stream(), batch_size=4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_data_gives_the_same(given_as):
    state = torch.random.get_rng_state()
    data = as_data(given_as, "categorical", Affine2d())
    assert torch.equal(data.x, X)
    assert torch.equal(data.y, Y)
    assert data.y.dtype == torch.int64
    assert data.num_classes == 3
    assert torch.equal(torch.random.get_rng_state(), state)


def test_arrays_that_torch_cannot_share_are_copied():
    reversed_rows = X.numpy()[::-1]
    big_endian = X.numpy().astype(">f4")
    frozen = X.numpy().copy()
    frozen.flags.writeable = False
    assert torch.equal(as_inputs(reversed_rows), X.flip(0))
    assert torch.equal(as_inputs(big_endian), X)
    assert torch.equal(as_inputs(frozen), X)


def test_gradient_history_is_left_behind_and_half_precision_widened():
    assert not as_inputs(X.clone().requires_grad_()).requires_grad
    assert as_inputs(X.half()).dtype == torch.float32
    assert as_inputs(X.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("y", "shape", "dtype"),
    [
        (torch.rand(NUM), (NUM, 1), torch.float32),
        (torch.rand(NUM, 2, dtype=torch.float64), (NUM, 2), torch.float64),
        (np.arange(NUM), (NUM, 1), torch.float64),
        (torch.rand(NUM).half(), (NUM, 1), torch.float32),
    ],
)
def test_real_targets(y, shape, dtype):
    data = as_data((X, y), "gaussian")
    assert data.y.shape == shape
    assert data.y.dtype == dtype
    assert data.num_classes is None
    assert data.num_outputs == shape[1]


def test_inputs_without_targets():
    for given_as in (X, X.numpy(), (X, Y), Data(X, Y, 3), TensorDataset(X, Y)):
        data = as_data(given_as, "categorical", require_y=False)
        assert torch.equal(data.x, X)
        assert data.y.shape == (NUM, 0)


def with_value(value, *index):
    x = X.clone()
    x[index] = value
    return x


BAD_INPUTS = {
    "NaN": (with_value(float("nan"), 2, 0, 3, 4), r"1 value that is not finite \(1 NaN"),
    "the first index": (with_value(float("nan"), 2, 0, 3, 4), r"index \(2, 0, 3, 4\)"),
    "infinity": (with_value(float("-inf"), 5, 0), r"64 values .* \(0 NaN, 64 infinite\)"),
    "integer images": ((255 * X).to(torch.uint8), r"uint8; expected floating point.*x / 255"),
    "boolean images": (X > 0.5, "bool; expected floating point"),
    "no channels": (X[:, 0], "batch|rank|shape|channels"),
    "one image": (X[0], "batch|rank|shape|channels"),
    "one value each": (X[:, 0, 0, 0], "expected .n, ...., a batch"),
    "a number": (torch.tensor(1.0), "empty"),
    "no examples": (X[:0], "empty"),
    "no pixels": (X[..., :0], "empty"),
    "complex": (X.to(torch.complex64), "complex"),
    "complex array": (X.numpy().astype(complex), "real numbers"),
    "text": (np.array(["a", "b"]), "text"),
    "objects": (np.array([object()]), "Python objects"),
    "ragged": ([[1.0], [1.0, 2.0]], "rectangular"),
    "None": (None, "None|Python objects"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_inputs(name):
    x, message = BAD_INPUTS[name]
    with pytest.raises(DataError, match=message):
        as_inputs(x, Affine2d())
    with pytest.raises(DataError, match=message):
        as_data((x, Y), "categorical", Affine2d())


BAD_LABELS = {
    "shorter": (Y[:5], r"x holds 6 examples and y 5; expected one target for each"),
    "longer": (torch.cat([Y, Y]), "x holds 6 examples and y 12"),
    "negative": (Y - 1, r"2 negative labels, the first -1 at index 0; expected 0..C-1"),
    "gap": (torch.tensor([3, 7, 3, 7, 3, 7]), r"labels \{3, 7\} .* Map them .* num_classes"),
    "one-based": (Y + 1, r"labels \{1, 2, 3\}"),
    "huge": (Y * 10**12, "not 0..C-1"),
    "one class": (torch.zeros(NUM, dtype=torch.int64), "every label is 0; expected at least 2"),
    "one class, not 0": (torch.full((NUM,), 7), "every label is 7; expected at least 2"),
    "fractions": (Y + 0.5, r"float32 \(0.5 at index 0\); expected integer labels"),
    "floats": (Y.double(), r"float64 \(whole numbers\); expected integer labels.*astype"),
    "NaN": (torch.full((NUM,), float("nan")), "y holds 6 values that are not finite"),
    "one-hot": (torch.eye(3)[Y], r"\(6, 3\); expected labels of shape \(n,\).*argmax"),
    "column": (Y[:, None], r"\(6, 1\); expected labels of shape"),
    "a number": (torch.tensor(1), r"\(\); expected labels"),
    "names and numbers": (["a", "b", "a", "b", "a", 7], "y holds 7; expected the name of a class for each example"),
    "names of two axes": (np.array(list("abcabc"))[:, None], r"\(6, 1\); expected labels of shape"),
    "one name": (["a"] * NUM, "every label is 0; expected at least 2"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_bad_labels(name):
    y, message = BAD_LABELS[name]
    with pytest.raises(DataError, match=message):
        as_data((X, y), "categorical")


BAD_TARGETS = {
    "NaN": (with_value(float("nan"), 1)[:, 0, 0, 0], r"y holds 1 value .* index \(1,\)"),
    "booleans": (Y > 1, "booleans"),
    "rank": (X, r"\(n,\) or \(n, outputs\)"),
    "no outputs": (X.new_empty(NUM, 0), r"\(n,\) or \(n, outputs\)"),
    "shorter": (Y[:2], "6 examples and y 2"),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_bad_targets(name):
    y, message = BAD_TARGETS[name]
    with pytest.raises(DataError, match=message):
        as_data((X, y), "gaussian")


def test_a_stated_number_of_classes():
    sparse = torch.tensor([0, 3, 0, 3, 0, 3])
    assert as_data(Data(X, sparse, 10), "categorical").num_classes == 10
    assert as_data((X, sparse), "categorical", num_classes=4).num_classes == 4
    with pytest.raises(DataError, match=r"label 3 at index 1 is out of range; expected 0\.\.2"):
        as_data(Data(X, sparse, 3), "categorical")
    with pytest.raises(DataError, match="at least 2 classes"):
        as_data(Data(X, torch.zeros_like(Y), 10), "categorical")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((X,), DataError, "1 parts; expected two"),
        ((X, Y, Y), DataError, "3 parts; expected two"),
        ((X, None), DataError, "None"),
        (X, TypeError, "of type Tensor; expected"),
        ({"x": X}, TypeError, "of type dict"),
        (TensorDataset(X), DataError, r"example 0 is of type tuple of 1 parts; expected a pair"),
        (TensorDataset(X[:0], Y[:0]), DataError, "empty"),
        ([(X[0], 1), (X[0, :, :4], 1), (X[0], 0)], DataError, "list of 3 pairs"),
        (DataLoader([(X[:2, 0], 1), (X[:3, 0], 0)], batch_size=None), DataError, "batch_size=None"),
    ],
    ids=["alone", "triple", "no targets", "tensor", "dict", "no labels", "empty", "list", "no batches"],
)
def test_data_of_an_unknown_kind(data, error, message):
    with pytest.raises(error, match=message):
        as_data(data, "categorical")


def test_unknown_likelihood():
    with pytest.raises(ValueError, match="'poisson'; known: categorical, bernoulli, gaussian"):
        as_data((X, Y), "poisson")


def test_names_of_columns_are_kept():
    frame = pd.DataFrame({"height": [1.7, 1.8, 1.6], 3: [70.0, 80.0, 60.0]})
    for data in (Data(frame, [0, 1, 1], 2), as_data((frame, [0, 1, 1]), "categorical")):
        assert data.columns == ("height", "3")
        assert data.subset([0, 2]).to(dtype=torch.float32).columns == ("height", "3")
        assert as_data(data, "categorical").columns == ("height", "3")
    assert as_data((frame, [0.0, 1.0, 2.0]), "gaussian").columns == ("height", "3")
    assert as_data((frame.to_numpy(), [0, 1, 1]), "categorical").columns is None


def test_container():
    data = Data(X, Y, 3)
    assert len(data) == NUM
    assert data.event_shape == (1, 8, 8)
    assert data.num_outputs == 3
    double = data.to(dtype=torch.float64)
    assert (double.x.dtype, double.y.dtype) == (torch.float64, torch.int64)
    assert Data(X, X[:, 0, 0]).to(dtype=torch.float64).y.dtype == torch.float64
    assert torch.equal(data.subset(slice(2, 4)).y, Y[2:4])
    assert torch.equal(data.subset(Y == 1).x, X[Y == 1])
    assert data.subset([0]).num_classes == 3
    with pytest.raises(DataError, match="6 examples and y 2"):
        Data(X, Y[:2])
    with pytest.raises(AttributeError):
        data.x = X


@given(st.lists(st.integers(0, 4), min_size=2, max_size=12).filter(lambda v: len(set(v)) > 1))
def test_mapping_labels_as_the_message_says_is_accepted(labels):
    x = np.zeros((len(labels), 2))
    mapped = np.unique(labels, return_inverse=True)[1]
    data = as_data((x, mapped), "categorical")
    assert data.num_classes == len(set(labels))


@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist, pd.Series, lambda y: torch.tensor(y).int()])
def test_the_container_takes_arrays(kind):
    x, y = np.random.rand(4, 1, 3, 3).astype(np.float32), np.array([0, 1, 1, 0])
    data = Data(x, kind(y), num_classes=2)
    assert data.y.dtype == torch.int64 and data.y.tolist() == [0, 1, 1, 0]
    assert torch.equal(as_data(data, "categorical").x, torch.from_numpy(x))


@pytest.mark.parametrize(("x", "y"), [(np.zeros((2, 2)), None), (np.array([["a"], ["b"]]), [0, 1]), ([[1.0]], 3)])
def test_the_container_takes_numbers_alone(x, y):
    with pytest.raises(DataError, match="expected"):
        Data(x, y)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16])
def test_few_bytes_become_four(dtype):
    x, y = torch.tensor([[0.5], [1.0], [2.0]]), torch.tensor([1.0, 2.0, 3.0])
    data = as_data((x.to(dtype), y.to(dtype)), "gaussian")
    assert data.x.dtype == data.y.dtype == torch.float32
    assert torch.equal(data.x, x) and torch.equal(data.y[:, 0], y)


@pytest.mark.parametrize("read", [as_data, bayesinv.data.streams.stream_of], ids=["whole", "in batches"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_offset_that_half_precision_has_rounded_is_named(read, dtype):
    x, y = torch.rand(8, 3), 10 * torch.arange(8.0).cos()
    with pytest.warns(DataWarning, match=f"^y is {str(dtype)[6:]} and lies near 1e"):
        read((x, (y + 1000).to(dtype)), "gaussian")
    with pytest.warns(DataWarning, match="^x is float16 and lies near 1e"):
        read(((x + 1000).half(), torch.arange(8) % 2), "categorical")
    read((x.to(dtype), y.to(dtype)), "gaussian")


def test_a_stream_names_what_was_rounded_once():
    items = [((1000 + torch.rand(3)).half(), i % 2) for i in range(40)]
    stream = bayesinv.data.streams.stream_of(Listed(items), "categorical")
    with pytest.warns(DataWarning, match="x is float16") as seen:
        for step in range(3):
            stream.batch(0, "weights", step, 8)
    assert len(seen) == 1


def test_public_names():
    assert set(bayesinv.data.__all__) == {"LIKELIHOODS", "Data", "as_data", "as_inputs"}


@pytest.mark.parametrize("unit", [1e-25, 1e-42])
def test_units_in_which_all_numbers_vanish(unit):
    x, y = torch.rand(6, 2) + 1, torch.arange(6.0)
    with pytest.raises(DataError, match=r"y reaches .*e-\d\d in this unit; .* y / abs\(y\)\.max\(\)"):
        as_data((x, unit * y), "gaussian")
    with pytest.raises(DataError, match="x reaches"):
        as_data((unit * x, y), "gaussian")
    as_data((0 * x, 0 * y), "gaussian")
    as_inputs(1e-25 * x)  # to predict at
