"""How the rule for SLMRec's popularity correction does on data that it was not fitted to.

Command:  python experiments/correction_rule.py
Time:     seconds. Nothing is trained: experiments/results/popularity_correction.csv has the validation recall@20 of
          SLMRec for several corrections on each data set.
Result:   a table that docs/systems.md shows. For each data set, a rule is fitted to the data of all other sources. What
          is lost is how far the recall with its correction is below the best of the data set, by linear interpolation.

As in `slmrec_jax/models/slmrec_recipe.py`, a rule is linear in the hit rate of popularity between two bounds.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

MEASURED = Path(__file__).with_name("results") / "popularity_correction.csv"

BOUNDS = [(low / 400, high / 400) for low in range(12, 48) for high in range(low + 1, 80)]
"""Pairs of hit rates in quarters of a percent: no correction up to the first, the whole from the second."""


class Measured(NamedTuple):
    """The recall on a data set by correction."""

    source: str
    hit_rate: float
    recalls: Mapping[float, float]


class Row(NamedTuple):
    """What the rule chooses for a data set whose source it was not fitted to, and the relative losses of recall."""

    data: str
    correction: float
    loss: float
    loss_without: float
    """The loss without any correction."""


def read(path: Path) -> dict[str, Measured]:
    with path.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["correction"]))  # as interpolation needs them
    found: dict[str, Measured] = {}
    for row in rows:
        of_data = found.setdefault(row["data"], Measured(row["source"], float(row["hit_rate"]), {}))
        found[row["data"]] = of_data._replace(
            recalls={**of_data.recalls, float(row["correction"]): float(row["recall@20"])}
        )
    return found


def chosen(hit_rate: float, bounds: tuple[float, float]) -> float:
    """Return the rule's correction for a data set."""
    return float(np.clip((hit_rate - bounds[0]) / (bounds[1] - bounds[0]), 0, 1))


def loss(of_data: Measured, correction: float) -> float:
    """Return the share of the best recall that a correction loses."""
    at = np.interp(correction, list(of_data.recalls), list(of_data.recalls.values()))
    return float(1 - at / max(of_data.recalls.values()))


def fitted(measured: Sequence[Measured]) -> tuple[float, float]:
    """Return the bounds with the least sum of losses: the mean of those that are equally good."""
    losses = [sum(loss(each, chosen(each.hit_rate, bounds)) for each in measured) for bounds in BOUNDS]
    best = [bounds for bounds, value in zip(BOUNDS, losses, strict=True) if value <= min(losses) + 1e-9]
    low, high = np.mean(best, axis=0)
    return float(low), float(high)


def table(measured: Mapping[str, Measured]) -> list[Row]:
    rows = []
    for name, of_data in measured.items():
        bounds = fitted([other for other in measured.values() if other.source != of_data.source])
        correction = chosen(of_data.hit_rate, bounds)
        rows.append(Row(name, correction, loss(of_data, correction), loss(of_data, 0.0)))
    return rows


def line(row: Row) -> str:
    return f"| {row.data} | {row.correction:.2f} | {100 * row.loss:.1f} % | {100 * row.loss_without:.1f} % |"


if __name__ == "__main__":
    measured = read(MEASURED)
    print("| data | β | recall lost | lost with β = 0 |\n| --- | --- | --- | --- |")
    print("\n".join(line(row) for row in table(measured)))
    low, high = fitted(list(measured.values()))
    print(f"\nFitted to all data: no correction up to {low:.1%}, the whole from {high:.1%}")
