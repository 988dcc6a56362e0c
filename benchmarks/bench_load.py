"""Seconds and peak memory to load ten million interactions: from a plain Parquet table, and from the package's format.

The table has text ids and a time for each interaction, and is split while it is read. Each load is a process of its
own, so that its peak memory is its own. The files were just written, so they are read from the page cache. On a busy
machine, CPU seconds say more than wall time.

    python benchmarks/bench_load.py
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import tyro
from rich.console import Console
from rich.table import Table
from timing import write_result

from slmrec_jax import data

GOAL_SECONDS, GOAL_BYTES = 20.0, 2 * 2**30


@dataclass(frozen=True)
class Flags:
    """Measure loading ten million interactions."""

    interactions: int = 10_000_000
    users: int = 1_000_000
    items: int = 200_000
    rounds: int = 3
    """Loads of each kind; the median is reported."""
    out: Path = Path("benchmarks/results/load.json")


def write_plain(folder: Path, flags: Flags) -> None:
    """Write interactions ordered by time, with a long tail of items and some repeated pairs."""
    rng = np.random.default_rng(0)
    users = rng.integers(flags.users, size=flags.interactions)
    items = (flags.items * rng.random(flags.interactions) ** 3).astype(np.int64)
    names = [
        pa.array([f"{kind}{n:07d}" for n in range(count)]) for kind, count in (("u", flags.users), ("i", flags.items))
    ]
    columns = {
        name: ids.take(pa.array(rows)) for name, ids, rows in zip(("user", "item"), names, (users, items), strict=True)
    }
    columns["timestamp"] = pa.array(1_500_000_000 + np.arange(flags.interactions) * 7)
    folder.mkdir()
    pyarrow.parquet.write_table(pa.table(columns), folder / "interactions.parquet")


def load_once(source: str, split: str) -> None:
    """Load a data set and print the time and memory as JSON; runs in a process of its own."""
    start, cpu_start = time.perf_counter(), time.process_time()
    dataset = data.load(source, split=split or None)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(
        json.dumps(
            {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_bytes": peak, "train": len(dataset.train.users)}
        )
    )


def measure_loads(source: Path, split: str, rounds: int) -> dict[str, float]:
    """Return the round with the median seconds, and the highest peak of all rounds."""
    command = [sys.executable, __file__, "--load-once", str(source), split]
    found = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(rounds)
    ]
    median = sorted(found, key=lambda each: each["seconds"])[rounds // 2]
    return {**median, "peak_rss_bytes": max(each["peak_rss_bytes"] for each in found)}


def main(flags: Flags) -> None:
    rows = {}
    with tempfile.TemporaryDirectory() as base:
        plain, own = Path(base) / "plain", Path(base) / "own"
        write_plain(plain, flags)
        rows["plain Parquet, split mmrec"] = measure_loads(plain, "mmrec", flags.rounds)
        rows["plain Parquet, split time"] = measure_loads(plain, "time", flags.rounds)
        start = time.perf_counter()
        data.write_store(data.load(str(plain), split="mmrec"), own)
        converted = time.perf_counter() - start
        rows["own format"] = measure_loads(own, "", flags.rounds)
        sizes = {folder.name: sum(file.stat().st_size for file in folder.rglob("*")) for folder in (plain, own)}
    table = Table("format", "seconds", "CPU seconds", "peak RSS, GiB", title=f"{flags.interactions:,} interactions")
    for name, row in rows.items():
        table.add_row(
            name, f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", f"{row['peak_rss_bytes'] / 2**30:.2f}"
        )
    Console().print(table)
    met = all(row["seconds"] < GOAL_SECONDS and row["peak_rss_bytes"] < GOAL_BYTES for row in rows.values())
    write_result(
        flags.out,
        {
            "interactions": flags.interactions,
            "users": flags.users,
            "items": flags.items,
            "rounds": flags.rounds,
            "formats": rows,
            "convert_seconds": converted,
            "bytes": sizes,
            "goals": {"seconds": GOAL_SECONDS, "peak_rss_bytes": GOAL_BYTES, "met": met},
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load-once"]:
        load_once(*sys.argv[2:4])
    else:
        main(tyro.cli(Flags))
