"""Detection of the roles of a table's columns, by name."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from slmrec_jax.config.source import Source
from slmrec_jax.data.readers.folders import partition_keys, with_suffix
from slmrec_jax.data.readers.headers import SEPARATORS, TABLE_SUFFIXES, column_names, first_row, is_parquet
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.errors import UserError, setting

KNOWN_NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "user": (
        ("user", "userid", "uid"),
        ("reviewerid", "visitorid", "customerid", "buyerid", "memberid", "accountid", "profileid", "personid"),
        ("username", "sessionid", "session", "customer"),
    ),
    "item": (
        ("item", "itemid", "iid"),
        ("productid", "asin", "parentasin", "movieid", "trackid", "songid", "artistid", "bookid", "isbn", "videoid"),
        ("articleid", "newsid", "businessid", "gameid", "appid", "recipeid", "courseid", "contentid", "photoid", "sku"),
    ),
    "split": (("split", "xlabel"),),
    "rating": (("rating",), ("ratings", "score", "stars", "overall", "bookrating")),
    "timestamp": (
        ("timestamp", "time"),
        ("ts", "datetime", "date", "unixreviewtime", "eventtime", "ratedate"),
        ("orderedat", "orderdate", "purchasedat", "purchasedate", "createdat"),
    ),
    "label": (("label",),),
}
"""The known column names by role, ignoring case, blanks and punctuation. Earlier groups take precedence."""
COLUMN_FIELDS = {"user": "user_column", "item": "item_column", "timestamp": "time_column", "rating": "rating_column"}
"""The field of `Source` that names the column of a role. The command-line flag has the same name."""
WITHOUT_HEADER: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "u.data": ("\t", ("user", "item", "rating", "timestamp")),
    "ratings.dat": (":", ("user", "", "item", "", "rating", "", "timestamp")),
}
"""The separator and the columns of files with known names: MovieLens-100K, and MovieLens-1M and 10M (`::`)."""
BY_COLUMNS = (".txt", ".dat", ".data")
"""Suffixes that other files have as well. Such a file is an interaction table only by its columns, not by its name."""

_TYPE = re.compile(":(token|float)(_seq)?$")
"""The pattern of the type that RecBole writes after a name."""
_DATA_CELL = re.compile("[0-9]+([.,][0-9]+)?")
_NOT_NAMES = {
    "sep=": "which only Excel reads: remove this row",
    "#": "a comment: remove this row, or the # before the names",
    "<": "as in a web page: download the file itself",
    "version https://git-lfs": "which stands for a file: get it with git lfs pull",
}
"""Content that row 1 may have instead of names, by its first bytes."""
_ENCLOSED = re.compile('".*"')
_TABLES_SHOWN = 3


class ColumnLayout(NamedTuple):
    """The columns of a table."""

    names: Sequence[str]
    """The column names from the first row; or numbers from 1, if the user gave numbers instead of names."""
    roles: dict[str, list[str]]
    """The columns by role."""
    separator: str
    """The usual separator between columns; the first row may show a different one."""
    header: bool = True
    """Whether the first row holds the names."""
    quotes: bool = False
    """Whether `"` encloses texts."""


def named_columns(source: Source) -> dict[str, str]:
    """Return the columns named by the user, by role."""
    return {role: name for role, field in COLUMN_FIELDS.items() if (name := getattr(source, field)) is not None}


def table_parts(table: Path) -> list[Path]:
    """Return the files of a table: itself, or all files in its folder and subfolders, without following links."""
    if not table.is_dir():
        return [table]
    parts = []
    for place, folders, files in os.walk(table):
        folders[:] = [name for name in folders if name[0] not in "._"]
        parts += [Path(place, name) for name in files if name[0] not in "._"]
    return sorted(part for part in parts if uncompressed(part).suffix in (*TABLE_SUFFIXES, *BY_COLUMNS))


def find_layout(
    file: Path,
    named: Mapping[str, str],
    wanted: Sequence[str] = ("user", "item"),
    separator: str | None = None,
    root: Path | None = None,
) -> ColumnLayout:
    """Detect a table's layout from its first row.

    An unreadable file, which may not be a table, has no names and no roles. Columns named by the user take precedence
    over known names. The separator is one with which all wanted roles are found; `separator` is the usual one if the
    file's suffix does not determine it. With a `root`, folders `key=value` between `root` and a Parquet file are
    columns.
    """
    suffix = uncompressed(file).suffix
    if suffix == ".parquet":
        names = column_names(file) if is_parquet(file) else []
        keys = [] if root is None else [key for key, _ in partition_keys(file, root)]
        names += [key for key in keys if key not in names]
        return ColumnLayout(names, find_roles(names, named), "")
    regular, without_header = WITHOUT_HEADER.get(file.name, (separator or SEPARATORS.get(suffix, "\t"), ()))
    in_header = {} if _are_numbers(named) else named
    quotes = suffix in SEPARATORS

    def is_header(cells: Sequence[str]) -> bool:
        return set(wanted) <= set(find_roles(cells, in_header))

    row = first_row(file, regular, is_header, quotes=quotes)
    if separator is None and row and all(_ENCLOSED.fullmatch(cell) for cell in row):
        quotes = True
        row = first_row(file, regular, is_header, quotes=True)
    roles = find_roles(row, in_header)
    if "user" in roles or "item" in roles:
        return ColumnLayout(row, roles, regular, quotes=quotes)
    if _are_numbers(named):
        numbers = [str(number) for number in range(1, len(row) + 1)]
        roles = {role: [number] for role, number in named.items() if number in numbers}
        return ColumnLayout(numbers, roles, regular, header=False, quotes=quotes)
    if without_header and not named:
        return ColumnLayout(without_header, {name: [name] for name in without_header if name}, regular, header=False)
    return ColumnLayout(row, roles, regular, quotes=quotes)


def find_roles(names: Sequence[str], named: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the columns of each role: the one named by the user, or all in the first matching group of known names."""
    known: dict[str, list[str]] = {}
    for name in names:
        known.setdefault(_normalized(name), []).append(name)
    found = {}
    for role, groups in KNOWN_NAMES.items():
        if role in named:
            columns = [name for name in names if named[role] in (name, _TYPE.sub("", name))]
        else:
            by_group = ([name for called in group for name in known.get(called, [])] for group in groups)
            columns = next(filter(None, by_group), [])
        if columns:
            found[role] = columns
    return found


