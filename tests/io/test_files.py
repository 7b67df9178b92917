"""Files that appear whole or not at all, and what is left of writes that were killed."""

import fcntl
import inspect
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bayesinv.io import files
from bayesinv.io.files import abandoned, check_writable, clear_abandoned, locked_folder, write_atomically
from bayesinv.posterior import storage

DIGITS = "0123456789abcdef" * 2


def names(folder):
    return sorted(os.listdir(folder))


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "a"
    assert write_atomically(path, b"one") == path
    path.chmod(0o600)
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_atomically(path, b"three", overwrite=False)
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a"]


def test_of_two_writers_that_may_not_overwrite_one_wins(tmp_path, monkeypatch):
    path = tmp_path / "a"
    checked = files.check_writable

    def then_another_writes(*arguments):
        target = checked(*arguments)
        path.write_bytes(b"another's")
        return target

    monkeypatch.setattr(files, "check_writable", then_another_writes)
    with pytest.raises(FileExistsError, match=r"a exists"):
        write_atomically(path, b"ours", overwrite=False)
    assert path.read_bytes() == b"another's"
    assert names(tmp_path) == ["a"]


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links")))
    assert write_atomically(tmp_path / "a", b"one", overwrite=False).read_bytes() == b"one"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["a" * 100, "a" * 101, "a" * 255, "ü" * 120, "a.*[?]"])
def test_every_name_that_the_disk_takes(tmp_path, name):
    write_atomically(tmp_path / name, b"one")
    (tmp_path / f".{files._short(name)}.{DIGITS}.part").write_bytes(b"half")
    write_atomically(tmp_path / name, b"two")
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("other", [(), (None, ".other")])
@pytest.mark.parametrize(("number", "kind"), [(28, OSError), (13, PermissionError)])
def test_errors_name_the_file_that_was_given(tmp_path, monkeypatch, number, kind, other):
    def refuse(*_):
        raise OSError(number, "refused", ".part", *other)

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(OSError, match="refused") as caught:
        write_atomically(tmp_path / "a", b"one")
    assert type(caught.value) is kind
    assert str(caught.value) == f"[Errno {number}] refused: '{tmp_path / 'a'}'"
    assert names(tmp_path) == []


def test_links_are_written_through(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("there", "dangling"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "disk" / "there").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "there", b"new", overwrite=False)
    write_atomically(tmp_path / "there", b"new")
    write_atomically(tmp_path / "dangling", b"new", overwrite=False)
    for name in ("there", "dangling"):
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "disk" / name).read_bytes() == b"new"
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(FileExistsError, match="never replaced"):
        check_writable(tmp_path / "circle", overwrite=True)


def test_devices_and_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(FileExistsError, match="never replaced"):
            write_atomically(path, b"new")
    with pytest.raises(IsADirectoryError, match="name of a file"):
        write_atomically(tmp_path, b"new")


def test_only_our_own_and_only_dead_parts_are_cleared(tmp_path):
    ours = tmp_path / f".run.{DIGITS}.part"
    live = tmp_path / f".run.{DIGITS[::-1]}.part"
    others = [f".run.augerino.{DIGITS}.part", ".run.my download.part", f".run2.{DIGITS}.part", f".run.{DIGITS}.part~"]
    for path in (ours, live, *(tmp_path / name for name in others)):
        path.write_bytes(b"half")
    folder = tmp_path / f".run.{'f' * 32}.part"
    folder.mkdir()
    with live.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        clear_abandoned(tmp_path / "run")
    assert names(tmp_path) == sorted([live.name, folder.name, *others])
    clear_abandoned(tmp_path / "run", folders=True)
    assert names(tmp_path) == sorted([live.name, *others])


def test_a_part_that_is_taken_before_it_is_locked_is_written_again(tmp_path, monkeypatch):
    lock = files._lock
    taken = []

    def slow(handle):
        if not taken:
            taken.extend(tmp_path.glob(".a.*.part"))
            taken[0].unlink()
        lock(handle)

    monkeypatch.setattr(files, "_lock", slow)
    write_atomically(tmp_path / "a", b"whole")
    assert len(taken) == 1
    assert names(tmp_path) == ["a"]


def test_a_folder_in_the_making_is_not_abandoned(tmp_path):
    with locked_folder(tmp_path / "run") as part:
        with abandoned(tmp_path / "run", folders=True) as parts:
            assert parts == []
        assert part.is_dir()
    assert names(tmp_path) == []


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_and_leave_nothing():
    script = Path(__file__).parents[1] / "benchmarks" / "kill_while_writing.py"
    finished = subprocess.run([sys.executable, script, "--kills", "30"], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.count("nothing lost, nothing left") == 3


def test_only_files_of_the_kind_are_replaced(tmp_path):
    ours = re.compile(rb"index,")
    path = tmp_path / "table.csv"
    path.write_bytes(b"my own measurements")
    with pytest.raises(FileExistsError, match="something else than bayesinv would write"):
        check_writable(path, overwrite=True, ours=ours)
    for content in (b"index,predicted\n", b""):  # one of ours, and a name that mkstemp has reserved
        path.write_bytes(content)
        assert check_writable(path, overwrite=True, ours=ours) == path


@pytest.mark.parametrize("path", [5, None, b"a"])
def test_what_is_no_name_of_a_file(path):
    for call in map(inspect.unwrap, (check_writable, storage.save, storage.read)):  # without the types of the tests
        arguments = (None, path) if call.__name__ == "save" else (path,)
        with pytest.raises(TypeError, match="path: expected the name of a file"):
            call(*arguments)
