"""Tables of a report, and their CSV and LaTeX forms; `page` writes them as HTML."""

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from slmrec_jax.evaluation.analysis import Interval

Cell: TypeAlias = str | int | float | Interval

NONE = "—"
"""The text of an undefined or empty cell."""

_NUMERAL = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?", re.ASCII)
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",  # \textquotedbl is not in LaTeX's default font encoding
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{sign: f"{{{sign}}}" for sign in "[]"},  # a bracket at the start of a row would be an argument of `\\`
    }
)


class ReportTable(NamedTuple):
    """A table of a report."""

    name: str
    """The name of its files, without the suffix."""
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def without_single_name(table: ReportTable, count: int) -> ReportTable:
    """Drop the first column, which names one of `count` systems or runs, if there is only one."""
    if count > 1:
        return table
    return table._replace(columns=table.columns[1:], rows=[row[1:] for row in table.rows])


def cell_text(cell: Cell) -> str:
    """Format a cell with four decimals, an interval in brackets, and a dash for NaN."""
    if isinstance(cell, Interval):
        return f"{cell.mean:.4f} [{cell.low:.4f}, {cell.high:.4f}]"
    if isinstance(cell, float):
        if math.isnan(cell):
            return NONE
        return f"{cell:.4f}" if cell == 0 or abs(cell) >= 5e-5 else f"{cell:.1e}"
    return str(cell)


def is_numeric_column(table: ReportTable, column: int) -> bool:
    """Return whether a column holds only numbers and dashes, with at least one number."""
    texts = [cell_text(row[column]).split(" [")[0] for row in table.rows]
    return any(map(_NUMERAL.fullmatch, texts)) and all(text == NONE or _NUMERAL.fullmatch(text) for text in texts)


def to_csv(table: ReportTable) -> str:
    """Return the table as CSV, with six digits for floats and three columns for an interval.

    Texts that a spreadsheet would read as formulas get a leading apostrophe, since names are untrusted.
    """
    wide = [any(isinstance(row[place], Interval) for row in table.rows) for place in range(len(table.columns))]
    head: list[str] = []
    for name, is_wide in zip(table.columns, wide, strict=True):
        head += [name, f"{name} low", f"{name} high"] if is_wide else [name]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(without_formula, head))
    for row in table.rows:
        cells: list[Cell] = []
        for cell, is_wide in zip(row, wide, strict=True):
            cells += cell if isinstance(cell, Interval) else [cell, "", ""] if is_wide else [cell]
        writer.writerow(map(_csv_cell, cells))
    return text.getvalue()


def without_formula(cell: Cell) -> Cell:
    """Put an apostrophe before a text that a spreadsheet would read as a formula. Numbers are harmless."""
    is_formula = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if is_formula and not _NUMERAL.fullmatch(str(cell)) else cell


def to_latex(table: ReportTable) -> str:
    """Return the table in LaTeX, for the package booktabs, with all special characters escaped."""
    alignment = "".join("r" if is_numeric_column(table, place) else "l" for place in range(len(table.columns)))
    rows = [[escape_latex(cell_text(cell)) for cell in row] for row in table.rows]
    return booktabs(escape_latex(table.caption), alignment, [escape_latex(name) for name in table.columns], rows)


def booktabs(caption: str, alignment: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for the package booktabs. All texts must already be LaTeX (`escape_latex`)."""
    lines = [
        r"\begin{table}",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Escape a text for LaTeX. Unprintable characters become spaces."""
    return "".join(sign if sign.isprintable() else " " for sign in text).translate(_LATEX)


def _csv_cell(cell: Cell) -> Cell:
    return f"{cell:.6g}" if isinstance(cell, float) else without_formula(cell)
