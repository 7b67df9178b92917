"""Modules under the names that they had before."""

import importlib
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


def test_names_that_never_were_are_still_unknown():
    with pytest.raises(AttributeError):
        bayesinv.psisis  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("bayesinv.psisis")
