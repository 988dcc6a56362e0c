"""The commands `slmrec-jax recommend` and `slmrec-jax similar`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from slmrec_jax.commands.runs import RunArgument, named_ids, open_run
from slmrec_jax.errors import UserError, escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from slmrec_jax.serving.recommendations import Ranked, Recommendations
    from slmrec_jax.serving.served import Served


@dataclass(frozen=True)
class QueryFlags(RunArgument):
    """The flags of a command that queries a run or an exported folder."""

    data: str | None = None
    """The path of the run's data set, if it was moved; it is split as in the run."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 20
    """Number of items to list."""
    format: Literal["table", "parquet", "jsonl"] = "table"
    out: Path | None = None
    """The file to write, instead of the terminal; it may be a device or a pipe."""


@dataclass(frozen=True)
class RecommendFlags(QueryFlags):
    """List the best items that users have not interacted with, as raw ids."""

    users: str = "all"
    """Raw ids, separated by commas, or `all`. Quotes keep a comma in an id, as in CSV: '"Doe, Jane",u2'."""
    users_file: Path | None = None
    """A text file with one raw id a line, exactly as written, instead of --users."""
    history: Path | None = None
    """A text file with the raw item ids of a new user, one per line, instead of --users."""
    cold_items: Path | None = None
    """Features of items without interactions, to rank among the others: a file named after its modality (.npy,
    .safetensors, .parquet, .csv or .tsv) or a folder of Hugging Face datasets, or a folder with one of these per
    modality."""
    only_cold: bool = False
    """Rank only the --cold-items."""


@dataclass(frozen=True)
class SimilarFlags(QueryFlags):
    """List the items most similar to given items, by the cosine of their trained rows, as raw ids."""

    items: str = ""
    """Raw ids, separated by commas. Quotes keep a comma in an id, as in CSV."""
    items_file: Path | None = None
    """A text file with one raw id a line, exactly as written, instead of --items."""


def run_recommend(flags: RecommendFlags) -> None:
    """Rank, and write the recommendations. Notes go to standard error."""
    from slmrec_jax.serving.named_ids import read_id_file
    from slmrec_jax.serving.recommendations import nothing_left, without_items

    users = named_ids("recommend", "users", flags.users, flags.users_file, default="all")
    history = None if flags.history is None else read_id_file(flags.history, "--history")
    if history is not None and users is not None:
        raise UserError("recommend takes one of --users and --history (for a new user)")
    if flags.only_cold and flags.cold_items is None:
        raise UserError("--only-cold needs --cold-items: the features of new items")
    without: list[Any] = []
    num_users = 0

    def counted(parts: "Iterable[Recommendations]") -> "Iterator[Recommendations]":
        nonlocal num_users
        for found in parts:
            without.extend(without_items(found).tolist())
            num_users += len(found.users)
            yield found

    _write_found(counted(_recommendations(flags, users, history)), flags)
    note = nothing_left(without, num_users)
    if note:
        print(note, file=sys.stderr)


def run_similar(flags: SimilarFlags) -> None:
    """Rank, and write the similar items."""
    from slmrec_jax.serving.served import similar_items

    items = named_ids("similar", "items", flags.items, flags.items_file, default="")
    if items is None:
        raise UserError("similar needs --items or --items-file: raw ids of items")
    _check_output(flags)
    _write_found([similar_items(_served(flags), items, flags.k)], flags)


def _write_found(parts: "Iterable[Ranked]", flags: QueryFlags) -> None:
    from slmrec_jax.serving.recommendations import write_ranked

    num_ranked = 0

    def measured() -> "Iterator[Ranked]":
        nonlocal num_ranked
        for found in parts:
            num_ranked = found.scores.shape[1]
            yield found

    write_ranked(measured(), flags.format, flags.out)
    if num_ranked < flags.k:
        print(f"-k is {flags.k}, but there are only {num_ranked} items to rank", file=sys.stderr)


def _recommendations(
    flags: RecommendFlags, users: list[str] | None, history: list[str] | None
) -> "Iterable[Recommendations]":
    """Return the recommendations of the run or exported folder, in parts unless for a table; `None` means all users."""
    from slmrec_jax.data.new_items import read_new_items
    from slmrec_jax.serving.exports import is_export
    from slmrec_jax.serving.served import recommend, recommend_in_parts, with_new_users

    _check_output(flags)
    if flags.cold_items is None:
        served = _served(flags)
        served = served if history is None else with_new_users(served, history)
        if flags.format == "table":
            return [recommend(served, users, flags.k)]
        return recommend_in_parts(served, users, flags.k)
    if is_export(flags.run):
        raise UserError(f"{flags.run} is an export; --cold-items needs the run itself")
    run = open_run(flags.run, flags.data)
    new = read_new_items(flags.cold_items, run.dataset)
    for note in new.notes:
        print(escaped(note), file=sys.stderr)
    return [run.recommend(users, flags.k, history=history, new_items=new, only_new=flags.only_cold)]


def _check_output(flags: QueryFlags) -> None:
    if flags.format == "parquet" and flags.out is None:
        raise UserError("--format parquet needs --out: the file to write")


def _served(flags: QueryFlags) -> "Served":
    """Read the parts that answer queries. An exported folder needs neither the data nor the training libraries."""
    from slmrec_jax.serving.exports import is_export, read_export

    if not is_export(flags.run):
        return open_run(flags.run, flags.data).served
    if flags.data is not None:
        raise UserError(f"{flags.run} is an export, which holds all it needs: leave out --data")
    return read_export(flags.run)
