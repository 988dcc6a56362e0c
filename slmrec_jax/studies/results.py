"""Tables of finished runs, from the records in their folders. No data are loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from slmrec_jax.config import Protocol
from slmrec_jax.errors import UserError, escaped, setting
from slmrec_jax.training.storage.folder import CONFIG, DATA, NO_RUN, RESULT, Description, Result
from slmrec_jax.training.storage.records import read_json

TEST_RULES = ("candidates", "mask_valid_at_test", "drop_new_users", "ndcg", "score", "test_users")
"""The protocol settings that change test metrics. A run may override them under the same protocol name."""

_ALIKE = {"fingerprint": "on different data", "protocol": "under a different protocol"}
"""The properties that comparable runs share, with the text for runs that differ in them."""


class FinishedRuns(NamedTuple):
    """The results of finished runs, in the given order."""

    rows: Sequence[dict[str, Any]]
    """The folder, model, seed, data set, fingerprint, protocol, best epoch and test metrics of each run."""
    differences: tuple[str, ...]
    """The reasons why the runs are not comparable; empty if they are."""

    def table(self) -> Table:
        """Return a table with one row per run: recall and NDCG at the first two cut-offs that all runs have."""
        shared = [key for key in self.rows[0]["test"] if all(key in row["test"] for row in self.rows)]
        cutoffs = sorted({int(key.split("@")[1]) for key in shared})[:2]
        metrics = [f"{metric}@{k}" for k in cutoffs for metric in ("recall", "ndcg")]
        # rich would parse brackets in strings as markup, hence `Text`.
        caption = Text(escaped("; ".join(self.differences)), "table.caption") if self.differences else None
        table = Table("run", "model", "seed", "data", caption=caption, caption_justify="left")
        for metric in metrics:
            table.add_column(metric, justify="right")
        for row in self.rows:
            data = f"{row['data']} {row['fingerprint'][:8]}" if self.differences else row["data"]
            values = (f"{row['test'][metric]:.4f}" for metric in metrics)
            names = (Text(escaped(name)) for name in (row["folder"], row["model"], row["seed"], data))
            table.add_row(*names, *values)
        return table


def read_finished_runs(folders: Sequence[Path], *, force: bool = False) -> FinishedRuns:
    """Read the test metrics of finished runs.

    Raises:
        UserError: A run is not finished or has no test split; or, unless `force` is given, runs differ in their data,
            protocol or `TEST_RULES`.
    """
    rows = [_row(folder) for folder in folders]
    differences = [
        f"{row['folder']} was measured {words} from {rows[0]['folder']} ({row[name][:12]}, not {rows[0][name][:12]})"
        for name, words in _ALIKE.items()
        for row in rows[1:]
        if row[name] != rows[0][name]
    ]
    differences += _different_rules(rows)
    if differences and not force:
        raise UserError(
            f"{differences[0]}: their figures cannot be compared; {setting('force', True)} shows them anyway"
        )
    return FinishedRuns(rows, tuple(differences))


def _different_rules(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe the rules that runs under the protocol of the first run have changed, compared to it."""
    rules = [_test_rules(row["folder"]) for row in rows]
    return [
        f"{row['folder']} was tested with {value} for {setting(f'eval.{name}')}, and {rows[0]['folder']} with "
        f"{rules[0][name]}"
        for row, own in zip(rows, rules, strict=True)
        for name, value in own.items()
        if row["protocol"] == rows[0]["protocol"] and value != rules[0][name]
    ]


def _test_rules(folder: Path) -> dict[str, Any]:
    rules = read_json(folder / CONFIG, Mapping[str, Any], NO_RUN).get("eval")
    recorded = rules if isinstance(rules, Mapping) else {}
    return {name: recorded.get(name, Protocol._field_defaults[name]) for name in TEST_RULES}


def _row(folder: Path) -> dict[str, Any]:
    config = read_json(folder / CONFIG, Mapping[str, Any], NO_RUN)
    data = read_json(folder / DATA, Description, NO_RUN)
    finish = f"finish the run with {setting('resume', True)}"
    if not (folder / RESULT).exists():
        raise UserError(f"{folder / RESULT} does not exist, because the run has not finished: {finish}")
    result = read_json(folder / RESULT, Result, finish)
    found = {"model": config.get("model"), "data": data.get("name")}
    found |= {name: result.get(name) for name in ("seed", "fingerprint", "protocol", "best_epoch", "test")}
    missing = [name for name, value in found.items() if value is None]
    if missing:
        what = "test metrics" if missing[0] == "test" else missing[0].replace("_", " ")
        raise UserError(f"{folder} does not record its {what}, so it cannot be compared")
    return {"folder": folder, **found}
