"""What a console shows: text in letters that its encoding has."""

import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any

__all__ = ["Console", "for_console"]

# In the order in which they are looked for: a letter with its hat before the hat alone.
_ASCII = {
    "\u0302": "-hat",
    "±": "+/-",
    "°": "deg",
    "−": "-",
    "–": "-",
    "×": "x",
    "→": "->",
    "…": "...",
    "≤": "<=",
    "≥": ">=",
    "√": "sqrt ",
    "·": "*",
    "η": "eta",
    "σ": "sigma",
    "²": "^2",
    "●": "*",
    "█": "#",
}


# Tabs, new lines and the start of the line again, as in a bar of progress; the others clear screens and change colours.
_LAID_OUT = "\t\n\r"


def for_console(text: str, encoding: str | None = None) -> str:
    """Text in which letters that the console cannot write are spelled in ASCII, without those that steer a terminal.

    Args:
        text: any.
        encoding: of the console; None takes that of standard output.

    Example:
        >>> for_console("k\u0302 = 0.5 ± 0.1°", "ascii")
        'k-hat = 0.5 +/- 0.1deg'
        >>> for_console("0.5 ± 0.1°", "cp1252")
        '0.5 ± 0.1°'
    """
    text = "".join(letter for letter in text if letter in _LAID_OUT or unicodedata.category(letter) != "Cc")
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return "".join(_spelled(letter, encoding) for letter in text)


def _spelled(letter: str, encoding: str) -> str:
    try:
        letter.encode(encoding)
        return letter
    except UnicodeEncodeError:
        return _ASCII.get(letter) or letter.encode("ascii", "backslashreplace").decode()


class Console:
    """Standard output (or error) of a command: spells what its encoding lacks, and goes quiet once nobody reads.

    A pipe that is closed, as by ``| head``, ends what is shown and not what is done.

    Args:
        stream: where to.
    """

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(for_console(text, self._stream.encoding))
            self._stream.flush()
        except OSError as error:
            # What is still in the buffer would fail once more when the interpreter closes it.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                raise
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        """Nothing: every write does."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
