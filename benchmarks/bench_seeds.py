"""Milliseconds a training epoch of several seeds: as one program (`jax.vmap`), and one after another.

Both train the same method from the same states, and run in turn. Compile time stands apart: one after another compiles
once, for all seeds. A ratio above 1 says that together is faster.

    python benchmarks/bench_seeds.py --data PATH/tiktok
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax import Config, data
from slmrec_jax.config import with_variant
from slmrec_jax.methods import make_method
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.loop import make_epoch, make_keys
from slmrec_jax.training.numbering import by_degree
from slmrec_jax.tuning.seeds import stack_keys


@dataclass(frozen=True)
class Flags:
    """What to measure."""

    data: str = "demo"
    systems: tuple[str, ...] = ("mf", "lightgcn", "slmrec:fac")
    """A model, or a variant of one."""
    seeds: int = 4
    """How many are trained."""
    batch_size: int = 2048
    rounds: int = 5
    """Epochs that are timed."""
    out: Path = Path("benchmarks/results/seeds.json")


def compiled(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], float]:
    """The program, whose first argument is given up to it, and the seconds that compiling took."""
    start = time.perf_counter()
    program = jax.jit(function, donate_argnums=0).lower(*arguments).compile()
    return program, time.perf_counter() - start


def compare(config: Config, dataset: data.Dataset, flags: Flags) -> dict[str, float]:
    """One system's figures."""
    method = make_method(config, make_spec(config, dataset))
    inputs = method.prepare(make_inputs(dataset, numbering=by_degree(dataset)))
    epoch = make_epoch(method, flags.batch_size)
    keys, of_all = [make_keys(seed) for seed in range(flags.seeds)], stack_keys(range(flags.seeds))
    states = [jax.jit(method.init)(each.init) for each in keys]
    together = jax.jit(jax.vmap(method.init))(of_all.init)
    one, one_seconds = compiled(epoch, states[0], inputs, keys[0])
    all_at_once, all_seconds = compiled(jax.vmap(epoch, in_axes=(0, None, 0)), together, inputs, of_all)

    def apart_epoch() -> object:
        nonlocal states
        left = [one(state, inputs, each) for state, each in zip(states, keys, strict=True)]
        states = [each.state for each in left]
        return [each.metrics for each in left]

    def together_epoch() -> object:
        nonlocal together
        left = all_at_once(together, inputs, of_all)
        together = left.state
        return left.metrics

    seconds = measure({"apart": apart_epoch, "together": together_epoch}, flags.rounds)
    apart_ms, together_ms = median_ms(seconds["apart"]), median_ms(seconds["together"])
    return {
        "apart_epoch_ms": apart_ms,
        "together_epoch_ms": together_ms,
        "apart_over_together": apart_ms / together_ms,
        "apart_compile_seconds": one_seconds,
        "together_compile_seconds": all_seconds,
    }


def main(flags: Flags) -> None:
    dataset = data.load(flags.data)
    rows = {}
    for system in flags.systems:
        model, _, variant = system.partition(":")
        config = with_variant(replace(Config(), batch_size=flags.batch_size), model, variant)  # type: ignore[arg-type]
        rows[system] = compare(config, dataset, flags)
    table = Table("system", *next(iter(rows.values())), title=f"{dataset.name}, {flags.seeds} seeds")
    for system, row in rows.items():
        table.add_row(system, *(f"{value:.2f}" for value in row.values()))
    Console().print(table)
    about = {"data": dataset.name, "seeds": flags.seeds, "batch_size": flags.batch_size, "rounds": flags.rounds}
    write_result(flags.out, {**about, "systems": rows})


if __name__ == "__main__":
    main(tyro.cli(Flags))
