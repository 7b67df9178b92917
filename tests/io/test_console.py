"""What a console shows, whatever its encoding and width, and however soon it is closed."""

import io
import os
import subprocess
import sys

import pytest

from bayesinv.io.console import Console, for_console
from bayesinv.io.tables import ConsoleTable
from tests.fakes import make_posterior


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
def test_every_encoding_can_write_what_is_shown(encoding):
    text = "k\u0302 0.5 ± 0.1, 45°, −3 × 2 → √3, Ж"
    for_console(text, encoding).encode(encoding)
    assert for_console("plain", encoding) == "plain"


def test_letters_are_spelled_only_where_they_are_missing():
    assert for_console("± °", "latin-1") == "± °"
    assert for_console("k\u0302 ± °", "latin-1") == "k-hat ± °"
    assert for_console("k\u0302 ± 3°, Ж", "ascii") == "k-hat +/- 3deg, \\u0416"


def test_what_is_printed_fits_the_console(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    posterior = make_posterior(weighted=True)
    print(posterior)
    print(posterior.summary())
    out.flush()
    shown = out.buffer.getvalue().decode()
    assert "deg" in shown and "k-hat" in shown


def test_a_table_shows_all_columns_and_rows():
    posterior = make_posterior(weighted=True)
    table = posterior.summary()
    for shown in (repr(table), repr(table.round(2)), repr(table.loc[["rotation"]])):
        assert all(name in shown for name in table.columns)
        assert max(map(len, shown.splitlines())) <= 80
    assert "row 150" in repr(ConsoleTable({"a": 1.0}, index=[f"row {i}" for i in range(200)]))


def test_a_closed_pipe_ends_what_is_shown_and_nothing_else():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        console = Console(stream)
        assert console.write("nobody reads this\n") == 18
        assert console.write("nor this\n") == 9


def test_a_command_into_a_closed_pipe_says_nothing():
    read, write = os.pipe()
    os.close(read)  # before it starts: what it shows would fit into the pipe
    command = [sys.executable, "-m", "bayesinv", "--help"]
    try:
        finished = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert finished.returncode == 0
    assert finished.stderr == ""


def test_lines_are_spelled_too():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(out).writelines(["45°\n", "±1\n"])
    assert out.buffer.getvalue() == b"45deg\n+/-1\n"


def test_nothing_steers_the_terminal():
    assert for_console("cat\x1b[2J\x07\x9b1m\tdog\r\n") == "cat[2J1m\tdog\r\n"
