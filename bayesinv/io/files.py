"""One writer of files that appear whole or not at all; it deletes nothing that another run or somebody else made.

What is written goes into a temporary file beside the final one, ``.NAME.<32 hexadecimal digits>.part``, and takes its
name once it is complete. The writer holds a lock on it meanwhile, which the system gives back however the process
ends: a part without a lock was left by a process that was killed, and the next write to the same name deletes it.
"""

import contextlib
import hashlib
import os
import re
import shutil
import stat
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

__all__ = ["abandoned", "as_path", "check_writable", "clear_abandoned", "locked", "locked_folder", "write_atomically"]

# Bytes of a name that its temporary file repeats; longer ones would not fit into the 143 (eCryptfs) or 255 bytes of a
# name with the 39 that are added, and are named by a checksum.
_LONGEST_NAME = 100
_FIRST_BYTES = 1024  # in which a file says what it is


def as_path(path: Any) -> Path:
    """The name of a file as a path.

    Raises:
        TypeError: something else.

    Example:
        >>> as_path(5)
        Traceback (most recent call last):
        TypeError: path: expected the name of a file, as text or a pathlib.Path, got 5
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected the name of a file, as text or a pathlib.Path, got {path!r}")
    return Path(path)


def check_writable(path: Any, overwrite: bool = False, ours: re.Pattern[bytes] | None = None) -> Path:
    """The file that a write to `path` makes or replaces: that behind a link, or the path itself.

    Args:
        path: the name; its folder must exist.
        overwrite: whether an existing file may be replaced.
        ours: how the files of this kind that bayesinv writes begin; no other is replaced, unless it is empty.

    Raises:
        FileExistsError: the file exists and `overwrite` is False; or it is a file of something else, a device, a pipe
            or a link in a circle, which are never replaced.
        FileNotFoundError: the folder does not exist. IsADirectoryError: the path is a folder. TypeError: it is none.

    Example:
        >>> check_writable("no/such/folder/a.npz")
        Traceback (most recent call last):
        FileNotFoundError: the folder no/such/folder does not exist; create it first
    """
    path = as_path(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file, such as {path / 'NAME'}")
    if (path.exists() and not path.is_file()) or target.is_symlink():
        raise FileExistsError(f"{path} is a device, a pipe or a broken link, never replaced; give the name of a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or pass overwrite=True")
    if ours is not None and path.exists() and not _begins(path, ours):
        raise FileExistsError(
            f"{path} holds something else than bayesinv would write there, and is not replaced; choose another name, "
            "or delete the file first"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist; create it first")
    return target


def _begins(path: Path, ours: re.Pattern[bytes]) -> bool:
    with open(path, "rb") as file:
        first = file.read(_FIRST_BYTES)
    return not first or ours.match(first) is not None


def write_atomically(path: str | os.PathLike[str], content: bytes | memoryview, overwrite: bool = True) -> Path:
    """Write a file; a reader, a power cut or a kill at any moment sees the old content or the new one.

    Links are written through, and an existing file keeps its permissions.

    Args:
        path: the name; its folder must exist.
        content: what the file is to hold.
        overwrite: whether an existing file may be replaced; checked again at the moment of writing.

    Returns:
        The path.

    Raises:
        OSError: as :func:`check_writable`, or the disk refuses, with the name that was given.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "a", b"whole").read_bytes()
        b'whole'
    """
    path = Path(path)
    target = check_writable(path, overwrite)
    try:
        clear_abandoned(target)
        _replace(target, content, overwrite)
    except FileExistsError:
        raise FileExistsError(f"{path} exists; choose another name or pass overwrite=True") from None
    except OSError as error:
        if error.errno is None:
            raise
        # Names the file that was asked for, not the temporary one; a second name cannot be taken back.
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path


def _replace(target: Path, content: bytes | memoryview, overwrite: bool) -> None:
    while True:
        part = _part_of(target)
        try:
            with open(part, "xb") as file:
                _lock(file.fileno())
                if not part.exists():  # somebody took it for abandoned in the moment before it was locked
                    continue
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                if target.exists() and sys.platform != "win32":
                    os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
                if sys.platform != "win32":  # under the lock
                    _rename(part, target, overwrite)
            if sys.platform == "win32":  # no open file can be renamed there, nor deleted by another process
                _rename(part, target, overwrite)
            return
        finally:
            part.unlink(missing_ok=True)


def _rename(part: Path, target: Path, overwrite: bool) -> None:
    if not overwrite:  # a rename replaces what another process has put there since the check; a link refuses
        try:
            os.link(part, target)
            return
        except FileExistsError:
            raise
        except OSError:  # file systems without hard links
            pass
    os.replace(part, target)


@contextlib.contextmanager
def locked_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, to be filled and renamed within the block; deleted if it is still there after."""
    clear_abandoned(target, folders=True)
    part = _part_of(target)
    part.mkdir()
    with locked(part):
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder from counting as abandoned, under whatever name."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def clear_abandoned(target: Path, folders: bool = False) -> None:
    """Delete what a killed process left of writes to `target`: its temporary files, or its temporary folders."""
    with abandoned(target, folders) as parts:
        for part in parts:
            if folders:
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def abandoned(target: Path, folders: bool = False, suffix: str = "part") -> Iterator[list[Path]]:
    """Temporary files (or folders) of writes to `target` whose process no longer runs; locked within the block."""
    pattern = re.compile(rf"\.{re.escape(_short(target.name))}\.[0-9a-f]{{32}}\.{suffix}")
    parts, handles = [], []
    try:
        with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
            for entry in entries:
                right = entry.is_dir(follow_symlinks=False) if folders else entry.is_file(follow_symlinks=False)
                if pattern.fullmatch(entry.name) and right and sys.platform != "win32":
                    with contextlib.suppress(OSError):  # of another user
                        handles.append(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW))
                        fcntl.flock(handles[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                        parts.append(Path(entry.path))
        yield parts
    finally:
        for handle in handles:
            os.close(handle)


def _lock(handle: int) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # a file system without locks: then nothing there counts as abandoned
            fcntl.flock(handle, fcntl.LOCK_EX)


def _part_of(target: Path) -> Path:
    return target.with_name(f".{_short(target.name)}.{uuid.uuid4().hex}.part")


def _short(name: str) -> str:
    """The name, or for a long one a checksum of it."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST_NAME else hashlib.blake2b(encoded, digest_size=16).hexdigest()
