"""Seconds and peak memory to load interactions, from a plain Parquet table and the package's format, and to convert.

The table has text ids and a time for each interaction, and is split while it is read. Each measurement is a process of
its own, so that its peak memory is its own. The files were just written, so they are read from the page cache. On a
busy machine, CPU seconds say more than wall time. Results of other sizes stay in the file.

    python benchmarks/bench_load.py
    python benchmarks/bench_load.py --interactions 100000000 --users 4500000 --items 500000 --rounds 1 \\
        --memory-limit 2GB --no-plain
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import tyro
from rich.console import Console
from rich.table import Table
from timing import write_result

from slmrec_jax import data


@dataclass(frozen=True)
class Flags:
    """Measure loading and converting interactions."""

    interactions: int = 10_000_000
    users: int = 1_000_000
    items: int = 200_000
    rounds: int = 3
    """Measurements of each kind; the median is reported, or the slower of the middle two."""
    memory_limit: str = "2GB"
    """What reading the plain table may take."""
    plain: bool = True
    """Measure loading the plain table too, not only converting it."""
    out: Path = Path("benchmarks/results/load.json")


def write_plain(folder: Path, flags: Flags) -> None:
    """Write interactions ordered by time, with a long tail of items and some repeated pairs."""
    folder.mkdir()
    spilled = folder.parent / "spilled"
    with duckdb.connect(config={"memory_limit": flags.memory_limit, "temp_directory": str(spilled)}) as connection:
        connection.execute(
            f"COPY (SELECT format('u{{:07d}}', hash(range) % {flags.users}) AS user, "
            f"format('i{{:07d}}', floor({flags.items} * pow(hash(-range) / 18446744073709551616, 3))::BIGINT) AS item, "
            f"1500000000 + range * 7 AS timestamp FROM range({flags.interactions})) "
            f"TO '{folder / 'interactions.parquet'}' (FORMAT parquet, COMPRESSION zstd)"
        )


def measure_once(source: str, split: str, limit: str, out: str) -> None:
    """Load a data set, or convert it to `out`, and print the time and memory as JSON; runs in a process of its own."""
    start, cpu_start = time.perf_counter(), time.process_time()
    dataset = data.load(source, split=split or None, memory_limit=limit)
    if out:
        data.write_store(dataset, Path(out))
    else:
        dataset = dataset.by_degree()  # as training does
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    sizes = {name: len(pairs.users) for name, pairs in dataset.splits.items()}
    found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_bytes": peak, "interactions": sizes}
    print(json.dumps({**found, "fingerprint": dataset.fingerprint}))


def measure(source: Path, split: str, flags: Flags, out: Path | None = None) -> dict[str, Any]:
    """Return the round with the median seconds, and the highest peak of all rounds."""
    found = []
    for _ in range(flags.rounds):
        if out is not None:
            shutil.rmtree(out, ignore_errors=True)
        arguments = (str(source), split, flags.memory_limit, "" if out is None else str(out))
        command = [sys.executable, __file__, "--once", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout))
    median = sorted(found, key=lambda each: each["seconds"])[flags.rounds // 2]
    return {**median, "peak_rss_bytes": max(each["peak_rss_bytes"] for each in found)}


def main(flags: Flags) -> None:
    rows = {}
    with tempfile.TemporaryDirectory() as base:
        plain, own = Path(base) / "plain", Path(base) / "own"
        write_plain(plain, flags)
        for split in ("mmrec", "time") if flags.plain else ():
            rows[f"plain Parquet, split {split}"] = measure(plain, split, flags)
        rows["converted, split mmrec"] = measure(plain, "mmrec", flags, own)
        rows["own format"] = measure(own, "", flags)
        sizes = {folder.name: sum(file.stat().st_size for file in folder.rglob("*")) for folder in (plain, own)}
    table = Table("format", "seconds", "CPU seconds", "peak RSS, GiB", title=f"{flags.interactions:,} interactions")
    for name, row in rows.items():
        table.add_row(
            name, f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", f"{row['peak_rss_bytes'] / 2**30:.2f}"
        )
    Console().print(table)
    before = json.loads(flags.out.read_text()).get("sizes", {}) if flags.out.exists() else {}
    result = {
        "users": flags.users,
        "items": flags.items,
        "rounds": flags.rounds,
        "memory_limit": flags.memory_limit,
        "formats": rows,
        "bytes": sizes,
    }
    write_result(flags.out, {"sizes": {**before, str(flags.interactions): result}})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        measure_once(*sys.argv[2:6])
    else:
        main(tyro.cli(Flags))
