"""The commands on finished runs: `slmrec-jax export` and `slmrec-jax report`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from slmrec_jax.errors import UserError, escaped
from slmrec_jax.serving import exports
from slmrec_jax.serving.recommendations import read_id_file, split_ids

if TYPE_CHECKING:
    from slmrec_jax.training.run import Run


@dataclass(frozen=True)
class Export:
    """Write a run's embeddings for other programs, and for recommend --from."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    out: tyro.conf.Positional[Path]
    """The folder to make."""
    data: str | None = None
    """Where the run's data set is now, if it was moved."""
    faiss: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Adds an inner-product index of the items for faiss."""


def export(flags: Export) -> int:
    """Writes the folder and says what it holds."""
    from slmrec_jax.training.run import load_run
    from slmrec_jax.training.storage.folder import environment

    run = load_run(flags.run, data=flags.data)
    note_unfinished(run)
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
    return 0


def note_unfinished(run: "Run") -> None:
    """Say on standard error where a run was stopped before its end."""
    if not run.finished:
        trained, best = run.result["epochs"], run.result["best_epoch"]
        print(
            f"note: {escaped(run.folder)} is unfinished: of at most {run.config.epochs} epochs {trained} were saved, "
            f"and epoch {best} is the best so far",
            file=sys.stderr,
        )


@dataclass(frozen=True)
class Report:
    """Write a page on finished runs: metrics over seeds, differences, curves, groups, modalities, space of items."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Their folders, or that of a comparison, with all its runs and its rankings that are not trained."""
    out: Path = Path("report.html")
    """The page; its pictures and tables go into a folder beside it, as report_files."""
    items: str = ""
    """Raw ids of items whose neighbours to list, separated by commas; some by default. Quotes keep a comma in one."""
    items_file: Path | None = None
    """Instead: a text file with one raw id a line, taken as it stands there."""
    data: str | None = None
    """Where the runs' data set is now, if it was moved."""
    force: bool = False
    """Also runs on different data or under different protocols, whose figures say nothing of each other."""


def report(flags: Report) -> int:
    """Writes the page and says where."""
    from slmrec_jax.reporting.facts import gather_facts
    from slmrec_jax.reporting.report import check_free, files_folder, write_report

    if not flags.runs:
        raise UserError("no runs were named: give their folders")
    check_free(flags.out)
    if flags.items and flags.items_file is not None:
        raise UserError("report takes one of --items and --items-file")
    items = split_ids(flags.items, "--items") if flags.items else None
    if flags.items_file is not None:
        items = read_id_file(flags.items_file, "--items-file")
    facts = gather_facts(
        flags.runs,
        items=items,
        data=flags.data,
        force=flags.force,
        say=lambda line: print(escaped(line), file=sys.stderr),
    )
    write_report(facts, flags.out)
    print(f"{escaped(flags.out)}; pictures and tables: {escaped(files_folder(flags.out))}")
    return 0
