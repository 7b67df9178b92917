"""Modules under the names that they had before."""

import importlib
import subprocess
import sys

import pytest

import bayesinv
from bayesinv._moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_imports_and_warns_of_the_new_one(old):
    sys.modules.pop(f"bayesinv.{old}", None)
    new = importlib.import_module(f"bayesinv.{MOVED[old]}")
    spec = new.__spec__
    with pytest.warns(DeprecationWarning, match=f"bayesinv.{old} is now bayesinv.{MOVED[old]};"):
        assert importlib.import_module(f"bayesinv.{old}") is new
    assert new.__spec__ is spec and spec.name == f"bayesinv.{MOVED[old]}"


def test_an_old_name_as_an_attribute():
    sys.modules.pop("bayesinv.psis", None)
    vars(bayesinv).pop("psis", None)
    with pytest.warns(DeprecationWarning):
        assert bayesinv.psis.pareto_limit(100) == 0.5


def test_the_warning_points_at_the_line_that_asked(tmp_path):
    script = tmp_path / "mine.py"  # without the types that only the tests check
    script.write_text("import bayesinv\nbayesinv.psis\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert f"{script}:2: DeprecationWarning: bayesinv.psis is now bayesinv.numerics.psis" in done.stderr


def test_modules_of_the_same_name_that_are_not_ours_are_left_alone(tmp_path):
    for name in ("storage", "groups"):
        (tmp_path / f"{name}.py").write_text("OWN = True\n")
    code = "import bayesinv, storage, groups; assert storage.OWN and groups.OWN"
    subprocess.run([sys.executable, "-W", "error::DeprecationWarning", "-c", code], cwd=tmp_path, check=True)


def test_names_that_never_were_are_still_unknown():
    with pytest.raises(AttributeError):
        bayesinv.psisis  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("bayesinv.psisis")
