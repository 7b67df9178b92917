"""Tables that print all of their rows and columns."""

import pandas as pd

from bayesinv.io.console import for_console

__all__ = ["ConsoleTable"]


class ConsoleTable(pd.DataFrame):
    """A DataFrame that prints all of its rows and columns, in blocks as wide as the console.

    Example:
        >>> "..." in repr(ConsoleTable({f"column {i}": [1.0] for i in range(30)}))
        False
    """

    @property
    def _constructor(self) -> type["ConsoleTable"]:
        return ConsoleTable

    def __repr__(self) -> str:
        with pd.option_context("display.max_columns", None, "display.max_rows", None, "display.max_colwidth", None):
            return for_console(super().__repr__())
