"""Tables that fit the width of a terminal."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Group as Stack
from rich.console import JustifyMethod
from rich.table import Column, Table
from rich.text import Text

from slmrec_jax.config.protocols import Side
from slmrec_jax.errors import escaped
from slmrec_jax.evaluation.groups import Group
from slmrec_jax.training.storage.folder import Sampled

_HEADING_BREAK = re.compile(r"(?<=[._\s])|(?=@)")
_CELL_BREAK = re.compile(r"(?<=\s)(?=±)")
_LEAST_TEXT = 12
"""The number of letters to which a path may be shortened before other columns are."""


def fit_width(table: Table, width: int) -> Stack:
    """Fit a table to a terminal of a given width.

    If the table is too wide, headings are broken before `@` and after points and underscores, and deviations move below
    their means. In columns that are not right-justified, such as paths, the middle of cells is cut out; headings are
    never cut. If that is not enough, the columns are split over several tables, each of which repeats the first column.
    In title words that are wider than the table, such as paths, the middle is cut out, too.
    """
    first, *others = (_shape(column) for column in table.columns)
    parts = [[first]]
    for shape in others:
        fits = sum(each.least for each in (*parts[-1], shape)) <= _room(width, len(parts[-1]) + 1)
        if fits or len(parts[-1]) == 1:
            parts[-1].append(shape)
        else:
            parts.append([first, shape])
    fitted = [_fitted_part(part, width) for part in parts]
    top, bottom = fitted[0], fitted[-1]
    top.title, top.title_justify = table.title, table.title_justify
    bottom.caption, bottom.caption_justify = table.caption, table.caption_justify
    if isinstance(table.title, Text):
        line = width - _room(width, len(parts[0])) + sum(column.width or 0 for column in top.columns)
        words = (shorten_middle(word, line) for word in table.title.plain.split(" "))
        top.title = Text(" ".join(words), table.title.style)
    return Stack(*fitted)


def shorten_middle(text: str, width: int) -> str:
    """Shorten a text to at most `width` cells; of a longer path, keep the start and preferably the last name."""
    if cell_len(text) <= width:
        return text
    name = cell_len(text.rpartition("/")[2]) + 1
    tail = min(max(2 * (width - 1) // 3, name), max(width - 2, 0))
    head = width - 1 - tail
    start, end = text, text
    while cell_len(start) > head:
        start = start[:-1]
    while cell_len(end) > tail:
        end = end[1:]
    return f"{start}…{end}"


def metrics_table(
    splits: Mapping[str, Mapping[str, float]], title: str, sampled: Mapping[str, Sampled] | None = None
) -> Table:
    """Make a table with one row per metric and one column per split and cut-off.

    Args:
        splits: The metrics of each split. All splits must have the same metrics.
        title: The table's title.
        sampled: The samples of users, for splits whose users were not all ranked.
    """
    sampled = sampled or {}
    table = _titled(title, "metric")
    notes = [f"{split}: {each['users']:,} of {each['of']:,} users, ± 95 %" for split, each in sampled.items()]
    table.caption, table.caption_justify = "; ".join(notes) or None, "left"
    keys = [key.split("@") for key in next(iter(splits.values()))]
    cutoffs = list(dict.fromkeys(cutoff for _, cutoff in keys))
    for split in splits:
        for cutoff in cutoffs:
            table.add_column(f"{split} @{cutoff}", justify="right")
    for metric in dict.fromkeys(name for name, _ in keys):
        cells = (
            _with_half_width(values, f"{metric}@{cutoff}", sampled[split]["half_widths"] if split in sampled else {})
            for split, values in splits.items()
            for cutoff in cutoffs
        )
        table.add_row(metric, *cells)
    return table


def groups_table(groups: Sequence[Group], side: Side, title: str) -> Table:
    """Make a table with one row per group, with recall and NDCG at the first two cut-offs."""
    cutoffs = list(dict.fromkeys(key.split("@")[1] for key in groups[0].means))[:2]
    metrics = [f"{metric}@{k}" for k in cutoffs for metric in ("recall", "ndcg")]
    table = _titled(title, "training")
    for name in (side, "held out", *metrics):
        table.add_column(name, justify="right")
    for group in groups:
        values = (_with_half_width(group.means, metric, group.half_widths) for metric in metrics)
        table.add_row(group.label, str(group.num_nodes), str(group.num_interactions), *values)
    return table


def _with_half_width(means: Mapping[str, float], key: str, half_widths: Mapping[str, float]) -> str:
    return f"{means[key]:.4f}" + (f" ± {half_widths[key]:.4f}" if key in half_widths else "")


def _titled(title: str, *columns: str) -> Table:
    # In a string, brackets of the title would be parsed as markup.
    return Table(*columns, title=Text(escaped(title), "table.title"), title_justify="left")


class _Shape(NamedTuple):
    """The content of a column, and the widths it can have."""

    heading: str
    justify: JustifyMethod
    cells: Sequence[Text]
    least: int
    """The minimum width at which nothing is broken within a word."""
    of_cells: int
    """The width of the longest cell, at least `least`."""
    whole: int
    """The width at which nothing is broken or shortened."""

    @property
    def is_text(self) -> bool:
        """Whether the cells may be shortened."""
        return self.justify != "right"


def _shape(column: Column) -> _Shape:
    heading = str(column.header)
    cells = [cell if isinstance(cell, Text) else Text.from_markup(str(cell)) for cell in column.cells]
    longest = max((cell.cell_len for cell in cells), default=0)
    if column.justify == "right":
        pieces = (piece for cell in cells for piece in _CELL_BREAK.split(cell.plain))
        least = max((cell_len(piece.strip()) for piece in pieces), default=0)
    else:
        least = min(longest, _LEAST_TEXT)
    least = max(least, *(cell_len(piece.strip()) for piece in _HEADING_BREAK.split(heading)))
    whole = max(cell_len(heading), least, longest)
    return _Shape(heading, column.justify, cells, least, max(least, longest), whole)


def _room(width: int, num_columns: int) -> int:
    """Return the width that borders and padding leave for the columns of a table."""
    return width - 3 * num_columns - 1


def _fitted_part(shapes: Sequence[_Shape], width: int) -> Table:
    table, widths = Table(), _column_widths(shapes, _room(width, len(shapes)))
    for shape, own in zip(shapes, widths, strict=True):
        heading = "\n".join(_broken(shape.heading, own))
        table.add_column(Text(heading), justify=shape.justify, overflow="fold", width=own)
    for row in zip(*(shape.cells for shape in shapes), strict=True):
        table.add_row(*(_cell(text, shape, own) for text, shape, own in zip(row, shapes, widths, strict=True)))
    return table


def _column_widths(shapes: Sequence[_Shape], room: int) -> list[int]:
    """Choose widths whose sum is at most `room`, if that leaves each column at least one letter."""
    if sum(shape.whole for shape in shapes) <= room:
        return [shape.whole for shape in shapes]
    widths = [shape.least for shape in shapes]
    left = room - sum(widths)
    while left < 0 and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
        left += 1
    texts = [place for place, shape in enumerate(shapes) if shape.is_text]
    while left > 0 and (short := [place for place in texts if widths[place] < shapes[place].of_cells]):
        widths[min(short, key=widths.__getitem__)] += 1
        left -= 1
    # Numbers are on one line in all columns or in none.
    if left >= sum(shape.whole - own for shape, own in zip(shapes, widths, strict=True) if not shape.is_text):
        widths = [own if shape.is_text else shape.whole for shape, own in zip(shapes, widths, strict=True)]
    return widths


def _broken(heading: str, width: int) -> list[str]:
    """Break a heading into lines. A piece longer than a line is broken anywhere."""
    lines = [""]
    for piece in _HEADING_BREAK.split(heading):
        if cell_len((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
        else:
            lines.append(piece)
    return [line.rstrip() for line in lines if line]


def _cell(text: Text, shape: _Shape, width: int) -> Text:
    if text.cell_len <= width:
        return text
    if shape.is_text:
        return Text(shorten_middle(text.plain, width))
    breaks = [found.start() for found in _CELL_BREAK.finditer(text.plain)]
    parts = text.divide(breaks)
    for part in parts:
        part.rstrip()
    return Text("\n").join(parts)
