"""Milliseconds of a training epoch of several seeds: as one program (`jax.vmap`), and one after another.

These are the two teams of `tune`. Both train the same method from the same states, in turn. Compilation is in the first
epoch, which is reported separately; one after another compiles once for all seeds. A ratio above 1 means that together
is faster.

    python benchmarks/bench_seeds.py --data PATH/tiktok
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro
from jaxtyping import PyTree
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax import Config, data, setup
from slmrec_jax.config import with_system
from slmrec_jax.studies.tuning.seeds import Team, one_by_one, one_program


@dataclass(frozen=True)
class Flags:
    """Measure training several seeds together and apart."""

    data: str = "demo"
    systems: tuple[str, ...] = ("mf", "lightgcn", "slmrec:fac")
    """Models, optionally with a preset."""
    seeds: int = 4
    """The number of seeds to train."""
    batch_size: int = 2048
    rounds: int = 5
    """The number of timed epochs."""
    out: Path = Path("benchmarks/results/seeds.json")


TEAMS = {"apart": one_by_one, "together": one_program}


def compare(config: Config, dataset: data.Dataset, flags: Flags) -> dict[str, float]:
    """Measure one system."""
    made, seeds = setup(config, dataset.by_degree()), range(flags.seeds)
    first_seconds, epochs = {}, {}
    for name, make_team in TEAMS.items():
        start = time.perf_counter()
        team = make_team(made, seeds)
        progress = jax.block_until_ready(team.train(team.init(), seeds))
        first_seconds[name] = time.perf_counter() - start
        epochs[name] = repeated(team, progress, seeds)
    seconds = measure(epochs, flags.rounds)
    ms = {name: median_ms(of_team) for name, of_team in seconds.items()}
    return {
        **{f"{name}_epoch_ms": value for name, value in ms.items()},
        "apart_over_together": ms["apart"] / ms["together"],
        **{f"{name}_first_epoch_seconds": value for name, value in first_seconds.items()},
    }


def repeated(team: Team, progress: PyTree, places: Sequence[int]) -> Callable[[], object]:
    """Return a function that trains one more epoch of all seeds with each call."""

    def epoch() -> object:
        nonlocal progress
        progress = team.train(progress, places)
        return progress

    return epoch


def main(flags: Flags) -> None:
    dataset = data.load(flags.data)
    rows = {}
    for system in flags.systems:
        config = with_system(Config(batch_size=flags.batch_size), system)
        rows[system] = compare(config, dataset, flags)
    table = Table("system", *next(iter(rows.values())), title=f"{dataset.name}, {flags.seeds} seeds")
    for system, row in rows.items():
        table.add_row(system, *(f"{value:.2f}" for value in row.values()))
    Console().print(table)
    about = {"data": dataset.name, "seeds": flags.seeds, "batch_size": flags.batch_size, "rounds": flags.rounds}
    write_result(flags.out, {**about, "systems": rows})


if __name__ == "__main__":
    main(tyro.cli(Flags))
