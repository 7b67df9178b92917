"""What is installed, and what importing it does."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata, resources
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import bayesinv

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[Requirement]:
    extras = [each for group in PROJECT["optional-dependencies"].values() for each in group]
    return [Requirement(text) for text in [*PROJECT["dependencies"], *extras]]


def run_python(code: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    finished = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_versions_agree():
    assert bayesinv.__version__ == PROJECT["version"] == metadata.version("bayesinv")


def test_typed():
    assert resources.files("bayesinv").joinpath("py.typed").is_file()


@pytest.mark.parametrize("requirement", requirements(), ids=lambda each: each.name)
def test_constraints_fit_the_bounds(requirement):
    pinned = PINS[canonical(requirement.name)]
    assert Version(pinned) in requirement.specifier


def test_constraints_are_versions_only():
    for name, version in PINS.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version)


def test_pre_commit_runs_the_same_versions():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    for tool in ("ruff", "mypy"):
        assert set(re.findall(rf"\({tool}==([^)]+)\)", text)) == {PINS[tool]}


def test_importing_opens_no_connection_and_stays_light():
    heavy = ("matplotlib", "sklearn", "arviz", "torchvision", "IPython", "beartype", "scipy.stats")
    loaded = run_python(
        "import socket\n"
        "def refuse(*args, **kwargs): raise OSError('no network at import')\n"
        "socket.socket.connect = refuse\n"
        "socket.create_connection = refuse\n"
        "import sys, bayesinv\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    assert loaded == "[]"


def test_importing_changes_no_global_state():
    before_after = run_python(
        "import torch, numpy, random, warnings\n"
        "torch.manual_seed(1); numpy.random.seed(1); random.seed(1)\n"
        "a = (torch.get_rng_state().sum().item(), torch.get_default_dtype(),\n"
        "     numpy.random.get_state()[1].sum(), random.getstate())\n"
        "import bayesinv\n"
        "b = (torch.get_rng_state().sum().item(), torch.get_default_dtype(),\n"
        "     numpy.random.get_state()[1].sum(), random.getstate())\n"
        "print(a == b)"
    )
    assert before_after == "True"


def test_the_wheel_holds_the_package_alone(tmp_path):
    """Built offline from a copy, since building leaves files in the tree."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("bayesinv", "tests", "models", "notebooks"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
    build = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"bayesinv", f"bayesinv-{PROJECT['version']}.dist-info"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "bayesinv").rglob("*.py")}
    assert modules <= set(names)
    assert "bayesinv/py.typed" in names
