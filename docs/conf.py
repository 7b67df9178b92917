"""The documentation site: `make docs`, without network.

Pages are the .md files beside this one, the notebooks with the outputs that are stored in them, and one generated page
for every public name of the modules that api.md lists. Notebooks are not executed here, which would take half an hour:
`make notebooks` does, where their code has changed.
"""

import importlib
import inspect
import re
import shutil
from pathlib import Path

import latex2mathml.converter
from docutils import nodes

import bayesinv

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "bayesinv"
author = "The bayesinv developers"
project_copyright = author
version = release = bayesinv.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_design",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
default_role = "code"  # `x` in a docstring is code, as in Markdown
smartquotes_action = "D"  # dashes alone: "vi" in a docstring is what one types

html_theme = "furo"
html_title = f"bayesinv {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"  # drawn by the browser itself, so that pages need no network either
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072b2", "color-brand-content": "#0072b2"},
    "dark_css_variables": {"color-brand-primary": "#56b4e9", "color-brand-content": "#56b4e9"},
}

myst_enable_extensions = ["colon_fence", "dollarmath"]  # formulae of the notebooks
myst_heading_anchors = 4
nb_execution_mode = "off"
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(ROOT / "notebooks", HERE / "notebooks", dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = [("Reference", "notes_style")]


def public_names() -> dict[str, list[str]]:
    """By module, what it offers; a name that several modules offer has its page under the first."""
    seen: set[int] = set()
    found = {}
    for name in re.findall(r"^   (bayesinv[\w.]*)$", (HERE / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE):
        module = importlib.import_module(name)
        objects = {each: getattr(module, each) for each in getattr(module, "__all__", ())}
        new = {each: it for each, it in objects.items() if not inspect.ismodule(it) and id(it) not in seen}
        seen.update(map(id, new.values()))
        found[name] = sorted(new, key=str.lower)
    return found


autosummary_context = {"public": public_names()}


def as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text with formulae as indented blocks and Markdown tables: say so in reStructuredText.

    Runs before napoleon, which turns "Args:" and its kin into fields.
    """
    if what == "data" and "\n".join(lines).strip() == (inspect.getdoc(type(obj)) or "").strip():
        lines[:] = []  # a constant without words of its own would get those of its type
    if what == "property":
        lines[:0] = ["..", ""]  # a comment, or napoleon reads "The objective in nats: log p" as a type and its meaning
    found: list[str] = []
    literal = table = doctest = False
    for before, line in zip(["", *lines], lines, strict=False):
        indent = len(line) - len(line.lstrip())
        if literal and line.strip() and indent < literal:
            literal = False
        header = next((each for each in reversed(found) if each.strip()), "")
        opens = not before.strip() and indent >= 4 and len(header) - len(header.lstrip()) < indent
        if line.strip().startswith("|") and line.rstrip().endswith("|") and not literal:
            if not table:
                found += [" " * indent + ".. list-table::", " " * indent + "   :header-rows: 1", ""]
            table = True
            if not re.fullmatch(r"[|\s:-]+", line):
                cells = [escaped(cell.strip()) for cell in line.strip().strip("|").split("|")]
                found += [" " * indent + ("     - " if k else "   * - ") + cell for k, cell in enumerate(cells)]
            continue
        table = False
        if opens and not literal and not line.lstrip().startswith((">>>", "- ", "* ")):
            literal = indent
            found += [] if header.endswith("::") else [" " * (len(header) - len(header.lstrip())) + "::", ""]
        doctest = line.lstrip().startswith(">>>") or (doctest and bool(line.strip()))
        found.append(line if literal or doctest else escaped(line))
    lines[:] = found


def escaped(text: str) -> str:
    """With `*` and `|` as characters, except in code, in **bold** and where one word is *emphasised*."""
    parts = re.split(r"(`+[^`]*`+|\*\*[^*]+\*\*|(?<!\S)\*[A-Za-z]+\*(?!\S))", text)
    return "".join(part if k % 2 else re.sub(r"([*|])", r"\\\1", part) for k, part in enumerate(parts))


def formula(translator, node) -> None:
    """A formula as MathML."""
    # Spaced as TeX does it.
    tex = re.sub(r"\\(sim|mid|propto)\b", r"\\;\\\1\\;", node.astext()).replace(r"\log ", r"\log\, ")
    display = "inline" if isinstance(node, nodes.math) else "block"
    translator.body.append(latex2mathml.converter.convert(tex, display=display))
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.connect("autodoc-process-docstring", as_rst, priority=400)
