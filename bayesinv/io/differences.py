"""Where two descriptions of a fit differ, in words short enough for a message."""

from __future__ import annotations

import json
import reprlib
from itertools import zip_longest
from typing import Any

__all__ = ["differences"]

LONGEST_LINE = 80  # of a network's description


def differences(saved: Any, given: Any, where: str = "") -> list[str]:
    """Where two JSON values differ; of a text of several lines, as a network is described by, the first such line.

    Args:
        saved: what a file holds.
        given: what it is compared with.
        where: the name of the value, if it is a part of another.

    Example:
        >>> differences({"seed": 0, "net": "A(\\n  B(3)\\n)"}, {"seed": 0, "net": "A(\\n  B(4)\\n)"})
        ["net, in its line 2, is 'B(3)' there and 'B(4)' here"]
    """
    if isinstance(saved, dict) and isinstance(given, dict):
        found = []
        for key in [*saved, *(key for key in given if key not in saved)]:
            name = f"{where}.{key}" if where else str(key)
            if key not in given or key not in saved:
                found.append(f"{name} is only {'there' if key in saved else 'here'}")
            else:
                found += differences(saved[key], given[key], name)
        return found
    # As text, since NaN differs from itself.
    if json.dumps(saved, sort_keys=True) == json.dumps(given, sort_keys=True):
        return []
    if isinstance(saved, str) and isinstance(given, str) and "\n" in saved + given:
        lines = zip_longest(saved.splitlines(), given.splitlines(), fillvalue="")
        for number, (there, here) in enumerate(lines, start=1):
            if there != here:
                return [f"{where}, in its line {number}, is {_line(there)} there and {_line(here)} here"]
    return [f"{where or 'the fingerprint'} is {reprlib.repr(saved)} there and {reprlib.repr(given)} here"]


def _line(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= LONGEST_LINE else text[:LONGEST_LINE] + " …") if text else "nothing"
