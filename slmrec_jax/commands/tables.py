"""Tables of metrics for a terminal."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from slmrec_jax.config.protocols import Side
from slmrec_jax.errors import escaped
from slmrec_jax.evaluation.groups import Group


def metrics_table(splits: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """Return a row for each metric and a column for each split and cut-off.

    Args:
        splits: The metrics of each split; all splits have the same ones.
        title: The table's title.
    """
    table = _titled(title, "metric")
    keys = [key.split("@") for key in next(iter(splits.values()))]
    cutoffs = list(dict.fromkeys(cutoff for _, cutoff in keys))
    for split in splits:
        for cutoff in cutoffs:
            table.add_column(f"{split} @{cutoff}", justify="right")
    for metric in dict.fromkeys(name for name, _ in keys):
        cells = (f"{values[f'{metric}@{cutoff}']:.4f}" for values in splits.values() for cutoff in cutoffs)
        table.add_row(metric, *cells)
    return table


def groups_table(groups: Sequence[Group], side: Side, title: str) -> Table:
    """Return a row for each group, with recall and NDCG at the first two cut-offs."""
    cutoffs = list(dict.fromkeys(key.split("@")[1] for key in groups[0].means))[:2]
    metrics = [f"{metric}@{k}" for k in cutoffs for metric in ("recall", "ndcg")]
    table = _titled(title, "training", side, "held out", *metrics)
    for group in groups:
        values = (f"{group.means[metric]:.4f}" for metric in metrics)
        table.add_row(group.label, str(group.num_nodes), str(group.num_interactions), *values)
    return table


def _titled(title: str, *columns: str) -> Table:
    # As a string, the title's brackets would be read as markup.
    return Table(*columns, title=Text(escaped(title), "table.title"), title_justify="left")
