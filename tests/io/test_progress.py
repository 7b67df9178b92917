"""Bars are shown where they are asked for, unless the environment says otherwise."""

import subprocess
import sys

import pytest

CODE = (
    "from bayesinv.io.progress import progress_bar\n"
    "with progress_bar({shown}, 'step', 3) as bar:\n"
    "    for _ in range(3):\n"
    "        bar.update()\n"
)


@pytest.mark.parametrize(
    ("shown", "environment", "seen"),
    [("True", {}, True), ("True", {"TQDM_DISABLE": "1"}, False), ("False", {}, False)],
)
def test_when_a_bar_is_seen(shown, environment, seen):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(shown=shown)], env=environment, capture_output=True, text=True, check=True
    )
    assert ("3/3" in done.stderr) == seen and done.stdout == ""
