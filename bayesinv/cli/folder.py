"""Output folders that appear whole or not at all, and say what wrote them."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bayesinv.cli.inputs import Reading
from bayesinv.cli.networks import load_network
from bayesinv.errors import SavedFileError
from bayesinv.io.files import abandoned, locked, locked_folder
from bayesinv.posterior.invariance_posterior import InvariancePosterior, load
from bayesinv.posterior.storage import POSTERIOR_FILE

FORMAT = "bayesinv output folder"
FORMAT_VERSION = 1
RUN_FILE = "run.json"


@contextmanager
def output_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes its name only once the block has ended without an error.

    Args:
        path: the name it gets; its parent must exist.
        overwrite: replace a folder that bayesinv wrote before (or an empty one), never another.

    Yields:
        A new folder beside `path`.

    Raises:
        FileExistsError: `path` exists and may not be replaced.
        FileNotFoundError: the parent does not exist.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with output_folder(pathlib.Path(parent) / "run") as folder:
        ...         write_run(folder, "fit", {"reading": {}, "classes": []})
        ...     read_run(pathlib.Path(parent) / "run")["command"]
        'fit'
    """
    path = Path(path).resolve()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; create it first")
    _put_back(path)
    if path.exists():
        _check_replaceable(path, overwrite)
    with locked_folder(path) as part:
        yield part
        if not path.exists():
            part.rename(path)
            return
        _check_replaceable(path, overwrite)
        old = part.with_suffix(".old")
        with locked(path):
            path.rename(old)
            try:
                part.rename(path)
            except OSError:
                old.rename(path)
                raise
            shutil.rmtree(old)


@contextmanager
def goes_on_from(folder: Path) -> Iterator[Path]:
    """The checkpoint beside an output folder: deleted at the end of the block, kept and named if that fails.

    The output folder takes its name within the block, so that what was computed is always in one of the two.

    Yields:
        The file.

    Raises:
        KeyboardInterrupt: says where it is. Exception: has a note that says so, if the checkpoint is newer than
            the block.
    """
    out = folder.resolve()
    file = out.parent / f"{out.name}.checkpoint"
    before = _when(file)
    try:
        yield file
    except KeyboardInterrupt:
        if not file.is_file():
            raise
        raise KeyboardInterrupt(
            f"what was computed so far is in {file}, and the same command goes on from there; delete the file to "
            "start anew"
        ) from None
    except Exception as error:
        if _when(file) != before:
            error.add_note(f"what was computed so far is in {file}, and the same command goes on from there")
        raise
    file.unlink(missing_ok=True)


def _when(file: Path) -> int | None:
    """When a file was written; None where there is none."""
    return file.stat().st_mtime_ns if file.is_file() else None


def _put_back(path: Path) -> None:
    """Undo, or end, what was killed while it replaced a folder: between two renames, or before the old one was gone."""
    with abandoned(path, folders=True, suffix="old") as olds:
        for old in olds:
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(path)


def _check_replaceable(path: Path, overwrite: bool) -> None:
    if not path.is_dir():
        raise FileExistsError(f"{path} exists and is not a folder; choose another --out")
    if not any(path.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists; choose another --out, or replace it: --overwrite")
    run = path / RUN_FILE
    if not run.is_file() or f'"{FORMAT}"' not in run.read_text(encoding="utf-8", errors="replace"):
        raise FileExistsError(
            f"{path} was not written by bayesinv (it holds no {RUN_FILE} of ours), so --overwrite leaves "
            "it alone; choose another --out"
        )


def write_run(folder: Path, command: str, facts: dict[str, Any]) -> None:
    """Write what made the folder, as JSON."""
    content = {"format": FORMAT, "version": FORMAT_VERSION, "command": command, **facts}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / RUN_FILE).write_text(text, encoding="utf-8")


def read_run(folder: Path) -> dict[str, Any]:
    """Read what `write_run` wrote.

    Raises:
        FileNotFoundError: no such folder.
        SavedFileError: not a folder that bayesinv wrote, or one of a later version.
    """
    if not folder.is_dir():
        _put_back(folder.resolve())
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; expected one that `bayesinv fit` wrote")
    try:
        content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        content = {}
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SavedFileError(f"{folder / RUN_FILE} is damaged ({error}); run the fit again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SavedFileError(f"{folder} is not a folder that `bayesinv fit` wrote")
    if content.get("version") != FORMAT_VERSION:
        raise SavedFileError(
            f"{folder} has version {content.get('version')} of the format, and this bayesinv reads "
            f"{FORMAT_VERSION}; use the bayesinv that wrote it"
        )
    try:
        _check(content)
    except ValueError as error:
        raise SavedFileError(f"{folder / RUN_FILE} is damaged: {error}; run the fit again") from error
    return content


def _check(content: dict[str, Any]) -> None:
    """Raise if the commands cannot go by what a file holds."""
    command = content.get("command")
    if command == "audit":
        raise ValueError(
            "command: expected 'fit' or 'demo', got 'audit', which holds no posterior; see its report.html"
        )
    if command not in ("fit", "demo"):
        raise ValueError(f"command: expected 'fit' or 'demo', got {command!r}")
    name = "sets" if command == "demo" else "classes"
    if not isinstance(content.get(name), list) or not all(isinstance(each, str) for each in content[name]):
        raise ValueError(f"{name}: expected a list of names, got {content.get(name)!r}")
    if command == "fit":
        Reading.from_json(content.get("reading"))


def posterior_files(path: Path) -> list[Path]:
    """The saved posteriors at a path: a file itself, the one of `bayesinv fit`, or all of `bayesinv demo`.

    Raises:
        FileNotFoundError: nothing is there.
        SavedFileError: a folder that bayesinv did not write.
    """
    if path.is_file():
        return [path]
    run = read_run(path)
    folders = [path / name for name in run["sets"]] if run["command"] == "demo" else [path]
    return [folder / POSTERIOR_FILE for folder in folders]


def load_posterior(file: Path) -> InvariancePosterior:
    """A saved posterior whose model the file describes.

    Raises:
        SavedFileError: damaged, or around a network or kernel that lives in somebody's Python code.
    """
    try:
        return load(file)
    except SavedFileError as error:
        if "model=model" not in str(error):
            raise
        if (file.parent / RUN_FILE).is_file() and "network" in (run := read_run(file.parent)):
            return load_network(file, run["network"])
        raise SavedFileError(
            f"{file} was saved from a model around somebody's own network or kernel, whose code no file holds; the "
            "command line opens posteriors of the built-in Gaussian process. Load it from Python, where the network is"
        ) from error
