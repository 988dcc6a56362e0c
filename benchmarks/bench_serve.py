"""Recommendations of all users, streamed to Parquet: users a second, and the peak memory of the process.

python benchmarks/bench_serve.py
python benchmarks/bench_serve.py --users 100000 --items 10000
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet
import tyro
from timing import write_result

from slmrec_jax.serving.recommendations import write_ranked
from slmrec_jax.serving.served import PART_USERS, Served, recommend_in_parts
from slmrec_jax.training.memory import peak_rss_bytes
from slmrec_jax.types import Embeddings, Interactions

KNOWN_EACH = 10
"""Known items of each user."""


@dataclass(frozen=True)
class Flags:
    """Measure the ranking of all users with its output."""

    users: int = 1_000_000
    items: int = 100_000
    k: int = 100
    dim: int = 64
    out: Path = Path("benchmarks/results/serve.json")


def served(flags: Flags) -> Served:
    draw = np.random.default_rng(0)
    tables = (draw.normal(size=(rows, flags.dim)).astype(np.float32) for rows in (flags.users, flags.items))
    known = Interactions(
        np.repeat(np.arange(flags.users, dtype=np.int32), KNOWN_EACH),
        draw.integers(0, flags.items, flags.users * KNOWN_EACH).astype(np.int32),
    )
    ids = np.arange(flags.users), np.arange(flags.items)
    return Served("drawn", Embeddings(*map(jnp.asarray, tables)), *ids, (known,), "dot")


def main(flags: Flags) -> None:
    made = served(flags)
    before, begun = peak_rss_bytes(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recommendations.parquet"
        write_ranked(recommend_in_parts(made, k=flags.k), "parquet", file)
        seconds = time.perf_counter() - begun
        rows, size = pyarrow.parquet.ParquetFile(file).metadata.num_rows, file.stat().st_size
    result = {
        "users": flags.users,
        "items": flags.items,
        "k": flags.k,
        "rows": rows,
        "dim": flags.dim,
        "part_users": PART_USERS,
        "seconds": round(seconds, 1),
        "users_a_second": round(flags.users / seconds),
        "file_mib": round(size / 2**20),
        "peak_mib_before": round(before / 2**20),
        "peak_mib": round(peak_rss_bytes() / 2**20),
    }
    print(result)
    write_result(flags.out, result)


if __name__ == "__main__":
    main(tyro.cli(Flags))
