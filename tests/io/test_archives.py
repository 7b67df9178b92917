"""Arrays that come back from a file, and files that ask for more memory than they may."""

import io
import zipfile

import numpy as np
import pytest

from bayesinv.errors import SavedFileError
from bayesinv.io import archives
from bayesinv.io.archives import pack, unpack


def test_arrays_come_back(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "state/b": np.array(3), "c": np.array([True])}
    (tmp_path / "file").write_bytes(pack(arrays))
    back = unpack(tmp_path / "file", "posterior")
    assert list(back) == list(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(back[name], value)


def test_a_small_file_that_would_unpack_to_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w", zipfile.ZIP_DEFLATED) as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(10**7))
        archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(SavedFileError, match="would unpack to 80,000,128"):
        unpack(tmp_path / "file", "posterior")


def test_what_compresses_as_well_as_a_trap_is_packed_so_that_it_opens(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_FREE", 10**6)
    (tmp_path / "file").write_bytes(pack({"a": np.zeros(10**6)}))
    assert (tmp_path / "file").stat().st_size > 8 * 10**6
    assert unpack(tmp_path / "file", "posterior")["a"].shape == (10**6,)


@pytest.mark.parametrize("free", [0, 10**5])
@pytest.mark.parametrize("num", [1, 50, 780, 781, 1000])
def test_headers_count_when_packing_as_when_unpacking(tmp_path, monkeypatch, free, num):
    monkeypatch.setattr(archives, "_FREE", free)
    arrays = {f"{i}": np.zeros(0 if free else 3000) for i in range(num)}
    (tmp_path / "file").write_bytes(pack(arrays))
    assert len(unpack(tmp_path / "file", "posterior")) == num


@pytest.mark.parametrize("value", [np.array(["text"]), np.empty(3, dtype="V0")])
def test_other_than_numbers_is_refused(tmp_path, value):
    (tmp_path / "file").write_bytes(pack({"a": value}))
    with pytest.raises(SavedFileError, match="no array of numbers"):
        unpack(tmp_path / "file", "posterior")


def test_an_array_whose_header_names_more_than_there_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
        archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(SavedFileError, match="damaged"):
        unpack(tmp_path / "file", "posterior")
