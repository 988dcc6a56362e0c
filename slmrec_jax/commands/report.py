"""The command `slmrec-jax report`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from slmrec_jax.commands.runs import check_named, named_ids
from slmrec_jax.errors import UserError, escaped

if TYPE_CHECKING:
    from slmrec_jax.reporting.systems import ReportedSystems


@dataclass(frozen=True)
class ReportFlags:
    """Write a page about finished runs: metrics over seeds, differences, curves, groups, modalities, item space."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run folders, or the folder of a comparison, with all its runs and untrained rankings."""
    out: Path = Path("report.html")
    """The page; its pictures and tables go into a folder next to it, such as report_files."""
    items: str = ""
    """Raw ids of items whose neighbours are listed, separated by commas; by default a few items. Quotes keep a comma in
    an id."""
    items_file: Path | None = None
    """A text file with one raw id a line, exactly as written, instead of --items."""
    data: str | None = None
    """The path of the runs' data set, if it was moved; it is split as in the run."""
    explore: Path | None = None
    """A second page to write: the page of `slmrec-jax explore` as one file, with a sample of users and items."""
    force: bool = False
    """Include runs on different data, under different protocols or tested by different rules (--eval.*), whose metrics
    cannot be compared."""


def run_report(flags: ReportFlags) -> None:
    """Write the page and print its path."""
    from slmrec_jax.exploring.explored import explore
    from slmrec_jax.exploring.one_file import check_file_is_new, write_page
    from slmrec_jax.reporting.facts import gather_facts
    from slmrec_jax.reporting.report import check_page_is_new, files_folder, write_report
    from slmrec_jax.reporting.systems import find_systems

    check_named(flags.runs)
    check_page_is_new(flags.out)
    if flags.explore is not None:
        check_file_is_new(flags.explore)
        _check_beside(flags.explore, flags.out, files_folder(flags.out))
        _check_can_be_explored(find_systems(flags.runs, force=flags.force, say=lambda line: None))
    facts = gather_facts(
        flags.runs,
        items=named_ids("report", "items", flags.items, flags.items_file, default=""),
        data=flags.data,
        force=flags.force,
        say=lambda line: print(escaped(line), file=sys.stderr),
    )
    explored = None if flags.explore is None else explore([each.run for each in facts.runs])
    write_report(facts, flags.out)
    if explored is not None and flags.explore is not None:
        write_page(explored, flags.explore)
        print(f"{escaped(flags.explore)}: users, recommendations and a map of items")
    print(f"{escaped(flags.out)}; pictures and tables: {escaped(files_folder(flags.out))}")


def _check_beside(explore: Path, out: Path, files: Path) -> None:
    if explore.resolve() == out.resolve() or explore.resolve().is_relative_to(files.resolve()):
        raise UserError(f"--explore is {explore}, a part of the report in --out: give another file")


def _check_can_be_explored(found: "ReportedSystems") -> None:
    rows, num_trained = found.results.rows, sum(not each.untrained for each in found.systems)
    if num_trained not in (1, 2):
        raise UserError(
            f"--explore shows one or two trained systems, but there are {num_trained}: leave it out, or name one or two"
        )
    for row in rows[1:]:
        if row["fingerprint"] != rows[0]["fingerprint"]:
            raise UserError(
                f"--explore needs runs on the same data, but the data of {row['folder']} and {rows[0]['folder']} "
                "differ: leave it out, or name runs on the same data"
            )
