"""What `inspect` found, in words: facts, and oddities with how to fix them."""

from collections.abc import Mapping
from typing import Any

from slmrec_jax.data.inspect.inspection import Inspection, Vectors, WordLists

_MANY_COPIES = 0.005
"""The share of items from which on one row that they have in common is taken for a placeholder."""
_UNEVEN = 1000.0
"""Norms that differ by such a factor are odd."""
_VAST = 1e18
"""The square of a float32 overflows from 1.8e19 on."""


def facts(found: Inspection) -> dict[str, str]:
    """A line on each thing, by what it is about."""
    splits = ", ".join(f"{split} {count:,}" for split, count in found.interactions.items())
    overlap = ", ".join(f"{splits} {count:,}" for splits, count in found.overlap.items() if count)
    lines = {
        "users": f"{found.users:,}, of whom {found.cold_users:,} have no training interaction",
        "items": f"{found.items:,}, of which {found.cold_items:,} have no training interaction",
        "interactions": splits,
        "density": f"{found.density:.2e} of all pairs",
        "in two splits": overlap or "none",
        "training interactions of a user": _numbers(found.user_degrees),
        "training interactions of an item": _numbers(found.item_degrees),
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
    """The same as plain data, with the oddities."""
    modalities = {name: modality._asdict() for name, modality in found.modalities.items()}
    return found._asdict() | {"modalities": modalities, "oddities": oddities(found)}


def _of_modality(modality: Vectors | WordLists, items: int) -> dict[str, str]:
    there = f"{items - modality.missing:,} of {items:,} items, missing {modality.missing / items:.1%}"
    if isinstance(modality, WordLists):
        return {
            "words": f"{modality.words:,}, of which {modality.used:,} occur",
            "present": there,
            "words of an item": _numbers(modality.per_item),
        }
    return {
        "vectors": f"{modality.columns:,} columns, stored as {modality.stored}",
        "present": there,
        "norms": _numbers(modality.norms),
        "rows": f"{modality.zeros:,} of zeros, {modality.duplicates:,} that repeat another",
    }


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in values.items()) or "none"


def oddities(found: Inspection) -> list[str]:
    """A line on each thing that training or evaluation would suffer from, with how to fix it."""
    lines = [*_odd_splits(found), *_odd_nodes(found), *found.alike_ids]
    for name, modality in found.modalities.items():
        lines += _odd_words(name, modality) if isinstance(modality, WordLists) else _odd_vectors(name, modality, found)
    if not found.modalities:
        lines.append("no modality: add features, or take a system that lives on ids, as --model lightgcn")
    if found.bare_items:
        lines.append(f"items without any modality: {found.bare_items}; they are trained and ranked by their ids alone")
    return lines


def _odd_splits(found: Inspection) -> list[str]:
    lines = []
    if not found.interactions["valid"] and not found.interactions["test"]:
        lines.append("nothing is held out: divide the interactions, as by --split mmrec")
    elif not found.interactions["valid"]:
        lines.append(
            "no validation split: --split validation takes a tenth of training for it; or choose a protocol that "
            "needs none, as --protocol lightgcn"
        )
    elif not found.interactions["test"]:
        lines.append("no test split: nothing can be tested; divide the interactions again, as by --split mmrec")
    for splits, count in found.overlap.items():
        if count:
            lines.append(
                f"interactions in {splits}: {count}; they are masked where they count as known, and then cannot be "
                f"found: keep each in one split"
            )
    return lines


def _odd_nodes(found: Inspection) -> list[str]:
    lines = []
    for split in found.new_users:
        if found.new_users[split]:
            lines.append(
                f"users of {split} without training interactions: {found.new_users[split]}; nothing is learned of "
                f"them: leave them out by --protocol mmrec, or divide again by --split mmrec"
            )
        if found.new_items[split]:
            lines.append(
                f"items of {split} without training interactions: {found.new_items[split]}; only a system with "
                f"features can place them, as --model slmrec"
            )
    for what, cold, held_out in (
        ("users", found.cold_users, found.new_users),
        ("items", found.cold_items, found.new_items),
    ):
        if cold and not any(held_out.values()):
            lines.append(f"{what} without any training interaction: {cold}; remove them, unless they are wanted")
    return lines


def _odd_vectors(name: str, modality: Vectors, found: Inspection) -> list[str]:
    lines = []
    if modality.missing:
        lines.append(
            f"{name}: items without it: {modality.missing} of {found.items}; they are masked, or filled by --missing "
            f"zero or --missing mean"
        )
    if modality.zeros:
        lines.append(
            f"{name}: rows of zeros: {modality.zeros}; if they stand for items without it, leave these rows out (a "
            f"plain table takes NaN for them)"
        )
    if modality.most_copies > max(2, _MANY_COPIES * found.items) and modality.most_copies > modality.zeros:
        lines.append(
            f"{name}: one row stands there {modality.most_copies} times; if it fills in for items without it, leave "
            f"these rows out (a plain table takes NaN for them)"
        )
    if modality.norms and modality.norms["max"] > _UNEVEN * max(modality.norms["median"], 1e-30):
        lines.append(
            f"{name}: the largest norm is {modality.norms['max']:.3g}, the median {modality.norms['median']:.3g}; look "
            f"for broken rows, or divide rows by their norms (SLMRec does by default)"
        )
    if modality.norms and modality.norms["max"] > _VAST:
        lines.append(
            f"{name}: norms up to {modality.norms['max']:.3g}, whose squares overflow in float32; divide all values by "
            f"one number, or rows by their norms (SLMRec does by default)"
        )
    return lines


def _odd_words(name: str, modality: WordLists) -> list[str]:
    return [f"{name}: items without words: {modality.missing}; they are masked"] if modality.missing else []
