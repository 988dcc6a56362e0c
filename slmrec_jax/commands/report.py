"""The command `slmrec-jax report`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from slmrec_jax.commands.runs import check_named, named_ids
from slmrec_jax.errors import escaped


@dataclass(frozen=True)
class ReportFlags:
    """Write a page on finished runs: metrics over seeds, differences, curves, groups, modalities, space of items."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Their folders, or that of a comparison, with all its runs and its rankings that are not trained."""
    out: Path = Path("report.html")
    """The page; its pictures and tables go into a folder beside it, such as report_files."""
    items: str = ""
    """Raw ids of items whose neighbours to list, separated by commas; some by default. Quotes keep a comma in an id."""
    items_file: Path | None = None
    """A text file with one raw id a line, exactly as written, instead of --items."""
    data: str | None = None
    """The path of the runs' data set, if it was moved; it is divided as in the run."""
    force: bool = False
    """Include runs on different data or under different protocols, whose metrics cannot be compared."""


def run_report(flags: ReportFlags) -> None:
    """Write the page and print its path."""
    from slmrec_jax.reporting.facts import gather_facts
    from slmrec_jax.reporting.report import check_page_is_new, files_folder, write_report

    check_named(flags.runs)
    check_page_is_new(flags.out)
    facts = gather_facts(
        flags.runs,
        items=named_ids("report", "items", flags.items, flags.items_file, default=""),
        data=flags.data,
        force=flags.force,
        say=lambda line: print(escaped(line), file=sys.stderr),
    )
    write_report(facts, flags.out)
    print(f"{escaped(flags.out)}; pictures and tables: {escaped(files_folder(flags.out))}")
