"""Arrays in one .npz file: packed so that the file opens again, and unpacked within limits."""

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bayesinv.errors import SavedFileError

__all__ = ["OURS", "pack", "unpack"]

OURS = re.compile(rb"PK.{28}header\.npy", re.DOTALL)  # how a zip begins whose first entry is a header

# What a file may unpack to: 64 MiB, or 200 bytes for each of its own. Deflate brings real data to a twentieth and
# zeros to a thousandth, so that a file of a megabyte could ask for a gigabyte.
_FREE = 2**26
_RATIO = 200
_KINDS = "?biufc"  # Booleans, integers, real and complex numbers


def pack(arrays: Mapping[str, np.ndarray]) -> memoryview:
    """The bytes of an .npz file, compressed unless `unpack` would take the result for a trap.

    Example:
        >>> bytes(pack({"a": np.zeros(3)})[:2])
        b'PK'
    """
    unpacked = sum(array.nbytes for array in arrays.values())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    if unpacked > max(_FREE, _RATIO * buffer.tell() // 2):  # by half, as names and headers count too
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getbuffer()


def unpack(path: Path, what: str) -> dict[str, np.ndarray]:
    """The arrays of a file that `pack` made. No code in it is run, and sizes are checked before memory is taken.

    Args:
        path: the file.
        what: it should hold, for the message.

    Raises:
        SavedFileError: the file is damaged or holds something else, or it would unpack to more than any data do.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > max(_FREE, _RATIO * path.stat().st_size):
                raise SavedFileError(
                    f"{path} has {path.stat().st_size:,} bytes and would unpack to {size:,}, which no {what} does: it "
                    "is damaged or a trap; get the file from where it was saved"
                )
            damaged = archive.testzip()  # every checksum, however much numpy reads of an entry
            if damaged is not None:
                raise SavedFileError(f"{path} is damaged: the checksum of {damaged!r} is wrong")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        for name, value in arrays.items():  # numpy hands over as bytes what is not one of its own
            if not isinstance(value, np.ndarray) or value.dtype.kind not in _KINDS:
                raise SavedFileError(f"{path} is not a {what} saved by bayesinv: {name!r} is no array of numbers")
        return arrays
    except SavedFileError:
        raise
    # A damaged zip fails in as many ways as it has fields: offsets, sizes, flags, methods, the deflate stream.
    except Exception as error:
        raise SavedFileError(f"{path} is not a {what} saved by bayesinv, or it is damaged: {error}") from error
