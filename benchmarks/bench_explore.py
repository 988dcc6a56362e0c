"""The answers of `slmrec-jax explore`, in milliseconds: one after another, and many requests at once.

Two runs of random tables at the size of a data set, asked through the server as the page asks.

    python benchmarks/bench_explore.py
    python benchmarks/bench_explore.py --users 100000 --items 1000000 --runs 1 --modalities 1
"""

import http.client
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from timing import write_result

from slmrec_jax.data.dataset import Dataset
from slmrec_jax.exploring.explored import Explored, ExploredRun, HostTables, explored_of
from slmrec_jax.exploring.server import ExploreServer, make_server
from slmrec_jax.reporting.items import ItemVectors
from slmrec_jax.training.memory import peak_rss_bytes
from slmrec_jax.types import Interactions

ANSWERS = ("user?row={user}", "similar?row={item}", "new?rows={item},1,2", "items?q=7{item}", "map?run=0")


@dataclass(frozen=True)
class Flags:
    """Measure the answers of the local page; the defaults have the size of TikTok."""

    users: int = 9_308
    items: int = 6_710
    interactions: int = 59_541
    runs: int = 2
    modalities: int = 2
    columns: int = 128
    """Columns of each modality."""
    dim: int = 64
    rounds: int = 30
    """Timed requests of each kind."""
    at_once: int = 64
    """Requests for users that arrive together."""
    out: Path = Path("benchmarks/results/explore.json")


def drawn(flags: Flags) -> Explored:
    draw = np.random.default_rng(0)
    names = [f"modality {number}" for number in range(flags.modalities)]

    def table(rows: int, columns: int) -> np.ndarray:
        return draw.normal(size=(rows, columns)).astype(np.float32)

    def tables() -> HostTables:
        return HostTables(table(flags.users, flags.dim), table(flags.items, flags.dim))

    def run(name: str) -> ExploredRun:
        whole = tables()
        return ExploredRun(name, {}, whole, "dot", whole, {each: tables() for each in names})

    pairs = Interactions(
        *(draw.integers(0, rows, flags.interactions).astype(np.int32) for rows in (flags.users, flags.items))
    )
    empty = Interactions(pairs.users[:0], pairs.items[:0])
    ids = np.arange(flags.users), np.arange(flags.items)
    dataset = Dataset("drawn", flags.users, flags.items, pairs, empty, empty, {}, *ids)
    present = np.ones(flags.items, np.bool_)
    vectors = {name: ItemVectors(table(flags.items, flags.columns), present) for name in names}
    return explored_of(dataset, [run(f"run {number}") for number in range(flags.runs)], vectors)


@contextmanager
def served(explored: Explored) -> Iterator[ExploreServer]:
    with make_server(explored) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server: ExploreServer, request: str) -> float:
    """Return the milliseconds of a request, from the connection to the last byte."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
    connection.request("GET", f"/{server.token}/api/{request}")
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{request}: status {answer.status}")
    connection.close()
    return 1e3 * (time.perf_counter() - start)


def main(flags: Flags) -> None:
    begun = time.perf_counter()
    explored = drawn(flags)
    start_s, draw = time.perf_counter() - begun, np.random.default_rng(1)
    with served(explored) as server:

        def times(pattern: str) -> list[float]:
            rows = (draw.integers(0, count, flags.rounds) for count in (flags.users, flags.items))
            return [ask(server, pattern.format(user=user, item=item)) for user, item in zip(*rows, strict=True)]

        alone = {pattern.partition("?")[0]: times(pattern) for pattern in ANSWERS}
        asked = [f"user?row={row}" for row in draw.integers(0, flags.users, flags.at_once)]
        with ThreadPoolExecutor(flags.at_once) as pool:
            begun = time.perf_counter()
            together = list(pool.map(lambda request: ask(server, request), asked))
            all_ms = 1e3 * (time.perf_counter() - begun)
    result = {
        **{name: getattr(flags, name) for name in ("users", "items", "runs", "modalities", "columns", "dim")},
        "prepared_s": round(start_s, 2),
        "median_ms": {name: round(statistics.median(found), 1) for name, found in alone.items()},
        "longest_ms": {name: round(max(found), 1) for name, found in alone.items()},
        "at_once": {
            "requests": flags.at_once,
            "all_ms": round(all_ms, 1),
            "median_ms": round(statistics.median(together), 1),
            "longest_ms": round(max(together), 1),
        },
        "peak_mib": round(peak_rss_bytes() / 2**20),
    }
    print(result)
    write_result(flags.out, result)


if __name__ == "__main__":
    main(tyro.cli(Flags))
