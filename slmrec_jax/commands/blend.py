"""The command `slmrec-jax blend`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import tyro

from slmrec_jax.commands.runs import check_named, open_runs
from slmrec_jax.config.protocols import Split
from slmrec_jax.errors import UserError, escaped

if TYPE_CHECKING:
    from rich.table import Table

    from slmrec_jax.studies.blending import Blend
    from slmrec_jax.training.run import Run


@dataclass(frozen=True)
class BlendFlags:
    """Rank by a weighted sum of the scores of several runs on the same data."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run folders."""
    weights: tuple[float, ...] = ()
    """The weight of each run, in their order; by default chosen on validation."""
    out: Path | None = None
    """A folder to make, as by export: for recommend and similar, and for other programs."""
    data: str | None = None
    """The path of the runs' data set, if it was moved; it is split as in the runs."""
    format: Literal["table", "json"] = "table"


def run_blend(flags: BlendFlags) -> None:
    """Blend, write the folder, and print the metrics of the runs and of the blend as a table or JSON."""
    from rich.console import Console

    from slmrec_jax.commands.tables import fit_width
    from slmrec_jax.studies.blending import blend

    check_named(flags.runs)
    if flags.out is not None and flags.out.exists():
        raise UserError(f"{flags.out} exists: give another --out")
    blended = blend(open_runs(flags.runs, flags.data), flags.weights or None)
    dataset = blended.runs[0].dataset
    splits = [split for split in get_args(Split) if len(dataset.splits[split].users) > 0]
    named: list[tuple[str, float | None, Run | Blend]] = [
        (str(run.folder), weight, run) for run, weight in zip(blended.runs, blended.weights, strict=True)
    ]
    rows = [
        {"run": name, "weight": weight, **{split: dict(ranked.evaluate(split).means) for split in splits}}
        for name, weight, ranked in [*named, ("blend", None, blended)]
    ]
    if flags.out is not None:
        blended.export(flags.out)
    if flags.format == "json":
        print(json.dumps(rows))
    else:
        console = Console()
        console.print(fit_width(_table(blended, rows), console.width))


def _table(blended: "Blend", rows: "Sequence[Mapping[str, Any]]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from slmrec_jax.studies.measurements import cutoff_of, main_metric

    config = blended.runs[0].config
    title = f"{blended.runs[0].dataset.name}, protocol {config.protocol}"
    # In a string, brackets would be parsed as markup.
    table = Table("run", title=Text(escaped(title), "table.title"), title_justify="left")
    splits = [split for split in get_args(Split) if split in rows[0]]
    cutoff = cutoff_of(main_metric(list(rows[0][splits[0]]), config))
    shown = [(split, f"{name}@{cutoff}") for split in splits for name in ("recall", "ndcg")]
    for heading in ("weight", *(" ".join(each) for each in shown)):
        table.add_column(heading, justify="right")
    for row in rows:
        weight = "" if row["weight"] is None else f"{row['weight']:.2f}"
        table.add_row(Text(escaped(row["run"])), weight, *(f"{row[split][key]:.4f}" for split, key in shown))
    return table
