"""Tables as values, and as CSV and LaTeX; the page writes them as HTML."""

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from slmrec_jax.evaluation.analysis import Interval

Cell: TypeAlias = str | int | float | Interval

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


_FIGURE = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?", re.ASCII)
NONE = "—"
"""What a cell shows where there is nothing."""


class Table(NamedTuple):
    """What a report shows as a table."""

    name: str
    """Of its files, without the suffix."""
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def shown(cell: Cell) -> str:
    """A cell for people: four decimals, an interval in brackets, a dash for what is not defined (nan)."""
    if isinstance(cell, Interval):
        return f"{cell.mean:.4f} [{cell.low:.4f}, {cell.high:.4f}]"
    if isinstance(cell, float):
        if math.isnan(cell):
            return NONE
        return f"{cell:.4f}" if cell == 0 or abs(cell) >= 5e-5 else f"{cell:.1e}"
    return str(cell)


def is_number(table: Table, column: int) -> bool:
    """Whether a column holds figures alone, or a dash in the place of one."""
    texts = [shown(row[column]).split(" [")[0] for row in table.rows]
    return any(map(_FIGURE.fullmatch, texts)) and all(text == NONE or _FIGURE.fullmatch(text) for text in texts)


def to_csv(table: Table) -> str:
    """As comma-separated values with all digits; an interval takes three columns.

    A text that a spreadsheet would take for a formula has an apostrophe before it: names come from strangers.
    """
    places = range(len(table.columns))
    wide = {place for place in places if any(isinstance(row[place], Interval) for row in table.rows)}
    head: list[str] = []
    for place, name in enumerate(table.columns):
        name = _as_text(name)
        head += [name, f"{name} low", f"{name} high"] if place in wide else [name]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    for row in table.rows:
        cells: list[Cell] = []
        for place, cell in enumerate(row):
            if place in wide:
                cells += cell if isinstance(cell, Interval) else (cell, "", "")
            else:
                cells.append(cell)
        writer.writerow([_as_text(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()


def _as_text(cell: str) -> str:
    """What a spreadsheet shows as it stands; texts that are figures are harmless."""
    begins = cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if begins and not _FIGURE.fullmatch(cell) else cell


def to_latex(table: Table) -> str:
    """For the package booktabs; every character that LaTeX would read as a command is escaped."""
    alignment = "".join("r" if is_number(table, place) else "l" for place in range(len(table.columns)))
    lines = [
        r"\begin{table}",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(map(escape_latex, table.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(escape_latex(shown(cell)) for cell in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it; what cannot be printed becomes a space.

    A bracket at the start of a row would be read as an argument of the row before, so brackets stand in braces.
    """
    return "".join(
        _LATEX.get(sign, f"{{{sign}}}" if sign in "[]" else sign if sign.isprintable() else " ") for sign in text
    )
