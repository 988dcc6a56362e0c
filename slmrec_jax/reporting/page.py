"""The HTML page of a report: a single file without scripts or network access, with all text escaped."""

import html
import os
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

from matplotlib.figure import Figure

from slmrec_jax.reporting.charts import to_svg
from slmrec_jax.reporting.tables import ReportTable, cell_text, is_numeric_column

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""A second defence in addition to escaping: the browser fetches and runs nothing."""

_CSS = """
:root { color-scheme: light dark; --ink: #0f172a; --soft: #475569; --line: #cbd5e1; --back: #fff; --band: #f1f5f9;
  --link: #1d4ed8; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e2e8f0; --soft: #94a3b8; --line: #334155;
  --back: #0b1120; --band: #1e293b; --link: #93c5fd; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem clamp(1rem, 4vw, 2.5rem) 4rem; background: var(--back);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .6rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .5rem 0; }
a { color: var(--link); }
.summary { font-size: 1.1rem; max-width: 60rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; list-style: none; font-size: .9rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem;
  align-items: start; margin: 1rem 0; }
figure { margin: 1rem 0; min-width: 0; break-inside: avoid; }
.pictures figure { margin: 0; }
figure svg { width: 100%; max-width: 32rem; height: auto; display: block; font-family: system-ui, sans-serif; }
figcaption { color: var(--soft); font-size: .875rem; margin: .35rem 0; max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .3rem .75rem .3rem .4rem; text-align: left; border-bottom: 1px solid var(--line); white-space: pre;
  max-width: 24rem; overflow: hidden; text-overflow: ellipsis; vertical-align: top; }
thead th { background: var(--band); }
tbody th { font-weight: 500; }
.number { text-align: right; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
pre { overflow-x: auto; background: var(--band); padding: .75rem; font-size: .8rem; }
footer { margin-top: 3rem; color: var(--soft); font-size: .875rem; }
@media screen and (min-width: 1400px) { body { max-width: 120rem; }
  section { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start; }
  section > :is(h2, p, details, .pictures) { flex: 0 0 100%; }
  section > p { max-width: none; padding-right: calc(100% - 60rem); }
  section > figure { flex: 0 1 auto; max-width: 100%; } section > .picture { flex: 0 0 34rem; }
  section > figure figcaption { width: 0; min-width: max(100%, 20rem); }
  .pictures { grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); }
  figure svg { max-width: 40rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav, .files { display: none; }
  .scroll, pre { overflow: visible; } pre { white-space: pre-wrap; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""


class Picture(NamedTuple):
    """A figure with its caption."""

    name: str
    """The name of its files, without the suffix."""
    caption: str
    figure: Figure


class Details(NamedTuple):
    """A collapsed text."""

    title: str
    text: str


class Downloads(NamedTuple):
    """A text with links to further files of the report."""

    text: str
    files: Sequence[str]
    """The file names, with suffixes."""


Block: TypeAlias = str | ReportTable | Picture | Details | Downloads
"""Content of a section; a string is a paragraph."""


class Section(NamedTuple):
    """A heading and its content."""

    title: str
    blocks: Sequence[Block]


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str) -> Markup:
    """Return an element with escaped texts and attributes. `class_` means class, `aria_label` means aria-label."""
    names = {name.rstrip("_").replace("_", "-"): html.escape(value) for name, value in attributes.items()}
    inner = "".join(child if isinstance(child, Markup) else html.escape(child) for child in children)
    head = "".join(f' {name}="{value}"' for name, value in names.items())
    return Markup(f"<{tag}{head}>{inner}</{tag}>")


def render(title: str, summary: str, sections: Sequence[Section], files: str, made_by: str) -> str:
    """Return the page. `files` is the name of the folder of its pictures and tables, `made_by` is the last line."""
    entries = [
        element("li", element("a", section.title, href=f"#s{place}")) for place, section in enumerate(sections, 1)
    ]
    body = element(
        "body",
        element("header", element("h1", title), element("p", summary, class_="summary")),
        element("nav", element("ul", *entries), aria_label="Sections"),
        element("main", *(_section(section, place, files) for place, section in enumerate(sections, 1))),
        element("footer", made_by),
    )
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"{element('title', title)}<style>{_CSS}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n{body}</html>\n'


def _section(section: Section, place: int, files: str) -> Markup:
    parts: list[Markup] = []
    for are_pictures, blocks in groupby(enumerate(section.blocks, 1), lambda each: isinstance(each[1], Picture)):
        made = [_block(block, f"p{place}-{number}", files) for number, block in blocks]
        # In a wide window, consecutive pictures share a row, and a single one shares it with the following table.
        parts += [element("div", *made, class_="pictures")] if are_pictures and len(made) > 1 else made
    return element("section", element("h2", section.title, id=f"s{place}"), *parts)


def _block(block: Block, prefix: str, files: str) -> Markup:
    """Return a block as HTML. `prefix` makes the ids of a picture unique on the page."""
    if isinstance(block, Picture):
        return _picture_figure(block, prefix, files)
    if isinstance(block, ReportTable):
        return _table_figure(block, files)
    if isinstance(block, Details):
        return element("details", element("summary", block.title), element("pre", block.text, tabindex="0"))
    if isinstance(block, Downloads):
        return element("p", block.text, _links(block.files, block.files, files))
    return element("p", str(block))


def _picture_figure(picture: Picture, prefix: str, files: str) -> Markup:
    image = to_svg(picture.figure, prefix)
    labelled = image.replace("<svg ", f'<svg role="img" aria-label="{html.escape(picture.caption)}" ', 1)
    caption = element("figcaption", picture.caption, _format_links(picture.name, ("png", "pdf"), files))
    return element("figure", Markup(labelled), caption, class_="picture")


def _table_figure(table: ReportTable, files: str) -> Markup:
    classes = [{"class_": "number"} if is_numeric_column(table, place) else {} for place in range(len(table.columns))]
    head = (element("th", name, scope="col", **class_) for name, class_ in zip(table.columns, classes, strict=True))
    rows = []
    for first, *others in table.rows:
        cells = [element("th", cell_text(first), scope="row", title=cell_text(first))]
        for cell, class_ in zip(others, classes[1:], strict=True):
            title = {"title": cell} if isinstance(cell, str) else {}  # long texts are cut off on the page
            cells.append(element("td", cell_text(cell), **title, **class_))
        rows.append(element("tr", *cells))
    body = element("table", element("thead", element("tr", *head)), element("tbody", *rows))
    caption = element("figcaption", table.caption, _format_links(table.name, ("csv", "tex"), files))
    scroll = element("div", body, class_="scroll", tabindex="0", role="region", aria_label=table.caption)
    return element("figure", caption, scroll)


def _links(names: Sequence[str], labels: Sequence[str], files: str) -> Markup:
    folder = quote(os.fsencode(files))
    links = (element("a", label, href=f"{folder}/{name}") for name, label in zip(names, labels, strict=True))
    return element("span", " ", Markup(" · ".join(links)), class_="files")


def _format_links(name: str, suffixes: Sequence[str], files: str) -> Markup:
    return _links([f"{name}.{suffix}" for suffix in suffixes], [suffix.upper() for suffix in suffixes], files)
