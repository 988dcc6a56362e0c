"""The sparse product with its derivative, against the segment sum, SciPy on one thread, and merely gathering rows.

The graph is that of training: nodes are numbered by falling degree, so the rows read most often are adjacent. The probe
copies the rows that a product must read, one for each entry: on CPU with `numpy.take` on one thread a core, elsewhere
with a compiled gather on the device. Its rate is the gather bandwidth of the machine.

    python benchmarks/bench_product.py --data paper
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import shapes
import tyro
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.sparse import matmul, segment_sum
from slmrec_jax.training.inputs import make_inputs

GOALS = {"segment_sum": 12.0, "scipy": 1.8}
BANDWIDTH_GOAL = 0.7

GATHERED_ROWS = 1024
"""The rows that the probe copies at a time on CPU."""


Reads: TypeAlias = list[tuple[np.ndarray, jax.Array]]
"""Tables, and the rows to read of each."""


@dataclass(frozen=True)
class Flags:
    """Measure the sparse product and its derivative."""

    data: str = "paper"
    dim: int = 64
    rounds: int = 9
    out: Path = Path("benchmarks/results/product.json")


def main(flags: Flags) -> None:
    dataset = shapes.dataset(flags.data)
    graph = make_inputs(dataset.by_degree()).graph
    rng = np.random.default_rng(0)
    items = rng.standard_normal((dataset.num_items, flags.dim), np.float32)
    weights = rng.standard_normal((dataset.num_users, flags.dim), np.float32)
    matrix = graph.adjacency.matrix
    host = scipy.sparse.csr_array(
        tuple(np.asarray(part) for part in matrix), shape=(dataset.num_users, dataset.num_items)
    )
    transposed = host.T.tocsr()

    def with_derivative(product):  # type: ignore[no-untyped-def]
        return jax.jit(jax.value_and_grad(lambda x, operator, w: jnp.vdot(product(operator, x), w)))

    def by_segment_sum(operator: Operator, x: jax.Array) -> jax.Array:
        return segment_sum(operator.matrix, x.shape[0], x)

    ours, definition = with_derivative(matmul), with_derivative(by_segment_sum)
    x, w = jnp.asarray(items), jnp.asarray(weights)
    gather = gather_on_host if jax.default_backend() == "cpu" else gather_on_device
    cases = {
        "ours": lambda: ours(x, graph.adjacency, w),
        "segment_sum": lambda: definition(x, graph.adjacency, w),
        "scipy": lambda: (host @ items, transposed @ weights),
        "gather": gather([(items, matrix.columns), (weights, graph.adjacency.transposed.columns)]),
    }
    ms = {name: median_ms(seconds) for name, seconds in measure(cases, flags.rounds).items()}
    read = 2 * len(dataset.train.users) * flags.dim * 4
    bandwidth = {name: read / ms[name] / 1e6 for name in ("ours", "gather")}
    table = Table("forward and backward", "ms", "ratio to ours", "goal", title=f"{dataset.name}, {flags.dim} columns")
    for name, value in ms.items():
        table.add_row(name, f"{value:.1f}", f"{value / ms['ours']:.2f}", str(GOALS.get(name, "")))
    Console().print(table)
    share = bandwidth["ours"] / bandwidth["gather"]
    print(f"rows read: ours {bandwidth['ours']:.1f} GB/s, gather alone {bandwidth['gather']:.1f} GB/s: {share:.0%}")
    write_result(
        flags.out,
        {
            "data": dataset.name,
            "ms": ms,
            "ratios": {name: ms[name] / ms["ours"] for name in GOALS},
            "goals": GOALS,
            "gigabytes_per_second": bandwidth,
            "share_of_gather_bandwidth": share,
            "share_goal": BANDWIDTH_GOAL,
        },
    )


def gather_on_host(reads: Reads) -> Callable[[], object]:
    """Return a function that copies rows with NumPy, on one thread a core."""
    threads = ThreadPoolExecutor(os.cpu_count())
    parts = [(table, np.array_split(np.asarray(columns), os.cpu_count() or 1)) for table, columns in reads]
    room = np.empty((os.cpu_count() or 1, GATHERED_ROWS, reads[0][0].shape[1]), np.float32)

    def gather_part(place: int, table: np.ndarray, part: np.ndarray) -> None:
        # The destination stays in the cache, so that only reading is measured.
        for start in range(0, len(part), GATHERED_ROWS):
            taken = part[start : start + GATHERED_ROWS]
            np.take(table, taken, axis=0, out=room[place, : len(taken)], mode="clip")

    def gather() -> None:
        for table, shares in parts:
            list(threads.map(gather_part, range(len(shares)), [table] * len(shares), shares))

    return gather


def gather_on_device(reads: Reads) -> Callable[[], object]:
    """Return a function that copies rows on JAX's device, with writing, since no cache there holds them all."""
    copy = jax.jit(lambda table, columns: table[columns])
    on_device = [(jnp.asarray(table), columns) for table, columns in reads]
    return lambda: [copy(table, columns) for table, columns in on_device]


if __name__ == "__main__":
    main(tyro.cli(Flags))
