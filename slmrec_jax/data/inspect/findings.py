"""Description of an inspection in words: facts, and oddities with their fixes."""

from collections.abc import Mapping
from typing import Any

from slmrec_jax.data.inspect.inspection import Inspection, VectorFacts, WordFacts

_MANY_COPIES = 0.005
"""The share of items with the same row above which the row is considered a placeholder."""
_UNEVEN = 1000.0
"""The ratio of the largest to the median norm above which norms are odd."""
_VAST = 1e18
"""The value above which a feature is too large, since squares overflow in float32 from 1.8e19."""


def facts(found: Inspection) -> dict[str, str]:
    """Return one line per fact, by subject."""
    splits = ", ".join(f"{split} {count:,}" for split, count in found.interactions.items())
    overlap = ", ".join(f"{splits} {count:,}" for splits, count in found.overlap.items() if count)
    lines = {
        "users": f"{found.users:,}, of whom {found.cold_users:,} have no training interaction",
        "items": f"{found.items:,}, of which {found.cold_items:,} have no training interaction",
        "interactions": splits,
        "density": f"{found.density:.2e} of all pairs",
        "in two splits": overlap or "none",
        "training interactions of a user": _as_line(found.user_degrees),
        "training interactions of an item": _as_line(found.item_degrees),
    }
    for split in found.new_users:
        lines[f"{split}: not in training"] = f"users {found.new_users[split]:,}, items {found.new_items[split]:,}"
    for name, modality in found.modalities.items():
        lines |= {f"{name}: {what}": line for what, line in _of_modality(modality, found.items).items()}
    if not found.modalities:
        lines["modalities"] = "none"
    lines |= {f"note {place}": note for place, note in enumerate(found.notes, 1)}
    return lines | {"fingerprint": found.fingerprint}


def as_data(found: Inspection) -> dict[str, Any]:
    """Convert the inspection and its oddities to plain data."""
    modalities = {name: modality._asdict() for name, modality in found.modalities.items()}
    return found._asdict() | {"modalities": modalities, "oddities": oddities(found)}


def _of_modality(modality: VectorFacts | WordFacts, items: int) -> dict[str, str]:
    there = f"{items - modality.missing:,} of {items:,} items, missing {modality.missing / items:.1%}"
    if isinstance(modality, WordFacts):
        return {
            "words": f"{modality.words:,}, of which {modality.used:,} occur",
            "present": there,
            "words of an item": _as_line(modality.per_item),
        }
    return {
        "vectors": f"{modality.columns:,} columns, stored as {modality.stored}",
        "present": there,
        "norms": _as_line(modality.norms),
        "rows": f"{modality.zeros:,} with only zeros, {modality.duplicates:,} that repeat another",
    }


def _as_line(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in values.items()) or "none"


def oddities(found: Inspection) -> list[str]:
    """Return one line, with a fix, for each oddity that would harm training or evaluation."""
    lines = [*_odd_splits(found), *_odd_nodes(found), *found.alike_ids]
    for name, modality in found.modalities.items():
        if isinstance(modality, VectorFacts):
            lines += [f"{name}: {line}" for line in _odd_vectors(modality, found.items)]
        elif modality.missing:
            lines.append(f"{name}: items without words: {modality.missing}; they are masked")
    if not found.modalities:
        lines.append("no modality: add features, or choose a system that works on ids alone, such as --model lightgcn")
    if found.bare_items:
        lines.append(f"items without any modality: {found.bare_items}; they are trained and ranked by their ids alone")
    return lines


def _odd_splits(found: Inspection) -> list[str]:
    lines = []
    if not found.interactions["valid"] and not found.interactions["test"]:
        lines.append("nothing is held out: split the interactions, for example with --split mmrec")
    elif not found.interactions["valid"]:
        lines.append(
            "no validation split: --split validation takes a tenth of training for it; or choose a protocol that "
            "needs none, such as --protocol lightgcn"
        )
    elif not found.interactions["test"]:
        lines.append(
            "no test split: nothing can be tested; split the interactions again, for example with --split mmrec"
        )
    masked = "they are masked where they count as known, so they cannot be hits: keep each in one split"
    return lines + [f"interactions in {splits}: {count}; {masked}" for splits, count in found.overlap.items() if count]


def _odd_nodes(found: Inspection) -> list[str]:
    lines = []
    for split, users in found.new_users.items():
        if users:
            advice = "leave them out with --protocol mmrec, or split again with --split mmrec"
            lines.append(
                f"users of {split} without training interactions: {users}; nothing is learned about them: {advice}"
            )
        if items := found.new_items[split]:
            advice = "only a system with features can place them, such as --model slmrec"
            lines.append(f"items of {split} without training interactions: {items}; {advice}")
    cold = {"users": (found.cold_users, found.new_users), "items": (found.cold_items, found.new_items)}
    for what, (count, held_out) in cold.items():
        if count and not any(held_out.values()):
            lines.append(f"{what} without any training interaction: {count}; remove them, unless they are wanted")
    return lines


def _odd_vectors(modality: VectorFacts, items: int) -> list[str]:
    leave_out = "leave these rows out (a plain table takes NaN for them)"
    by_norms = "rows by their norms (SLMRec does by default)"
    largest, median = modality.norms.get("max", 0.0), modality.norms.get("median", 0.0)
    lines = []
    if modality.missing:
        fill = "--missing zero or --missing mean"
        lines.append(f"items without it: {modality.missing} of {items}; they are masked, or filled by {fill}")
    if modality.zeros:
        lines.append(f"rows of zeros: {modality.zeros}; if they stand for items without it, {leave_out}")
    if modality.most_copies > max(2, _MANY_COPIES * items, modality.zeros):
        lines.append(f"one row occurs {modality.most_copies} times; if it stands for items without it, {leave_out}")
    if largest > _UNEVEN * max(median, 1e-30):
        norms = f"the largest norm is {largest:.3g}, the median {median:.3g}"
        lines.append(f"{norms}; look for broken rows, or divide {by_norms}")
    if largest > _VAST:
        norms = f"norms up to {largest:.3g}, whose squares overflow in float32"
        lines.append(f"{norms}; divide all values by one number, or {by_norms}")
    return lines
