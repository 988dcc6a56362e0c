"""The commands `slmrec-jax results` and `slmrec-jax export`, and helpers of all commands on finished runs."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from slmrec_jax.errors import UserError, escaped

if TYPE_CHECKING:
    from slmrec_jax.data import Dataset
    from slmrec_jax.training.run import Run


@dataclass(frozen=True)
class RunArgument:
    """The argument for the folder that a command reads."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder; for `recommend` and `similar` also a folder made by `export`."""


@dataclass(frozen=True)
class ResultsFlags:
    """Show finished runs side by side."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run folders."""
    force: bool = False
    """Include runs on different data, under different protocols or tested by different rules (--eval.*), whose metrics
    cannot be compared."""
    format: Literal["table", "json"] = "table"


def run_results(flags: ResultsFlags) -> None:
    """Print the test metrics of the runs as a table or JSON."""
    from rich.console import Console

    from slmrec_jax.commands.tables import fit_width
    from slmrec_jax.studies import results

    check_named(flags.runs)
    found = results.read_finished_runs(flags.runs, force=flags.force)
    if flags.format == "json":
        print(json.dumps([row | {"folder": str(row["folder"])} for row in found.rows]))
    else:
        console = Console()
        console.print(fit_width(found.table(), console.width))


@dataclass(frozen=True)
class ExportFlags:
    """Write a run's embeddings for other programs, and for recommend and similar."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The folder to make."""
    data: str | None = None
    """The path of the run's data set, if it was moved; it is split as in the run."""
    faiss: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Add an inner-product index of the items for faiss."""
    onnx: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Add ONNX models that rank for users and for histories of new users."""


def run_export(flags: ExportFlags) -> None:
    """Write the folder and print its size."""
    run = open_run(flags.run, flags.data)
    run.export(flags.out, faiss=flags.faiss, onnx=flags.onnx)
    size = sum(file.stat().st_size for file in flags.out.iterdir())
    users, items = run.dataset.num_users, run.dataset.num_items
    print(f"{escaped(flags.out)}: {users} users, {items} items, {size / 2**20:.1f} MiB")


def open_run(folder: Path, data: str | None) -> "Run":
    """Load a run, and print a note to standard error if it is unfinished."""
    return open_runs([folder], data)[0]


def open_runs(folders: Sequence[Path], data: str | None) -> "list[Run]":
    """Load runs, which share the data in memory, and print a note to standard error for each that is unfinished."""
    from slmrec_jax.training.loading import load_sharing

    datasets: dict[str, Dataset] = {}
    runs = []
    for folder in folders:
        run = load_sharing(folder, datasets, data)
        if not run.finished:
            print(
                f"note: {escaped(run.folder)} is unfinished: {run.result['epochs']} of at most {run.config.epochs} "
                f"epochs were saved, and epoch {run.result['best_epoch']} is the best so far",
                file=sys.stderr,
            )
        runs.append(run)
    return runs


def check_named(runs: tuple[Path, ...]) -> None:
    """Reject an empty list of run folders."""
    if not runs:
        raise UserError("no runs were named: give their folders")


def named_ids(command: str, flag: str, value: str, file: Path | None, *, default: str) -> list[str] | None:
    """Return the raw ids given by a flag or its `-file` variant; `None` if neither is given.

    Raises:
        UserError: Both are given, or the ids cannot be read.
    """
    from slmrec_jax.serving.named_ids import read_id_file, split_ids

    if file is None:
        return None if value == default else split_ids(value, f"--{flag}")
    if value != default:
        raise UserError(f"{command} takes one of --{flag} and --{flag}-file")
    return read_id_file(file, f"--{flag}-file")
