"""Arrays as NumPy means them, however they lie in memory; what has no values is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from bayesinv.data.arrays import as_tensor
from bayesinv.errors import DataError

VALUES = np.arange(24.0).reshape(2, 3, 4)


def on_disk(tmp_path, mode):
    path = tmp_path / "x.dat"
    VALUES.tofile(path)
    return np.memmap(path, VALUES.dtype, mode, shape=VALUES.shape)


@pytest.mark.parametrize(
    "array",
    [
        VALUES.astype(">f8"),
        VALUES[::-1, :, ::-1].copy()[::-1, :, ::-1],
        np.asfortranarray(VALUES),
        VALUES.astype(np.longdouble),
        np.ma.masked_less(VALUES, -1.0),
        VALUES.tolist(),
        list(VALUES),
        [torch.from_numpy(row) for row in VALUES],
        [torch.from_numpy(row).requires_grad_() for row in VALUES],
        np.rec.fromarrays([VALUES, VALUES.astype(np.int8)], names="x, flag").x,
        VALUES.astype(np.float16),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_values_are_those_of_numpy(array):
    tensor = as_tensor(array, "x")
    assert torch.equal(tensor.double(), torch.from_numpy(VALUES))
    assert not tensor.requires_grad


def test_memory_maps(tmp_path):
    for mode in ("r", "c", "r+"):
        assert torch.equal(as_tensor(on_disk(tmp_path, mode), "x"), torch.from_numpy(VALUES))


def test_axes_of_length_one_may_have_any_stride():
    reversed_one = VALUES[:1][::-1]  # contiguous by NumPy's flags, with a negative stride
    assert reversed_one.strides[0] < 0
    assert reversed_one.flags.c_contiguous
    assert torch.equal(as_tensor(reversed_one, "x"), torch.from_numpy(VALUES[:1]))


def test_tables_of_pandas():
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4]})
    assert as_tensor(table, "x").tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert as_tensor(pd.Series([1, 0], dtype="Int64"), "y").tolist() == [1, 0]
    assert as_tensor(pd.Series([1, None], dtype="Int64"), "y").isnan().tolist() == [False, True]


def test_inference_tensors_become_ordinary_ones():
    with torch.inference_mode():
        x = torch.ones(3)
    weight = torch.ones(3, requires_grad=True)
    (weight * as_tensor(x, "x")).sum().backward()
    assert weight.grad.tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ma.masked_greater(VALUES, 22.0), r"1 masked value, the first at index \(1, 2, 3\); .* x\.filled\(0\)"),
        ([np.ma.masked_greater(row, 21.0) for row in VALUES], r"2 masked values, the first at index \(1, 2, 2\)"),
        ([[np.ma.masked_greater(row, 22.0) for row in block] for block in VALUES], r"1 masked value, .*\(1, 2, 3\)"),
        ([[1.0, 2.0], [np.ma.masked, 3.0]], r"1 masked value, the first at index \(1, 0\)"),
        (np.array([1.0, 2.0], dtype=object), r"Python objects, such as one of type float; .*\.astype\(float\)"),
        (np.array(["cat", "dog"]), r"text, such as 'cat'; .*names\.index"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "dtype datetime64"),
        (np.zeros(2, dtype=[("a", float)]), "expected real numbers"),
        ([torch.zeros(2), torch.zeros(3)], r"shapes \(2,\), \(3,\); expected one"),
        ([[1.0], [1.0, 2.0]], "rectangular"),
        (torch.zeros(2, device="meta"), "meta"),
        (torch.zeros(2).to_sparse(), "sparse"),
        (torch.zeros(2, dtype=torch.complex64), "complex"),
        ({"a": 1}, "Python objects, such as one of type dict"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_values_is_refused(values, message):
    with pytest.raises(DataError, match=message):
        as_tensor(values, "x")


def test_the_column_of_a_table_that_is_not_numbers_is_named():
    table = pd.DataFrame({"a": [1.0, 2.0], "name": ["v", "w"], "mixed": pd.Series([3, "x"], dtype=object)})
    with pytest.raises(DataError, match=r"column 'name' of x holds text, such as 'v'.*get_dummies"):
        as_tensor(table, "x")
    with pytest.raises(DataError, match="column 'mixed' of x holds text, such as 'x'"):
        as_tensor(table[["a", "mixed"]], "x")
    table["day"] = pd.date_range("2020", periods=2)
    with pytest.raises(DataError, match="column 'day' of x has dtype datetime64"):
        as_tensor(table[["a", "day"]], "x")
    assert as_tensor(table[["a"]], "x").shape == (2, 1)


def test_nothing_is_read_where_tensors_hold_no_values():
    with torch.device("meta"), pytest.raises(DataError, match="leave that block"):
        as_tensor([1.0], "x")


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors:UserWarning")
def test_masked_tensors_are_refused():
    values = torch.masked.masked_tensor(torch.ones(2), torch.tensor([True, False]))
    for given in (values, [values, values]):
        with pytest.raises(DataError, match=r"MaskedTensor; .*x\.to_tensor\(0\)"):
            as_tensor(given, "x")
