"""The search of each item's nearest items by features, against faiss's exact index on the same number of threads.

Both find the ten items with the largest cosines. faiss is given normalised rows. Ours normalises the rows, and runs as
the compiled program that training runs once before its first step.

    python benchmarks/bench_item_graphs.py
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax.encoding.item_graphs import nearest_items
from slmrec_jax.types import DenseFeature

NEIGHBOURS = 10


@dataclass(frozen=True)
class Flags:
    """Measure the search of nearest items."""

    items: tuple[int, ...] = (7_000, 50_000)
    columns: int = 128
    rounds: int = 3
    out: Path = Path("benchmarks/results/item_graphs.json")


def main(flags: Flags) -> None:
    results = [compare(count, flags) for count in flags.items]
    table = Table("items", "ours, s", "faiss, s", "faiss / ours", "same items", title=f"{flags.columns} columns")
    for row in results:
        cells = (f"{row[name]:.2f}" for name in ("ours", "faiss", "ratio"))
        table.add_row(f"{row['items']:,}", *cells, f"{row['same']:.3%}")
    Console().print(table)
    about = {"columns": flags.columns, "rounds": flags.rounds, "threads": faiss.omp_get_max_threads()}
    write_result(flags.out, {**about, "faiss": faiss.__version__, "sizes": results})


def compare(count: int, flags: Flags) -> dict[str, Any]:
    """Search with both in turns; return the seconds of each and the share of places with the same item."""
    rows = np.random.default_rng(0).standard_normal((count, flags.columns), np.float32)
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    feature = DenseFeature(jnp.asarray(rows), jnp.ones(count))
    compiled = jax.jit(lambda feature: nearest_items(feature, NEIGHBOURS).ids)
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA's

    def theirs() -> np.ndarray:
        index = faiss.IndexFlatIP(flags.columns)
        index.add(directions)
        return index.search(directions, NEIGHBOURS)[1]

    def ours() -> np.ndarray:
        return np.asarray(compiled(feature))

    found = measure({"ours": ours, "faiss": theirs}, flags.rounds)
    seconds = {name: median_ms(each) / 1e3 for name, each in found.items()}
    same = float((np.sort(theirs(), axis=1) == ours()).mean())
    return {"items": count, **seconds, "ratio": seconds["faiss"] / seconds["ours"], "same": same}


if __name__ == "__main__":
    main(tyro.cli(Flags))
