"""Arrays in one .npz file: packed so that the file opens again, and unpacked within limits."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bayesinv.errors import SavedFileError

__all__ = ["pack", "unpack"]


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
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    with zipfile.ZipFile(buffer) as archive:
        opens = _unpacked(archive) <= _largest(buffer.getbuffer().nbytes)
    if not opens:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getbuffer()


def _unpacked(archive: zipfile.ZipFile) -> int:
    """Bytes that all entries say they hold, with the headers of their arrays."""
    return sum(entry.file_size for entry in archive.infolist())


def _largest(num_bytes: int) -> int:
    """What a file of so many bytes may unpack to."""
    return max(_FREE, _RATIO * num_bytes)


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
            size = _unpacked(archive)
            if size > _largest(path.stat().st_size):
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
        other = "; for an augmentation use bayesinv.export.load(path)" if path.suffix == ".safetensors" else ""
        raise SavedFileError(f"{path} is not a {what} saved by bayesinv, or it is damaged: {error}{other}") from error
