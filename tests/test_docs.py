"""The documentation site builds without a warning, and every public name has its page."""

import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

import bayesinv

ROOT = Path(__file__).parents[1]
MODULES = re.findall(
    r"^   (bayesinv[\w.]*)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE
)
# What the command line, files and numerics are made of, which is not public, and folders whose public names are all
# those of the package itself.
INTERNAL = {"cli", "io", "numerics", "comparison", "posterior"}


def test_every_public_module_is_listed():
    folders = {module.name for module in pkgutil.iter_modules(bayesinv.__path__) if module.name[0] != "_"} - INTERNAL
    named = {name for name in bayesinv.__all__ if inspect.ismodule(getattr(bayesinv, name))}
    listed = {module.split(".")[1] for module in MODULES if "." in module}
    assert not (folders | named) - listed, "list it in docs/api.md"


def test_every_page_is_reached():
    docs = ROOT / "docs"
    text = "".join(page.read_text(encoding="utf-8") for page in docs.glob("*.md"))
    listed = {
        line for tree in re.findall(r"```\{toctree\}\n(.*?)```", text, flags=re.DOTALL) for line in tree.split("\n")
    }
    assert {page.stem for page in docs.glob("*.md")} - listed == {"index"}


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {bayesinv.__version__}\n" in text
    licence = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
    assert f"\nlicense: {licence}\n" in text


def test_the_paper_has_what_it_cites():
    paper, sources = ((ROOT / "paper" / name).read_text(encoding="utf-8") for name in ("paper.md", "paper.bib"))
    assert set(re.findall(r"@(\w+)", paper)) == set(re.findall(r"^@\w+\{(\w+),", sources, flags=re.MULTILINE))


def broken_links(pages: dict[Path, str]) -> set[str]:
    """Links from one page to another, or to a place on it, that lead nowhere."""
    places = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    broken = set()
    for page, text in pages.items():
        for link in map(unescape, re.findall(r'\b(?:href|src)="([^"]*)"', text)):
            path, _, place = (unquote(part) for part in link.partition("#"))
            target = Path(os.path.normpath(page.parent / path.split("?")[0])) if path else page
            here = target in pages and (not place or place in places[target])
            if not re.match("[a-z]+:", link) and not here and (place or not target.exists()):
                broken.add(f"{page.name}: {link}")
    return broken


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page, other = tmp_path / "page.html", tmp_path / "other.html"
    good = '<a href="other.html#there">, <a href="#here" id="here">, <a href="https://x.org/y#z">'
    pages = {page: good, other: '<p id="there">'}
    assert not broken_links(pages)
    pages[page] += '<a href="other.html#nowhere"><a href="third.html"><a href="#nowhere">'
    assert broken_links(pages) == {"page.html: other.html#nowhere", "page.html: third.html", "page.html: #nowhere"}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for name in ("sphinx", "furo", "latex2mathml", "myst_nb", "sphinx_design"):
        pytest.importorskip(name, reason='the site needs Sphinx: pip install -c constraints.txt ".[docs]"')
    for name in ("docs", "notebooks"):  # the build writes beside its sources
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("_build", "api", "notebooks"))
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    finished = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", "site"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    site = tmp_path / "site"
    pages = {page.stem for page in (site / "api").glob("*.html")}
    known: set[int] = set()
    for name in MODULES:
        module = importlib.import_module(name)
        assert name in pages
        for each in module.__all__:
            it = getattr(module, each)
            if not inspect.ismodule(it) and id(it) not in known:
                assert f"{name}.{each}" in pages
                known.add(id(it))
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert (site / "notebooks" / f"{notebook.stem}.html").exists()
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert not [page for page, text in pages.items() if re.search(r'(<script|<img)[^>]+src="http', text)]
    assert "<math" in pages[site / "notebooks" / "01_first_posterior.html"]
    assert not broken_links(pages)
    posterior = re.sub(r"<[^>]+>", "", pages[site / "api" / "bayesinv.InvariancePosterior.html"])
    assert "The objective in nats: log p(D, η, u) at each evaluation" in posterior  # no type with its meaning
    warp = re.sub(r"<[^>]+>", "", (site / "api" / "bayesinv.Affine2d.html").read_text(encoding="utf-8"))
    assert "batch channel height width" in warp and "half the width" in warp  # shapes and units
