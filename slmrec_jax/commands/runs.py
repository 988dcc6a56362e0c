"""The commands `slmrec-jax results` and `slmrec-jax export`, and what all commands on finished runs share."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from slmrec_jax.errors import UserError, escaped
from slmrec_jax.serving import exports
from slmrec_jax.serving.recommendations import read_id_file, split_ids
from slmrec_jax.studies import results

if TYPE_CHECKING:
    from slmrec_jax.training.run import Run


@dataclass(frozen=True)
class ResultsFlags:
    """Show finished runs side by side."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Their folders."""
    force: bool = False
    """Include runs on different data or under different protocols, whose metrics cannot be compared."""
    format: Literal["table", "json"] = "table"


def run_results(flags: ResultsFlags) -> None:
    """Print the test metrics of the runs as a table or JSON."""
    check_named(flags.runs)
    found = results.read_finished_runs(flags.runs, force=flags.force)
    if flags.format == "json":
        print(json.dumps([row | {"folder": str(row["folder"])} for row in found.rows]))
    else:
        Console().print(found.table())


@dataclass(frozen=True)
class ExportFlags:
    """Write a run's embeddings for other programs, and for recommend --from."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    out: tyro.conf.Positional[Path]
    """The folder to make."""
    data: str | None = None
    """The path of the run's data set, if it was moved."""
    faiss: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Add an inner-product index of the items for faiss."""


def run_export(flags: ExportFlags) -> None:
    """Write the folder and print its size."""
    from slmrec_jax.training.storage.folder import environment

    run = open_run(flags.run, flags.data)
    about = {
        "model": run.config.model,
        "protocol": run.config.protocol,
        **{name: run.result.get(name) for name in ("best_epoch", "seed", "test")},
        "finished": run.finished,
        "fingerprint": run.dataset.fingerprint,
        "versions": environment()["packages"],
    }
    made = exports.make_export(run.dataset, run.embeddings, run.config.eval.score, about)
    exports.write_export(made, flags.out, faiss=flags.faiss)
    size = sum(file.stat().st_size for file in flags.out.iterdir())
    print(f"{escaped(flags.out)}: {len(made.user_ids)} users, {len(made.item_ids)} items, {size / 2**20:.1f} MiB")


def open_run(folder: Path, data: str | None) -> "Run":
    """Load a run, and note on standard error if it was stopped before its end."""
    from slmrec_jax.training.run import load_run

    run = load_run(folder, data=data)
    if not run.finished:
        print(
            f"note: {escaped(run.folder)} is unfinished: {run.result['epochs']} of at most {run.config.epochs} epochs "
            f"were saved, and epoch {run.result['best_epoch']} is the best so far",
            file=sys.stderr,
        )
    return run


def check_named(runs: tuple[Path, ...]) -> None:
    """Reject an empty list of run folders."""
    if not runs:
        raise UserError("no runs were named: give their folders")


def named_ids(command: str, flag: str, value: str, file: Path | None, *, default: str) -> list[str] | None:
    """Return the raw ids that a flag or its `-file` twin names, or `None` where neither is given.

    Raises:
        UserError: Both are given, or the ids cannot be read.
    """
    if file is None:
        return None if value == default else split_ids(value, f"--{flag}")
    if value != default:
        raise UserError(f"{command} takes one of --{flag} and --{flag}-file")
    return read_id_file(file, f"--{flag}-file")
