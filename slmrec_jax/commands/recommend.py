"""The command `slmrec-jax recommend`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from slmrec_jax.commands.runs import named_ids, open_run
from slmrec_jax.data.new_items import read_new_items
from slmrec_jax.errors import UserError, escaped
from slmrec_jax.serving import exports, recommendations
from slmrec_jax.serving.recommendations import Recommendations


@dataclass(frozen=True)
class RecommendFlags:
    """List the best items that users have not interacted with, in raw ids."""

    run: Path | None = None
    """The run's folder."""
    exported: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """A folder made by `export`, instead of a run; it needs neither the data nor the libraries that train."""
    data: str | None = None
    """The path of the run's data set, if it was moved."""
    users: str = "all"
    """Raw ids, separated by commas, or `all`. Quotes keep a comma in an id, as in CSV: '"Doe, Jane",u2'."""
    users_file: Path | None = None
    """A text file with one raw id a line, exactly as written, instead of --users."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 20
    """Number of items for each user."""
    cold_items: Path | None = None
    """Features of items that have no interactions yet, to rank among the others: a file named after its modality (.npy,
    .safetensors or .parquet), or a folder with a file for each."""
    only_cold: bool = False
    """Rank the --cold-items alone."""
    format: Literal["table", "parquet", "jsonl"] = "table"
    out: Path | None = None
    """The file to write, instead of the terminal; it may be a device or a pipe."""


def run_recommend(flags: RecommendFlags) -> None:
    """Rank, and write the recommendations; notes go to standard error."""
    users = named_ids("recommend", "users", flags.users, flags.users_file, default="all")
    if flags.format == "parquet" and flags.out is None:
        raise UserError("--format parquet needs --out: the file to write")
    if flags.only_cold and flags.cold_items is None:
        raise UserError("--only-cold needs --cold-items: the features of new items")
    found = _recommendations(flags, users)
    recommendations.write_recommendations(found, flags.format, flags.out)
    if found.items.shape[1] < flags.k:
        print(f"-k is {flags.k}, and there are {found.items.shape[1]} items to rank", file=sys.stderr)
    note = recommendations.nothing_left(found)
    if note:
        print(note, file=sys.stderr)


def _recommendations(flags: RecommendFlags, users: list[str] | None) -> Recommendations:
    """Return what the run or the exported folder recommends; `None` is all users."""
    if flags.run is not None and flags.exported is None:
        run = open_run(flags.run, flags.data)
        new = None if flags.cold_items is None else read_new_items(flags.cold_items, run.dataset)
        for note in new.notes if new else ():
            print(escaped(note), file=sys.stderr)
        return run.recommend(users, flags.k, new_items=new, only_new=flags.only_cold)
    if flags.exported is not None and flags.run is None:
        if flags.data is not None or flags.cold_items is not None:
            raise UserError("--from takes neither --data nor --cold-items, which need the run: give --run")
        return exports.recommend(exports.read_export(flags.exported), users, flags.k)
    raise UserError("recommend needs one of --run, the folder of a run, and --from, a folder that export made")