def choose_columns(file: Path, found: ColumnLayout, named: Mapping[str, str], wanted: Sequence[str]) -> dict[str, str]:
    """Return the column of each role. Roles that are wanted or named by the user must have one."""
    names = found.names or column_names(file)
    if not names:
        raise UserError(f"{file}: it is empty; expected a table with columns of {' and '.join(wanted)}")
    if found.header and found.separator and _are_numbers(named):
        raise UserError(f"{file}: row 1 holds the names {listed(names)}; give these instead of column numbers")
    for role, field in COLUMN_FIELDS.items():
        columns = found.roles.get(role, [])
        if not columns and role in named:
            choice = f"give one of these with {setting(field)}"
            raise UserError(f"{file}: there is no column {named[role]!r}; it has {listed(names)}: {choice}")
        if not columns and role in wanted:
            if not found.header and _are_numbers(named):
                raise UserError(
                    f"{file}: there is no column of {role}s: give its number, 1 to {len(names)}, with {setting(field)}"
                )
            others = ", ".join(setting(each) for each in COLUMN_FIELDS.values() if each != field)
            raise UserError(f"{file}: {_no_column(role, names)}, with {setting(field)} (others with {others})")
        if len(columns) > 1:
            choice = f"keep one, or name it with {setting(field)}"
            raise UserError(f"{file}: {listed(columns)} could all be the column of {role}s; {choice}")
    chosen = {role: columns[0] for role, columns in found.roles.items()}
    for column in chosen.values():
        roles = [role for role in chosen if chosen[role] == column]
        if len(roles) > 1:
            flags = " or ".join(setting(COLUMN_FIELDS[role]) for role in roles if role in COLUMN_FIELDS)
            raise UserError(
                f"{file}: column {column!r} is used for both {' and '.join(roles)}; name another with {flags}"
            )
    return chosen


def note_renamed(file: Path, chosen: Mapping[str, str]) -> list[str]:
    """Return a note about the columns whose names differ from their roles."""
    others = [
        f"{role} is column {chosen[role]!r}"
        for role in chosen
        if role in COLUMN_FIELDS and _normalized(chosen[role]) not in KNOWN_NAMES[role][0]
    ]
    return [f"{file.name}: {', '.join(others)}"] if others else []


def refuse_tables(folder: Path, folders_of_parts: Sequence[Path]) -> None:
    """Raise an error that describes the first tables, or parts of tables, in a folder, if there are any.

    None of them is a known table of interactions.
    """
    tables = [file for file in with_suffix(folder, (*TABLE_SUFFIXES, ".inter")) if file.is_file()]
    tables += [part for each in folders_of_parts for part in table_parts(each)]
    if not tables:
        return
    shown = [(str(file.relative_to(folder)), column_names(file)) for file in tables[:_TABLES_SHOWN]]
    found = "; ".join(f"{name!r} has the columns {listed(columns)}" for name, columns in shown)
    untyped = [file for file in tables if uncompressed(file).suffix == ".inter"]
    fixes = []
    if len(untyped) < len(tables):
        fixes.append(f"name the columns of users and items with {setting('user_column')} and {setting('item_column')}")
    if untyped:
        fixes.append("write types in the header of the .inter file, such as user_id:token, or rename it to .tsv")
    raise UserError(f"{folder}: no known table of interactions; {found}: {', or '.join(fixes)}")


def _normalized(name: str) -> str:
    """Convert a name to lower case, without its type, blanks and punctuation."""
    return "".join(filter(str.isalnum, _TYPE.sub("", name))).lower()


def _are_numbers(named: Mapping[str, str]) -> bool:
    return bool(named) and all(name.isdecimal() for name in named.values())


def _no_column(role: str, names: Sequence[str]) -> str:
    if any(_DATA_CELL.fullmatch(name) for name in names):
        return (
            f"there is no column {role!r}; row 1 has {listed(names)}, which is data: put a row of names before it, "
            f"such as user and item, or give the number of the column"
        )
    for start, cause in _NOT_NAMES.items():
        if names[0].startswith(start):
            return f"there is no column {role!r}; row 1 begins with {names[0][:30]!r}, {cause}; or name it"
    if len(names) == 1 and len(names[0].split()) > 1:
        return f"there is no column {role!r}; row 1 is {listed(names)}: separate columns by commas or tabs, or name it"
    return f"there is no column {role!r}; it has {listed(names)}: rename the column of {role}s, or name it"
