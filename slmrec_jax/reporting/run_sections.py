"""The sections of a report about single runs: modalities, item space, neighbours and settings."""

import json
from collections.abc import Sequence

from slmrec_jax.config import to_json
from slmrec_jax.reporting import charts
from slmrec_jax.reporting.items import SAMPLE
from slmrec_jax.reporting.page import Block, Details, Picture
from slmrec_jax.reporting.run_facts import TRAINED, RunFacts
from slmrec_jax.reporting.tables import ReportTable, without_single_name

_SAMPLED = f"Larger tables are sampled to {SAMPLE:,} rows."


def modality_blocks(runs: Sequence[RunFacts], metric: str) -> list[Block]:
    """Return the effects of masked modalities and the agreement of neighbourhoods."""
    blocks: list[Block] = [
        "Each trained system is tested again as if no item had the modality; its parameters stay. A system trained "
        "without the modality might do better."
    ]
    masked = {each.label: each.masking.changes for each in runs if each.masking.changes}
    if masked:
        caption = f"Change in the test {metric} when a modality is masked, with 95 % interval."
        blocks.append(Picture("modalities", caption, charts.contributions(masked, metric)))
        rows = [
            (label, name, change.interval, change.p_value)
            for label, changes in masked.items()
            for name, change in changes.items()
        ]
        caption = f"Test {metric} without the modality minus with all: mean [95 % interval]."
        table = ReportTable("modalities", caption, ("run", "masked", "change", "p (bootstrap)"), rows)
        blocks.append(without_single_name(table, len(runs)))
    blocks += [f"{each.label}: not measured: {each.masking.reason}." for each in runs if each.masking.reason]
    agreement = [(each.label, *pair, share) for each in runs for pair, share in each.agreement.items()]
    if agreement:
        caption = (
            "Agreement of neighbourhoods: the mean share of an item's 10 nearest neighbours that two tables have in "
            "common; unrelated tables share 10 / (items − 1). "
            f"“{TRAINED}” is the table of the run's own item embeddings. {_SAMPLED}"
        )
        table = ReportTable("agreement", caption, ("run", "table", "other table", "shared"), agreement)
        blocks.append(without_single_name(table, len(runs)))
    return blocks


def item_space_blocks(runs: Sequence[RunFacts]) -> list[Block]:
    """Return an item map for each run and modality, and the geometry of embeddings."""
    maps = [
        Picture(
            f"map-{place}-{number}",
            f"{each.label}: trained item embeddings, coloured by clusters of {name}.",
            charts.item_space(each.map, labels, name),
        )
        for place, each in enumerate(runs, 1)
        for number, (name, labels) in enumerate(each.clusters.items(), 1)
    ]
    geometry = ReportTable(
        "geometry",
        f"Alignment of training pairs and uniformity (Wang & Isola, 2020); lower is better. {_SAMPLED}",
        ("run", "alignment", "uniformity of users", "uniformity of items"),
        [(each.label, each.alignment, each.uniformity_users, each.uniformity_items) for each in runs],
    )
    return [
        "The map shows the first two principal components of the trained item embeddings; items that are close on it "
        "may be far apart in the other dimensions. Colours are k-means clusters of the features of a modality. If the "
        "colours separate, training has preserved the information of this modality.",
        *maps,
        without_single_name(geometry, len(runs)),
    ]


def neighbour_blocks(runs: Sequence[RunFacts]) -> list[Block]:
    """Return a table of nearest neighbours for each run."""
    blocks: list[Block] = [
        "The nearest items by cosine, in raw ids, under each modality and under the trained embeddings."
    ]
    for place, each in enumerate(runs, 1):
        depth = max(len(listed) for found in each.neighbours.values() for listed in found)
        rows = [
            (item, name, *found[row], *[""] * (depth - len(found[row])))
            for row, item in enumerate(each.items)
            for name, found in each.neighbours.items()
        ]
        columns = ("item", "table", *map(str, range(1, depth + 1)))
        blocks.append(ReportTable(f"neighbours-{place}", f"{each.label}: nearest neighbours.", columns, rows))
    return blocks


def setting_blocks(runs: Sequence[RunFacts]) -> list[Block]:
    """Return the fingerprint, settings and environment of each run."""
    blocks: list[Block] = []
    for each in runs:
        blocks += [
            f"{each.label}: fingerprint {each.run.dataset.fingerprint}",
            Details(f"{each.label}: settings", json.dumps(to_json(each.run.config), indent=2)),
            Details(f"{each.label}: environment of training", json.dumps(each.environment, indent=2)),
        ]
    return blocks
