"""Tables from files."""

import numpy as np
import pandas as pd
import pytest

from bayesinv.datasets import load_table
from bayesinv.errors import DataError

TABLE = pd.DataFrame(
    {"acid": [0.1, 0.3, 0.2], "sugar": [2, 1, 4], "kind": ["red", "white", "red"], "price": [5, 7, 6.5]}
)


@pytest.fixture(params=["csv", "tsv", "parquet"])
def file(request, tmp_path):
    path = tmp_path / f"wine.{request.param}"
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
        TABLE.to_parquet(path)
    else:
        TABLE.to_csv(path, index=False, sep="\t" if request.param == "tsv" else ",")
    return path


def test_text_is_classes_and_numbers_are_targets(file):
    rows = load_table(file, "kind", columns=["sugar", "acid"])
    assert rows.x.tolist() == [[2, 0.1], [1, 0.3], [4, 0.2]]
    assert (rows.y.tolist(), rows.classes, rows.columns) == ([0, 1, 0], ("red", "white"), ("sugar", "acid"))
    prices = load_table(file, "price", columns=["acid"])
    assert (prices.y.tolist(), prices.classes) == ([5, 7, 6.5], ())
    assert load_table(file, columns=["acid"]).y is None


def test_whole_numbers_are_classes_unless_told(file):
    assert load_table(file, "sugar", columns=["acid"]).classes == ("1", "2", "4")
    assert load_table(file, "sugar", columns=["acid"], labels=False).y.dtype == np.float64


def test_what_cannot_be_used_is_named(file, tmp_path):
    with pytest.raises(DataError, match="kind hold text"):
        load_table(file, "price")
    with pytest.raises(DataError, match=r"no column colour; it has acid, sugar"):
        load_table(file, "colour")
    holes = tmp_path / "holes.csv"
    TABLE.assign(acid=[0.1, None, 0.2]).to_csv(holes, index=False)
    with pytest.raises(DataError, match="acid have missing values"):
        load_table(holes, "price", columns=["acid"])
    with pytest.raises(DataError, match="no file"):
        load_table(tmp_path / "none.csv")
    twice = tmp_path / "damaged.parquet"
    twice.write_bytes(b"no parquet")
    with pytest.raises((DataError, ImportError)):
        load_table(twice)
