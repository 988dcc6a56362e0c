"""The command `slmrec-jax evaluate`."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from slmrec_jax.commands.runs import RunArgument, open_run
from slmrec_jax.config import ProtocolName
from slmrec_jax.config.protocols import Candidates, Side


@dataclass(frozen=True)
class EvaluateFlags(RunArgument):
    """Measure a finished run."""

    data: str | None = None
    """The path of the run's data set, if it was moved; it is split as in the run."""
    split: Literal["valid", "test"] = "test"
    protocol: ProtocolName | None = None
    """A protocol other than the run's own."""
    by: Side | None = None
    """Evaluate groups of users or items by their number of training interactions."""
    cold: Literal["trained", "content"] = "trained"
    """Rows of items without training interactions: as training left them, or computed from their features."""
    candidates: Candidates | None = None
    """The items to rank: all, or those without training interactions; by default as in the run."""
    format: Literal["table", "json"] = "table"


def run_evaluate(flags: EvaluateFlags) -> None:
    """Measure, and print a table or JSON."""
    from rich.console import Console

    from slmrec_jax.commands.tables import fit_width, groups_table, metrics_table
    from slmrec_jax.training.selection import sampled_of

    run = open_run(flags.run, flags.data)
    if flags.cold == "content":
        run = run.with_content()
    protocol = flags.protocol or run.config.protocol
    measured: dict[str, Any] = {"split": flags.split, "protocol": protocol}
    if flags.by is None:
        found = run.evaluate(flags.split, flags.protocol, flags.candidates)
        measured |= {"fingerprint": run.dataset.fingerprint, "metrics": dict(found.means)}
        sampled = sampled_of(found)
        measured |= {"sampled": sampled} if sampled else {}
        of_split: dict[str, Any] = {flags.split: sampled} if sampled else {}
        table = metrics_table({flags.split: found.means}, f"{run.folder}, protocol {protocol}", of_split)
    else:
        groups = run.evaluate_by(flags.by, flags.split, flags.protocol, flags.candidates)
        measured |= {"by": [group._asdict() for group in groups]}
        title = f"{run.folder}, {flags.split}, protocol {protocol}, {flags.by} by training interactions"
        table = groups_table(groups, flags.by, title)
    if flags.format == "json":
        print(json.dumps(measured))
    else:
        console = Console()
        console.print(fit_width(table, console.width))
