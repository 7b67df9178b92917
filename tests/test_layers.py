"""Lower layers never import higher ones, and only the command line prints."""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bayesinv

ROOT = Path(bayesinv.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).as_posix() != "__init__.py")

# Each line may import the lines above it and itself. A new part goes where it belongs.
LAYERS = [
    ["_moved", "errors"],
    ["numerics"],
    ["io"],
    ["transforms", "features"],
    ["data"],
    ["orbits"],
    ["extents"],
    ["metrics"],
    ["datasets"],
    ["backbones"],
    ["evidence"],
    ["model"],
    ["fitted"],
    ["export"],
    ["plots"],
    ["posterior"],
    ["inference"],
    ["comparison"],
    ["selection", "discovery"],
    ["callbacks", "checks", "sklearn"],
    ["report"],
    ["auditing"],
    ["testing"],
    ["cli", "__main__"],
]
# Methods of a posterior that start what stands on posteriors.
DELEGATES = {
    ("posterior.invariance_posterior", "checks"),
    ("posterior.invariance_posterior", "checks.verdicts"),
    ("posterior.invariance_posterior", "report"),
}
RANKS = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """ "transforms.affine2d" of .../bayesinv/transforms/affine2d.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def rank_of(module: str) -> int | None:
    """The rank of the longest prefix of "transforms.affine2d" that has one."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in RANKS:
            return RANKS[".".join(parts[:end])]
    return None


def imported_names(tree: ast.Module) -> set[str]:
    """What is imported anywhere in a module of the package, in functions and for types too, without "bayesinv."."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, "relative imports hide the layer"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("bayesinv.") for name in names if name.startswith("bayesinv.")}


@functools.cache
def graph() -> dict[str, set[str]]:
    """The modules that each module imports, but for the delegates of the posterior."""
    modules = {name_of(path): path for path in MODULES}
    edges = {}
    for name, path in modules.items():
        edges[name] = set()
        for imported in imported_names(parse(path)):
            while imported and imported not in modules:
                imported = imported.rpartition(".")[0]
            if imported and (name, imported) not in DELEGATES:
                edges[name].add(imported)
    return edges


def a_cycle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring; none if there is none."""
    left = {name: set(imported) for name, imported in edges.items()}
    while free := [name for name, imported in left.items() if not imported & set(left)]:
        for name in free:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_a_higher_layer(path):
    own = rank_of(name_of(path))
    assert own is not None, f"{name_of(path)} has no place in LAYERS"
    for name in graph()[name_of(path)]:
        rank = rank_of(name)
        if rank is not None:
            assert rank <= own, f"{name_of(path)} imports {name}, a higher layer"


def test_no_modules_import_each_other():
    assert a_cycle(graph()) == []


def test_few_modules_lie_beside_the_folders():
    public = [path for path in ROOT.glob("*.py") if not path.name.startswith("_")]
    assert len(public) <= 6


def test_the_check_sees_a_higher_import_and_a_cycle():
    source = "class A:\n    from bayesinv.cli import main\ndef f():\n    import bayesinv.plots\n"
    assert imported_names(ast.parse(source)) == {"cli.main", "plots"}
    assert rank_of("cli.main") > rank_of("transforms.base")
    guarded = "if TYPE_CHECKING:\n    import bayesinv.model\nelse:\n    import bayesinv.errors\n"
    assert imported_names(ast.parse(guarded)) == {"errors", "model"}
    assert a_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("transforms/*.py")), ids=name_of)
def test_transforms_are_torch_alone(path):
    for node in ast.walk(parse(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in {"pyro", "gpytorch", "matplotlib", "sklearn"}


# The command line prints, and the conformance suites assert.
SILENT = [path for path in MODULES if path.relative_to(ROOT).parts[0] not in {"cli", "testing"}]


@pytest.mark.parametrize("path", SILENT, ids=name_of)
def test_the_library_neither_prints_nor_asserts(path):
    for node in ast.walk(parse(path)):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), where
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "breakpoint", "input"}, where


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_every_module_can_be_imported_first():
    """Names of the package come when they are asked for, so that no other import goes before."""
    code = (
        "import os, sys, torch, pyro, gpytorch, pandas, torchvision, sklearn\n"
        "for name in sys.argv[1:]:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        try:\n"
        "            __import__(name)\n"
        "        except ImportError as error:\n"
        "            print(name, error, flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    names = [f"bayesinv.{name_of(path)}" for path in MODULES if path.name != "__main__.py"]
    options = [sys.executable, "-W", "ignore", "-c", code, *names]
    done = subprocess.run(options, capture_output=True, text=True, check=True)
    assert done.stdout == ""
