"""Finds out what the columns of a table are for, by what they may be called."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from slmrec_jax.config.source import Source
from slmrec_jax.data.readers.headers import SEPARATORS, TABLE_SUFFIXES, column_names, first_row, is_parquet
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.errors import UserError, setting

KNOWN_NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "user": (
        ("user", "userid", "uid"),
        ("reviewerid", "visitorid", "customerid", "buyerid", "memberid", "accountid", "profileid", "personid"),
        ("username", "sessionid", "session"),
    ),
    "item": (
        ("item", "itemid", "iid"),
        ("productid", "asin", "parentasin", "movieid", "trackid", "songid", "artistid", "bookid", "isbn", "videoid"),
        ("articleid", "newsid", "businessid", "gameid", "appid", "recipeid", "courseid", "contentid", "photoid", "sku"),
    ),
    "split": (("split", "xlabel"),),
    "rating": (("rating",), ("ratings", "score", "stars", "overall", "bookrating")),
    "timestamp": (("timestamp", "time"), ("ts", "datetime", "date", "unixreviewtime", "eventtime", "ratedate")),
    "label": (("label",),),
}
"""What columns may be called, but for capitals, blanks and signs. An earlier group goes before a later one."""
COLUMN_FIELDS = {"user": "user_column", "item": "item_column", "timestamp": "time_column", "rating": "rating_column"}
"""The field of `Source` that names the column; a flag of the command is called like it."""
WITHOUT_HEADER: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "u.data": ("\t", ("user", "item", "rating", "timestamp")),
    "ratings.dat": (":", ("user", "", "item", "", "rating", "", "timestamp")),
}
"""The separator and the columns of files that are known by their name: MovieLens-100K, and 1M and 10M (`::`)."""

_TYPE = re.compile(":(token|float)(_seq)?$")
"""What RecBole writes after a name."""
_NUMBER = re.compile("[0-9]+([.,][0-9]+)?")
_NO_NAMES = {
    "sep=": "which only Excel reads: remove this row",
    "#": "a comment: remove this row, or the # before the names",
    "<": "as in a web page: download the file itself",
    "version https://git-lfs": "which stands for a file: get that by git lfs pull",
}
"""What may stand in row 1 instead of names, by how it begins."""
_ENCLOSED = re.compile('".*"')
_SHOWN = 3
_BEGINNING = 30


class Layout(NamedTuple):
    """The columns of a table."""

    names: Sequence[str]
    """From the first row; or numbers counted from 1, where the source gives such instead of names."""
    roles: dict[str, list[str]]
    """The columns by what they are for."""
    separator: str
    """What stands between columns by rule; the first row may show another."""
    header: bool = True
    """Whether the first row holds the names."""
    quotes: bool = False
    """Whether `"` encloses a text."""


def layout(
    file: Path, source: Source, wanted: Sequence[str] = ("user", "item"), separator: str | None = None
) -> Layout:
    """Look at the first row of a table; there are no names in what cannot be read, as that may be no table.

    Args:
        file: Text or Parquet.
        source: What it names goes before names that are known.
        wanted: What the columns of the right separator are for.
        separator: What stands between columns by rule, where the file's suffix does not say.
    """
    suffix = uncompressed(file).suffix
    if suffix == ".parquet":
        names = column_names(file) if is_parquet(file) else []
        return Layout(names, roles(names, source), "")
    by_rule, known = WITHOUT_HEADER.get(file.name, (separator or SEPARATORS.get(suffix, "\t"), ()))
    quotes = suffix in SEPARATORS
    given = _given(source)
    plain = source if not _are_numbers(given) else Source(source.data)
    row = first_row(file, by_rule, lambda names: set(wanted) <= set(roles(names, plain)), quotes=quotes)
    if separator is None and row and all(_ENCLOSED.fullmatch(cell) for cell in row):
        quotes = True
        row = first_row(file, by_rule, lambda names: set(wanted) <= set(roles(names, plain)), quotes=True)
    if not {"user", "item"}.isdisjoint(roles(row, plain)):
        return Layout(row, roles(row, plain), by_rule, quotes=quotes)
    if _are_numbers(given):
        known = tuple(str(number) for number in range(1, len(row) + 1))
        return Layout(known, {role: [each] for role, each in given.items() if each in known}, by_rule, False, quotes)
    if known and not given:
        return Layout(known, {name: [name] for name in known if name}, by_rule, False)
    return Layout(row, roles(row, plain), by_rule, quotes=quotes)


def roles(names: Sequence[str], source: Source) -> dict[str, list[str]]:
    """The columns by what they are for: the one that the source names, or else those of the first known names."""
    known: dict[str, list[str]] = {}
    for name in names:
        known.setdefault(_plain(name), []).append(name)
    found = {}
    for role, groups in KNOWN_NAMES.items():
        named = getattr(source, COLUMN_FIELDS[role]) if role in COLUMN_FIELDS else None
        if named is not None:
            columns = [name for name in names if named in (name, _TYPE.sub("", name))]
        else:
            by_group = ([name for called in group for name in known.get(called, [])] for group in groups)
            columns = next(filter(None, by_group), [])
        if columns:
            found[role] = columns
    return found


def chosen_roles(file: Path, found: Layout, source: Source, wanted: Sequence[str]) -> dict[str, str]:
    """The one column for each role.

    Raises:
        UserError: There is none for one that is wanted or that the source names, several for one, or one for several.
    """
    names = found.names or column_names(file)
    if not names:
        raise UserError(f"{file}: it is empty; expected a table with columns of {' and '.join(wanted)}")
    if found.header and found.separator and _are_numbers(_given(source)):
        raise UserError(f"{file}: row 1 holds the names {listed(names)}; give these instead of the columns' numbers")
    for role in dict.fromkeys((*wanted, *COLUMN_FIELDS)):
        field = COLUMN_FIELDS[role]
        named, flags = getattr(source, field), setting(field)
        if role not in found.roles and named is not None:
            raise UserError(
                f"{file}: there is no column {named!r}; it has {listed(names)}: give one of these by {flags}"
            )
        if role not in found.roles and role in wanted:
            others = ", ".join(setting(each) for each in COLUMN_FIELDS.values() if each != field)
            raise UserError(f"{file}: {_no_column(role, names)}, by {flags} (others by {others})")
        if len(found.roles.get(role, [])) > 1:
            columns = listed(found.roles[role])
            raise UserError(f"{file}: {columns} are all columns of {role}s; keep one, or name it by {flags}")
    chosen = {role: columns[0] for role, columns in found.roles.items()}
    roles_of: dict[str, list[str]] = {}
    for role, column in chosen.items():
        roles_of.setdefault(column, []).append(role)
    for column, several in roles_of.items():
        if len(several) > 1:
            flags = " or ".join(setting(COLUMN_FIELDS[role]) for role in several if role in COLUMN_FIELDS)
            raise UserError(f"{file}: column {column!r} is that of {' and '.join(several)}; name another by {flags}")
    return chosen


def renamed(file: Path, taken: Mapping[str, str]) -> list[str]:
    """A note on the columns that are not called as their role is."""
    others = [f"{role} is column {name!r}" for role, name in taken.items() if _plain(name) not in KNOWN_NAMES[role][0]]
    return [f"{file.name}: {', '.join(others)}"] if others else []


def columns_of_tables(folder: Path) -> list[str]:
    """The columns of the first tables of a folder, in words."""
    tables = [file for file in sorted(folder.iterdir()) if uncompressed(file).suffix in (*TABLE_SUFFIXES, ".inter")]
    return [f"{file.name!r} has the columns {listed(column_names(file))}" for file in tables[:_SHOWN] if file.is_file()]


def _plain(name: str) -> str:
    """A name without its type, capitals, blanks and signs."""
    return "".join(filter(str.isalnum, _TYPE.sub("", name))).lower()


def _given(source: Source) -> dict[str, str]:
    """The columns that the source names, by what they are for."""
    return {role: name for role, field in COLUMN_FIELDS.items() if (name := getattr(source, field)) is not None}


def _are_numbers(given: Mapping[str, str]) -> bool:
    return bool(given) and all(name.isdecimal() for name in given.values())


def _no_column(role: str, names: Sequence[str]) -> str:
    if any(_NUMBER.fullmatch(name) for name in names):
        return (
            f"there is no column {role!r}; row 1 has {listed(names)}, which is data: put a row of names before it, as "
            f"user and item, or give the number of the column"
        )
    for start, cause in _NO_NAMES.items():
        if names[0].startswith(start):
            return f"there is no column {role!r}; row 1 begins with {names[0][:_BEGINNING]!r}, {cause}; or name it"
    if len(names) == 1 and len(names[0].split()) > 1:
        return f"there is no column {role!r}; row 1 is {listed(names)}: separate columns by commas or tabs, or name it"
    return f"there is no column {role!r}; it has {listed(names)}: rename the one of {role}s, or name it"
