"""How near a FAC step comes to a floor: the work that it must do, at the speed of this machine in the same run.

A step must gather the rows of its half products, forward and backward (of the last hops only those that the batch's
users and items need); multiply in its in-batch softmaxes over distinct users and items, three products each, and in its
projections; and read parameters, gradients and both of Adam's moments and write all but the gradients. The speeds are
those of half products alone, one after another in one program; of one large matrix product; and of adding one table to
another. The floor ignores overlap, and other work of a step: read-outs, scatters, exponentials, norms.

    python benchmarks/bench_floor.py --data paper
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import shapes
import tyro
from ours import our_steps
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.training.inputs import make_inputs
from slmrec_jax.training.timing import choose_steps_per_call

TIMES = 6
"""Repetitions of a probe's work in one call."""

SIDE = 2048
"""The side of the square matrices that are multiplied."""

BATCHES = 20
"""The number of batches drawn to count their distinct users and items."""


@dataclass(frozen=True)
class Flags:
    """Measure how near a FAC step comes to its floor."""

    data: str = "paper"
    rounds: int = 7
    out: Path = Path("benchmarks/results/floor.json")


def needs(dataset: Dataset, config: Config) -> dict[str, float]:
    """Return the bytes gathered, the operations, and the bytes of tables read and written by a step of FAC."""
    dim, modalities = config.dim, len(dataset.features)
    (users, of_users), (items, of_items) = (in_a_batch(ends, config.batch_size) for ends in dataset.train)
    half_products = 2 * 2 * (config.num_layers - 1)  # the user chain and the item chain, forward and backward
    columns = sum(feature.values.shape[1] for feature in dataset.features.values())
    # The first two levels of FAC and the main loss are as wide as the tables, later levels half as wide.
    levels = [dim if level < 2 else dim // 2 for level in range(modalities)]
    softmaxes = 3 * 2 * items * (users * dim + items * sum(levels))
    frozen = 2 * 2 * (users + items) * columns * dim  # forward, and for the kernel
    fusion = 3 * 2 * (users + items) * (1 + modalities) * dim * dim
    entering = [dim, *levels[:-1]]
    heads = sum(3 * 2 * items * (rows + dim) * width for rows, width in zip(entering, levels, strict=True))
    tables = 4 * dim * (dataset.num_users + dataset.num_items)
    return {
        "gather": 4.0 * dim * (half_products * len(dataset.train.users) + 2 * (of_users + of_items)),
        "multiply": float(softmaxes + frozen + fusion + heads),
        "pass": 7.0 * tables,
    }


def in_a_batch(ends: np.ndarray, batch_size: int) -> tuple[float, float]:
    """Return the mean number of distinct users (or items) of a batch, and of all their interactions."""
    degrees, rng = np.bincount(ends), np.random.default_rng(0)
    batches = [np.unique(rng.choice(ends, batch_size, replace=False)) for _ in range(BATCHES)]
    return float(np.mean([len(ids) for ids in batches])), float(np.mean([degrees[ids].sum() for ids in batches]))


@jax.jit
def gather(operator: Operator, x: jax.Array) -> jax.Array:
    """Multiply rows of items by R and its transpose, `TIMES` times."""
    return jax.lax.fori_loop(0, TIMES, lambda _, x: matmul(operator.T, matmul(operator, x)), x)


def main(flags: Flags) -> None:
    dataset, config = shapes.dataset(flags.data), Config(task="fac")
    step, _ = our_steps(dataset, "fac")
    steps = choose_steps_per_call(step)
    operator = make_inputs(dataset.by_degree()).graph.adjacency
    rng = np.random.default_rng(0)
    items = jnp.asarray(rng.standard_normal((dataset.num_items, config.dim), np.float32))
    square = jnp.asarray(rng.standard_normal((SIDE, SIDE), np.float32) / np.sqrt(SIDE))

    @jax.jit
    def multiply(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, TIMES, lambda _, y: x @ y, x)

    @jax.jit
    def passed(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, TIMES, lambda _, y: y + x, x)

    cases = {
        "step": lambda: step(steps),
        "gather": lambda: gather(operator, items),
        "multiply": lambda: multiply(square),
        "pass": lambda: passed(items),
    }
    ms = {name: median_ms(seconds) for name, seconds in measure(cases, flags.rounds).items()}
    work = {
        "gather": 2 * TIMES * operator.matrix.columns.size * config.dim * 4,
        "multiply": TIMES * 2 * SIDE**3,
        "pass": TIMES * 3 * items.nbytes,
    }
    rates = {name: amount / ms[name] / 1e6 for name, amount in work.items()}
    floors = {name: amount / rates[name] / 1e6 for name, amount in needs(dataset, config).items()}
    step_ms, floor = ms["step"] / steps, sum(floors.values())
    table = Table("part", "of a step", "a second", "ms", title=f"a step of FAC, {dataset.name}")
    for (name, amount), unit in zip(needs(dataset, config).items(), ("GB", "GFLOP", "GB"), strict=True):
        table.add_row(name, f"{amount / 1e9:.2f} {unit}", f"{rates[name]:.1f} {unit}", f"{floors[name]:.1f}")
    Console().print(table)
    print(f"floor {floor:.1f} ms, a step {step_ms:.1f} ms: {floor / step_ms:.0%}")
    measured = {"rates": rates, "floor_ms": floors, "step_ms": step_ms, "share": floor / step_ms}
    write_result(flags.out, {"data": dataset.name, "steps_a_call": steps, "needs": needs(dataset, config), **measured})


if __name__ == "__main__":
    main(tyro.cli(Flags))
