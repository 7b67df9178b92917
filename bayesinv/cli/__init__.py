"""The command line: `bayesinv demo`, `fit`, `audit`, `show`, `predict`, `report` and `compare`.

The only part of the library that prints. Results go to standard output; progress, warnings and
errors to standard error. Exit codes: 0 done, 2 refused or failed with one line that says why, 130
interrupted.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from bayesinv.cli.parser import make_parser
from bayesinv.cli.words import in_shell_words
from bayesinv.errors import ImportanceWarning, NotConvergedWarning
from bayesinv.io.console import Console

__all__ = ["main"]

# Errors whose message is made for the person at the keyboard.
_SPEAKING = (ArithmeticError, LookupError, OSError, TypeError, ValueError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: as on the command line, without the program's name; None takes `sys.argv`.

    Returns:
        The exit code.

    Example:
        >>> from bayesinv.cli import main
        >>> main(["show", "no-such-folder"])
        2
    """
    # Large pages for tensors of 2 MB and more; torch reads it once. An audit takes a sixth less of processor time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with contextlib.redirect_stdout(_console(sys.stdout)), contextlib.redirect_stderr(_console(sys.stderr)):
        return _run(arguments)


def _console(stream: Any) -> Any:
    return None if stream is None else Console(stream)  # None where the shell closed it


def _run(arguments: Sequence[str] | None) -> int:
    options = make_parser().parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        for category in (ImportanceWarning, NotConvergedWarning):
            # The tables repeat what the result itself says of these, so nobody misses them.
            warnings.simplefilter("ignore", category)
        warnings.showwarning = _show_warning
        previous = _terminate_as_interrupt()
        try:
            _check_apart(options)
            options.run(options)
        except KeyboardInterrupt as stopped:
            print(f"bayesinv: interrupted; {str(stopped) or 'nothing was written'}", file=sys.stderr)
            return 130
        except Exception as error:
            if options.traceback:
                raise
            print(f"bayesinv: error: {_one_line(error)}", file=sys.stderr)
            for note in getattr(error, "__notes__", ()):
                print(f"bayesinv: note: {note}", file=sys.stderr)
            return 2
        finally:
            if previous is not None:
                signal.signal(signal.SIGTERM, previous)
    return 0


def _check_apart(options: argparse.Namespace) -> None:
    """Raise where what a command is to write would replace what it reads: the same file, or a folder around it."""
    outputs = [Path(os.path.realpath(path)) for name in ("out", "report") if (path := getattr(options, name, None))]
    for name in ("data", "folder", "folders", "selection", "test"):
        given = getattr(options, name, None) or []
        for path in given if isinstance(given, list) else [given]:
            real = Path(os.path.realpath(path))
            same = [output for output in outputs if real.exists() and output.exists() and real.samefile(output)]
            if same or {real, *real.parents} & set(outputs):
                raise ValueError(f"{path} is read, and the output would replace it; choose another name for the output")


def _terminate_as_interrupt() -> Any:
    """Let `kill` clean up as Ctrl-C does; returns the handler to put back, if it was replaced."""
    if threading.current_thread() is not threading.main_thread():
        return None  # Python allows handlers in the main thread alone
    return signal.signal(signal.SIGTERM, signal.default_int_handler)


def _one_line(error: Exception) -> str:
    # str(KeyError) is the repr of its message
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    line = in_shell_words(" ".join(text.split()))
    if isinstance(error, _SPEAKING) and line:
        return line
    return f"{type(error).__name__}: {line} (--traceback shows where)"  # what a library below says to itself


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"bayesinv: warning: {in_shell_words(str(message))}", file=sys.stderr)
