"""The command `slmrec-jax blend`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

import tyro

from slmrec_jax.commands.runs import check_named, open_runs
from slmrec_jax.config.protocols import Split
from slmrec_jax.errors import UserError, escaped

if TYPE_CHECKING:
    from rich.table import Table

    from slmrec_jax.evaluation.protocol import Evaluation
    from slmrec_jax.studies.blending import Blend


@dataclass(frozen=True)
class BlendFlags:
    """Rank by a weighted sum of the scores of several runs, and of rankings without training, on the same data."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run folders. The first one's protocol and cut-offs hold for all, except that scores are inner products."""
    weights: str = ""
    """The weight of each run, then of each of --untrained, separated by commas; by default chosen on validation."""
    untrained: str = ""
    """Rankings without training to add, separated by commas: popularity, itemknn, randomwalk."""
    out: Path | None = None
    """A folder to make, as by export: for recommend and similar, and for other programs."""
    faiss: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Add an inner-product index of the items for faiss to --out."""
    onnx: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Add ONNX models that rank for users and for histories of new users to --out."""
    data: str | None = None
    """The path of the runs' data set, if it was moved; it is split as in the runs."""
    format: Literal["table", "json"] = "table"


class Row(NamedTuple):
    """A run, a ranking without training, or the blend, as measured on each split."""

    name: str
    weight: float | None
    """`None` for the blend."""
    measured: "dict[str, Evaluation]"


def run_blend(flags: BlendFlags) -> None:
    """Blend, print the metrics of the blend and of what it is made of as a table or JSON, and write the folder."""
    from rich.console import Console

    from slmrec_jax.commands.tables import fit_width
    from slmrec_jax.serving.exports import check_packages
    from slmrec_jax.studies.blending import blend

    check_named(flags.runs)
    _check_distinct(flags.runs)
    weights = _parse_weights(flags.weights)
    if flags.out is None and (flags.faiss or flags.onnx):
        raise UserError("--faiss and --onnx add to --out: give it")
    if flags.out is not None and flags.out.exists():
        raise UserError(f"{flags.out} exists: give another --out")
    check_packages(faiss=flags.faiss, onnx=flags.onnx)
    untrained = flags.untrained.split(",") if flags.untrained else []
    blended = blend(open_runs(flags.runs, flags.data), weights, untrained=untrained)
    rows = _measured(blended)
    if flags.format == "json":
        print(json.dumps(_record(blended, rows)))
    else:
        console = Console()
        console.print(fit_width(_table(blended, rows), console.width))
    if flags.out is not None:
        blended.export(flags.out, faiss=flags.faiss, onnx=flags.onnx)
        print(f"{escaped(flags.out)}: for recommend and similar", file=sys.stderr)


def _check_distinct(runs: Sequence[Path]) -> None:
    folders = [folder.resolve() for folder in runs]
    for folder, run in zip(folders, runs, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"{run} is named twice: name each run once, and give --weights instead")


def _parse_weights(text: str) -> list[float] | None:
    try:
        return [float(each) for each in text.split(",")] if text else None
    except ValueError:
        raise UserError(f"--weights is {text!r}: give numbers separated by commas, such as 2,1") from None


def _measured(blended: "Blend") -> list[Row]:
    """Measure the members and the blend by the same rules."""
    from slmrec_jax.evaluation.protocol import evaluate

    splits = blended.runs[0].dataset.splits
    plans = {split: blended.plan(split) for split in get_args(Split) if len(splits[split].users) > 0}
    measured = [
        {split: evaluate(plan, embeddings) for split, plan in plans.items()}
        for embeddings in (*(member.embeddings for member in blended.members), blended.embeddings)
    ]
    names = (*(member.name for member in blended.members), "blend")
    return [Row(*each) for each in zip(names, (*blended.weights, None), measured, strict=True)]


def _record(blended: "Blend", rows: Sequence[Row]) -> dict[str, Any]:
    from slmrec_jax.training.selection import sampled_of

    def metrics(row: Row) -> dict[str, Any]:
        return {split: dict(each.means) for split, each in row.measured.items()}

    first, (*members, both) = blended.runs[0], rows
    samples = {split: sampled_of(each) for split, each in both.measured.items()}
    return {
        "protocol": first.config.protocol,
        "score": blended.served.score,
        "fingerprint": first.dataset.fingerprint,
        "runs": [{"run": row.name, "weight": row.weight, **metrics(row)} for row in members[: len(blended.runs)]],
        "untrained": {row.name: {"weight": row.weight, **metrics(row)} for row in members[len(blended.runs) :]},
        "blend": metrics(both),
        **({"sampled": samples} if any(samples.values()) else {}),
    }


def _table(blended: "Blend", rows: Sequence[Row]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    from slmrec_jax.studies.measurements import cutoff_of, main_metric

    config, both = blended.runs[0].config, rows[-1].measured
    cutoff = cutoff_of(main_metric(list(next(iter(both.values())).means), config))
    shown = [(split, f"{name}@{cutoff}") for split in both for name in ("recall", "ndcg")]
    title = f"{blended.runs[0].dataset.name}, protocol {config.protocol}"
    # In a string, brackets would be parsed as markup.
    table = Table("run", title=Text(escaped(title), "table.title"), title_justify="left")
    sampled = [f"{split}: {len(each.users):,} of {each.population:,} users" for split, each in both.items()]
    if any(each.half_widths for each in both.values()):
        table.caption, table.caption_justify = "; ".join(sampled), "left"
    for heading in ("weight", *(" ".join(each) for each in shown)):
        table.add_column(heading, justify="right")
    for row in rows:
        weight = "" if row.weight is None else f"{row.weight:.2f}"
        table.add_row(
            Text(escaped(row.name)), weight, *(f"{row.measured[split].means[key]:.4f}" for split, key in shown)
        )
    return table
