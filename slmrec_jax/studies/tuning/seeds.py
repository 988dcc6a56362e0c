"""Train several seeds of one config, either as one program over batched states or one after another.

Each seed computes the same as a separate run, up to float32 rounding: the same initial state, batches, negatives and
masks. Nothing is written; the records are for a search, which needs only validation.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.training.train_state import TrainState
from jaxtyping import PyTree, Scalar

from slmrec_jax.devices import compiler_options, on_cpu
from slmrec_jax.errors import Diverged
from slmrec_jax.evaluation.protocol import Evaluation, EvaluationPlan, evaluate
from slmrec_jax.training.loop import Progress, epoch, make_keys
from slmrec_jax.training.selection import finished, make_record
from slmrec_jax.training.setup import Setup
from slmrec_jax.training.storage.folder import Record


class Team(NamedTuple):
    """Functions that hold and train the states of several seeds."""

    init: Callable[[], PyTree]
    """`() -> all`: the progress of all seeds before the first step."""
    train: Callable[[PyTree, Sequence[int]], PyTree]
    """`(all, places) -> all` after training an epoch of at least the seeds at the given places."""
    progress: Callable[[PyTree, int], Progress]
    """`(all, place) -> progress` of the seed at a place."""


def one_program(setup: Setup, seeds: Sequence[int]) -> Team:
    """Train all seeds at once with `jax.vmap`, for accelerators, which a single seed does not fill."""
    loop, inputs = setup.loop, setup.inputs
    keys = jax.tree.map(lambda *streams: jnp.stack(streams), *map(make_keys, seeds))  # with a leading axis of seeds
    trained = jax.jit(
        jax.vmap(partial(epoch, loop), in_axes=(0, None, 0)), donate_argnums=0, compiler_options=compiler_options()
    )

    @jax.jit
    def at(all_seeds: PyTree, place: Scalar) -> PyTree:
        return jax.tree.map(lambda x: x[place], all_seeds)

    return Team(lambda: jax.jit(jax.vmap(loop.init))(keys), lambda before, places: trained(before, inputs, keys), at)


def one_by_one(setup: Setup, seeds: Sequence[int]) -> Team:
    """Train one seed after another with one program, for CPUs, where a single seed uses all cores and caches."""
    keys = [make_keys(seed) for seed in seeds]
    trained = jax.jit(partial(epoch, setup.loop), donate_argnums=0, compiler_options=compiler_options())

    def train(before: PyTree, places: Sequence[int]) -> PyTree:
        after = {place: trained(before[place], setup.inputs, keys[place]) for place in places}
        return [after.get(place, each) for place, each in enumerate(before)]

    init = jax.jit(setup.loop.init)
    return Team(lambda: [init(each) for each in keys], train, lambda all_seeds, place: all_seeds[place])


def fit_seeds(
    setup: Setup,
    plan: EvaluationPlan,
    seeds: Sequence[int],
    make_team: Callable[[Setup, Sequence[int]], Team] | None = None,
) -> Iterator[list[list[Record]]]:
    """Train all seeds until each has stopped early or reached the config's last epoch.

    Args:
        setup: The method, inputs and loop. The seed of its config is only used for values that a method draws once
            (MMGCN's frozen tables) and that all seeds share.
        plan: The plan of the evaluation that selects the best epoch.
        seeds: At least one seed.
        make_team: `one_program` or `one_by_one`; by default chosen by the platform. `benchmarks/bench_seeds.py`
            compares them.

    Yields:
        After each epoch, the records so far, one list per seed.

    Raises:
        Diverged: A loss or a seed's embeddings are not finite.
    """
    protocol = setup.config.eval
    team = (make_team or (one_by_one if on_cpu() else one_program))(setup, seeds)
    embed = jax.jit(setup.embed, compiler_options=compiler_options())
    all_seeds = team.init()

    def measure(state: TrainState) -> Evaluation:
        return evaluate(plan, embed(state, setup.inputs))

    histories: list[list[Record]] = [[] for _ in seeds]
    for number in range(1, setup.config.epochs + 1):
        start = time.perf_counter()
        places = [place for place, history in enumerate(histories) if not finished(history, protocol)]
        all_seeds = team.train(all_seeds, places)
        progress = {place: team.progress(all_seeds, place) for place in places}
        losses = jax.device_get({place: each.means.values for place, each in progress.items()})
        trained = time.perf_counter()
        for place in places:
            if not np.isfinite(losses[place]["loss"]):
                raise Diverged(f"the loss of seed {seeds[place]} is not finite in epoch {number}")
            values = {name: float(value) for name, value in losses[place].items()}
            measured = partial(measure, progress[place].state)
            record = make_record(histories[place], protocol, values, measured, trained - start, time.perf_counter())
            histories[place].append(record)
        yield histories
        if all(finished(history, protocol) for history in histories):
            return


def best_value(history: Sequence[Record]) -> float:
    """Return the selecting metric at the best epoch so far; 0 if no epoch counts."""
    best = [record["selected"] for record in history if record["improved"]]
    return float(next(iter(best[-1].values()))) if best else 0.0
