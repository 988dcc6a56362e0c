"""Full ranking of all users, against PyTorch's matmul and topk on the same scores; both exclude known items.

Finding the pairs to exclude and moving the tables to the device is not timed; multiplying, excluding, searching and
fetching are. PyTorch uses the block of users that was fastest in a trial.

    python benchmarks/bench_evaluate.py --data paper PATH/tiktok
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import peer_torch
import scipy.sparse
import shapes
import torch
import tyro
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax.data.dataset import Dataset
from slmrec_jax.evaluation.ranking import plan_ranking, rank
from slmrec_jax.types import Embeddings

GOAL = 1.5


@dataclass(frozen=True)
class Flags:
    """Measure full ranking."""

    data: tuple[str, ...] = ("paper",)
    users: int = 6000
    """The most users to rank items for."""
    k: int = 20
    dim: int = 64
    rounds: int = 5
    blocks: tuple[int, ...] = (64, 512, 2048)
    """Numbers of users at a time to try with PyTorch."""
    out: Path = Path("benchmarks/results/evaluate.json")


def main(flags: Flags) -> None:
    results = {}
    columns = ("data", "ours, users/s", "torch, users/s", "its block", "ratio", "goal", "same items")
    table = Table(*columns, title=f"top {flags.k} of all")
    for source in flags.data:
        dataset = shapes.dataset(source)
        row = results[dataset.name] = compare(dataset, flags) | {"goal": GOAL}
        rates = row["users_per_second"]
        cells = (f"{rates['ours']:.0f}", f"{rates['torch']:.0f}", str(row["torch_block"]))
        table.add_row(dataset.name, *cells, f"{row['ratio']:.2f}", str(GOAL), f"{row['same']:.2%}")
    Console().print(table)
    write_result(flags.out, {"rounds": flags.rounds, "k": flags.k, "shapes": results})


def compare(dataset: Dataset, flags: Flags) -> dict[str, Any]:
    """Rank with both and return their rates, and the share of places with the same item."""
    rng = np.random.default_rng(0)
    users = np.arange(min(flags.users, dataset.num_users))
    rows, items = (
        rng.standard_normal((count, flags.dim), np.float32) for count in (dataset.num_users, dataset.num_items)
    )
    ones = np.ones(len(dataset.train.users), np.float32)
    shape = (dataset.num_users, dataset.num_items)
    known = scipy.sparse.csr_array((ones, tuple(dataset.train)), shape=shape)[users]
    plan = plan_ranking(users, [dataset.train], dataset.num_items, flags.k)
    embeddings = Embeddings(jnp.asarray(rows), jnp.asarray(items))
    tables = [torch.tensor(values, device=peer_torch.device()) for values in (rows[users], items)]

    def theirs(block: int) -> Callable[[], np.ndarray]:
        pairs = peer_torch.known_pairs(known, block)
        return lambda: peer_torch.rank(*tables, pairs, flags.k, block)

    trial = measure({str(block): theirs(block) for block in flags.blocks}, 1)
    block = int(min(trial, key=lambda name: trial[name]))
    cases = {"ours": lambda: rank(plan, embeddings).items, "torch": theirs(block)}
    seconds = measure(cases, flags.rounds)
    rates = {name: 1e3 * len(users) / median_ms(seconds[name]) for name in cases}
    return {
        "users_per_second": rates,
        "torch_block": block,
        "ratio": rates["ours"] / rates["torch"],
        "same": float((cases["ours"]() == cases["torch"]()).mean()),
    }


if __name__ == "__main__":
    main(tyro.cli(Flags))
