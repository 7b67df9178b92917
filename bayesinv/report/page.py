"""HTML building blocks: a page, sections, tables and figures. Nothing on a page is loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import matplotlib.figure

DPI = 110  # sharp at twice the width that a figure takes on a page of 60 rem

# Text on its background has a contrast of at least 4.5 : 1 in both schemes (WCAG 2.1, level AA); figures keep a white
# card of their own in the dark, since their colours were chosen for paper.
STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --card: #f6f8fa;
  --link: #0550ae; --ok: #116329; --note: #7d4e00; --serious: #a40e26; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --text: #e6edf3; --soft: #9da7b3; --line: #3d444d; --card: #161b22; --link: #79b8ff;
    --ok: #56d364; --note: #e3b341; --serious: #ff938a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
a { color: var(--link); }
p { max-width: 46rem; }
.soft, figcaption, caption { color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0; margin: .8rem 0 0; }
.scroll { overflow-x: auto; margin: .8rem 0; }
.scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; font-size: .9rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, .words { text-align: left; }
thead th { background: var(--card); white-space: nowrap; }
tbody td { white-space: nowrap; }
tbody th { font-weight: 600; }
tbody td.words { white-space: normal; min-width: 11rem; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; padding: 6px; }
figcaption { font-size: .9rem; margin-top: .4rem; max-width: 46rem; }
ul.verdicts { list-style: none; padding: 0; }
ul.verdicts li { border-left: 4px solid; padding: .3rem .8rem; margin: .5rem 0; background: var(--card); }
ul.verdicts p { margin: .1rem 0; }
.level { font-weight: 700; }
ul.verdicts li.ok { border-color: var(--ok); }
ul.verdicts li.note { border-color: var(--note); }
ul.verdicts li.serious { border-color: var(--serious); }
.ok .level { color: var(--ok); } .note .level { color: var(--note); } .serious .level { color: var(--serious); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem; overflow-x: auto; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
@media print { figure, tr, li { break-inside: avoid; } }
"""

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="bayesinv">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header>
<h1>$title</h1>
<p class="soft">$subtitle</p>
<nav aria-label="Sections"><ul>$links</ul></nav>
</header>
$sections
</main>
</body>
</html>
""")
OURS = re.compile(rb'<!DOCTYPE html>.*name="generator" content="bayesinv"', re.DOTALL)  # how a page begins


@dataclass(frozen=True)
class Section:
    """A part of the page: the anchor of its heading, the heading, and HTML."""

    anchor: str
    heading: str
    body: str


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page as HTML; title, subtitle and headings are escaped.

    Example:
        >>> text = page("A < B", "two fits", [Section("one", "First", paragraph("x"))])
        >>> "<h1>A &lt; B</h1>" in text, '<a href="#one">First</a>' in text
        (True, True)
    """
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.heading)}</a></li>' for s in sections)
    bodies = "\n".join(
        f'<section aria-labelledby="{s.anchor}"><h2 id="{s.anchor}">{escape(s.heading)}</h2>\n{s.body}\n</section>'
        for s in sections
    )
    return PAGE.substitute(title=escape(title), subtitle=escape(subtitle), style=STYLE, links=links, sections=bodies)


def escape(text: object) -> str:
    """Text that a browser shows as it is."""
    return html.escape(str(text))


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    """Lines of code, or of a terminal."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], words: Iterable[int] = ()) -> str:
    """A table whose first column names the rows.

    Args:
        caption: what it holds.
        head: a heading for each column.
        rows: cells, as many as headings.
        words: columns of words, which go to the left and may wrap.

    Example:
        >>> table("Sizes", ["name", "n"], [["a", 3]]).count("<th ")
        3
    """
    wordy = set(words)
    kinds = [' class="words"' if i in wordy else "" for i in range(len(head))]
    top = "".join(f'<th scope="col"{kind}>{escape(cell)}</th>' for kind, cell in zip(kinds, head, strict=True))
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds[1:], others, strict=True))
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    # A wide table scrolls inside its own box, which the keyboard has to be able to reach.
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0"><table><caption>'
        f"{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def facts(caption: str, values: Mapping[str, object]) -> str:
    """A table of two columns, name and value."""
    return table(caption, ["what", "value"], values.items(), words=[1])


def figure(drawn: matplotlib.figure.Figure, alternative: str, caption: str) -> str:
    """A figure as an inline PNG.

    Args:
        drawn: the figure.
        alternative: what it shows, for those who cannot see it.
        caption: how to read it.
    """
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    image = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure><img alt="{escape(alternative)}" src="data:image/png;base64,{image}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
