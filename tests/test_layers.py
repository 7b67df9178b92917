"""Lower layers never import higher ones, and only the command line prints."""

import ast
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
    ["errors", "arguments", "randomness", "torch_modes", "quantiles", "bend", "psis", "files", "archives", "console"],
    ["arrays", "samplers"],
    ["items", "class_names"],
    ["transforms", "features"],
    ["augmentation"],
    ["data", "probit", "priors", "extents", "orbits", "spike_and_slab", "structure", "groups", "pooling"],
    ["export"],
    ["mixture", "hyperparameters", "unconstrained", "surrogate"],
    ["symmetry_errors"],
    ["metrics", "temperature"],
    ["streams", "threads"],
    ["datasets", "prediction", "function_cache"],
    ["backbones"],
    ["evidence"],
    ["model", "model_checks", "model_conditioning", "model_config", "model_simulation"],
    ["linearised", "exact_evidence"],
    ["inference.result"],
    ["recalibrated"],
    ["posterior_summary", "plots", "blocks_plot", "orbit_plot", "arviz_export"],
    ["posterior"],
    ["storage", "inference", "comparison", "comparison_plot"],
    ["selection"],
    ["callbacks", "checks", "sklearn"],
    ["report"],
    ["auditing"],
    ["testing", "demo"],
    ["cli", "__main__"],
]
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
    """Modules of the package imported when this one is, without the leading "bayesinv."."""
    names = set()
    for node in statements_run_on_import(tree.body):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, "relative imports hide the layer"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("bayesinv.") for name in names if name.startswith("bayesinv.")}


def statements_run_on_import(body: list[ast.stmt]):
    """All but the bodies of functions and of `if TYPE_CHECKING`."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements_run_on_import(node.orelse)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from statements_run_on_import(getattr(node, field, []))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_a_higher_layer(path):
    own = rank_of(name_of(path))
    assert own is not None, f"{name_of(path)} has no place in LAYERS"
    for name in imported_names(parse(path)):
        rank = rank_of(name)
        if rank is not None:
            assert rank <= own, f"{name_of(path)} imports {name}, a higher layer"


def test_the_check_sees_a_higher_import():
    source = "class A:\n    from bayesinv.cli import main\ndef f():\n    import bayesinv.plots\n"
    assert imported_names(ast.parse(source)) == {"cli.main"}
    assert rank_of("cli.main") > rank_of("transforms.base")
    assert rank_of("inference.result") < rank_of("inference.fit")
    guarded = "if TYPE_CHECKING:\n    import bayesinv.model\nelse:\n    import bayesinv.errors\n"
    assert imported_names(ast.parse(guarded)) == {"errors"}


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
