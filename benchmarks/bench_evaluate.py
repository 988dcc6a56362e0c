"""Full ranking of all users, against PyTorch and faiss on the same tables, and the planning of large evaluations.

PyTorch's matmul and topk exclude known items, as ours does. Finding the pairs to exclude and moving the tables to the
device is not timed; multiplying, excluding, searching and fetching are. PyTorch uses the block of users that was
fastest in a trial. `--faiss` compares with faiss's exact index of inner products instead, which excludes nothing, has
its copy of the items beforehand, and uses the same number of threads. `--plan` plans the evaluation of 10,000 users
of a data set of so many interactions, and reports seconds and the growth of the process beside the data.

    python benchmarks/bench_evaluate.py --data paper PATH/tiktok
    python benchmarks/bench_evaluate.py --faiss
    python benchmarks/bench_evaluate.py --plan 20000000
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse
import shapes
import tyro
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax.config.protocols import PROTOCOLS
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.evaluation.protocol import plan_evaluation, split_warnings
from slmrec_jax.evaluation.ranking import plan_ranking, rank
from slmrec_jax.training.memory import peak_rss_bytes
from slmrec_jax.types import Embeddings, Interactions

GOAL, FAISS_GOAL = 1.5, 1.0
FAISS_CASES = "ours", "ours in bfloat16", "faiss"
FAISS_SHAPES = ((36_638, 71_494), (1000, 1_000_000))
"""Users and items: the SLMRec paper's TikTok, and a sample of users of a large catalogue."""
KNOWN_EACH = 10
"""Known items of each user in these."""


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
    faiss: bool = False
    """Compare with faiss alone, at `FAISS_SHAPES` and k = 50."""
    plan: int | None = None
    """Plan an evaluation of so many interactions alone."""
    out: Path = Path("benchmarks/results/evaluate.json")


def main(flags: Flags) -> None:
    if flags.plan is not None:
        print(json.dumps(planned(flags.plan)))
    elif flags.faiss:
        main_faiss(flags)
    else:
        main_torch(flags)


def main_faiss(flags: Flags) -> None:
    results, k = [], 50
    rates = (f"{name}, users/s" for name in FAISS_CASES)
    table = Table("users", "items", *rates, "ratio", "goal", "same items", title=f"top {k}")
    for num_users, num_items in FAISS_SHAPES:
        row = compare_faiss(num_users, num_items, k, flags) | {"goal": FAISS_GOAL}
        results.append(row)
        cells = (f"{rate:.0f}" for rate in row["users_per_second"].values())
        table.add_row(
            str(num_users), str(num_items), *cells, f"{row['ratio']:.2f}", str(FAISS_GOAL), f"{row['same']:.2%}"
        )
    Console().print(table)
    write_result(flags.out.with_stem(f"{flags.out.stem}_faiss"), {"rounds": flags.rounds, "k": k, "shapes": results})


def compare_faiss(num_users: int, num_items: int, k: int, flags: Flags) -> dict[str, Any]:
    """Rank with both in turns; the share of equal places is counted without known items."""
    import faiss

    rng = np.random.default_rng(0)
    rows, items = (rng.standard_normal((count, flags.dim), np.float32) for count in (num_users, num_items))
    users = np.arange(num_users, dtype=np.int32)
    known = Interactions(
        np.repeat(users, KNOWN_EACH), rng.integers(num_items, size=num_users * KNOWN_EACH, dtype=np.int32)
    )
    embeddings = Embeddings(jnp.asarray(rows), jnp.asarray(items))
    plan = plan_ranking(users, [known], num_items, k)
    index = faiss.IndexFlatIP(flags.dim)
    index.add(items)
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA's
    halved = plan_ranking(users, [known], num_items, k, precision="bfloat16")
    functions = (
        lambda: rank(plan, embeddings).items,
        lambda: rank(halved, embeddings).items,
        lambda: index.search(rows, k)[1],
    )
    cases = dict(zip(FAISS_CASES, functions, strict=True))
    seconds = measure(cases, flags.rounds)
    rates = {name: 1e3 * num_users / median_ms(seconds[name]) for name in cases}
    few = slice(0, 1000)
    unmasked = rank(plan_ranking(users[few], [], num_items, k), embeddings).items
    return {
        "users": num_users,
        "items": num_items,
        "users_per_second": rates,
        "ratio": rates["ours"] / rates["faiss"],
        "same_bfloat16": float((cases["ours"]() == cases["ours in bfloat16"]()).mean()),
        "same": float((unmasked == index.search(rows[few], k)[1]).mean()),
        "faiss": faiss.__version__,
        "threads": faiss.omp_get_max_threads(),
    }


def planned(count: int) -> dict[str, Any]:
    """Plan the test of 10,000 users of a data set of so many interactions, a tenth of them in each held-out split."""
    num_users, num_items = count // 22, 1_000_000
    rng = np.random.default_rng(0)
    splits = [
        Interactions(
            np.sort(rng.integers(num_users, size=size, dtype=np.int32)),
            rng.integers(num_items, size=size, dtype=np.int32),
        )
        for size in (count * 8 // 10, count // 10, count // 10)
    ]
    ids = np.arange(num_users), np.arange(num_items)
    dataset = Dataset("sized", num_users, num_items, *splits, {}, *ids)
    jnp.zeros(1).block_until_ready()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before, start = peak_rss_bytes(), time.perf_counter()
    found = plan_evaluation(dataset, "test", PROTOCOLS["strict"], (50,), users=10_000)
    lines = split_warnings(dataset, "test", PROTOCOLS["strict"])
    return {
        "interactions": count,
        "users": num_users,
        "ranked": len(found.users),
        "seconds": time.perf_counter() - start,
        "grown_bytes": peak_rss_bytes() - before,
        "data_bytes": sum(array.nbytes for pairs in splits for array in pairs),
        "doubts": len(lines),
    }


def main_torch(flags: Flags) -> None:
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
    import peer_torch
    import torch

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
