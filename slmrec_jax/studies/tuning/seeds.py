"""Several seeds of one config, trained one after another, or as one program with states and keys batched.

Each seed computes what a separate run of it computes, to float32 rounding: the same initial state, batches, negatives
and masks. Nothing is written: a search needs only the validation records.
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

from slmrec_jax.config import Config
from slmrec_jax.errors import Diverged
from slmrec_jax.evaluation.protocol import EvaluationPlan, evaluate
from slmrec_jax.objectives.sampling import NEGATIVES
from slmrec_jax.training import numbering
from slmrec_jax.training.loop import Epoch, Keys, make_epoch, make_keys
from slmrec_jax.training.selection import finished, improves
from slmrec_jax.training.steps import compiler_options
from slmrec_jax.training.storage.folder import Record
from slmrec_jax.types import Inputs, Method, Metrics


class Team(NamedTuple):
    """Functions that hold and train the states of several seeds."""

    init: Callable[[], PyTree]
    """Make all states, before the first step."""
    run: Callable[[PyTree, Sequence[int]], tuple[PyTree, Sequence[Metrics]]]
    """`(states, places) -> (states, metrics)`: train an epoch of at least the seeds at these places."""
    state: Callable[[PyTree, int], TrainState]
    """`(states, place) -> state`: the state of one seed."""


EpochOf = Callable[[TrainState, Inputs, Keys], Epoch]


def one_program(method: Method, epoch: EpochOf, inputs: Inputs, seeds: Sequence[int]) -> Team:
    """Train all seeds at once by `jax.vmap`, because one seed does not fill an accelerator."""
    keys = stack_keys(seeds)
    trained = jax.jit(jax.vmap(epoch, in_axes=(0, None, 0)), donate_argnums=0)

    @jax.jit
    def of_seed(stacked: PyTree, place: Scalar) -> PyTree:
        return jax.tree.map(lambda x: x[place], stacked)

    def run(states: PyTree, places: Sequence[int]) -> tuple[PyTree, Sequence[Metrics]]:
        after = trained(states, inputs, keys)
        return after.state, [of_seed(after.metrics, place) for place in range(len(seeds))]

    return Team(lambda: jax.jit(jax.vmap(method.init))(keys.init), run, of_seed)


def one_by_one(method: Method, epoch: EpochOf, inputs: Inputs, seeds: Sequence[int]) -> Team:
    """Train one seed at a time by one compiled program: faster on CPUs, where a seed fills all cores and caches."""
    keys = [make_keys(seed) for seed in seeds]
    trained = jax.jit(epoch, donate_argnums=0, compiler_options=compiler_options())

    def run(states: PyTree, places: Sequence[int]) -> tuple[PyTree, Sequence[Metrics]]:
        after = {place: trained(states[place], inputs, keys[place]) for place in places}
        kept = [after[place].state if place in after else state for place, state in enumerate(states)]
        return kept, [after[place].metrics if place in after else {} for place in range(len(seeds))]

    init = jax.jit(method.init)
    return Team(lambda: [init(each.init) for each in keys], run, lambda states, place: states[place])


def default_team() -> Callable[[Method, EpochOf, Inputs, Sequence[int]], Team]:
    """Return the faster team for JAX's default device; `benchmarks/bench_seeds.py` measures both."""
    return one_by_one if jax.default_backend() == "cpu" else one_program


def fit_seeds(
    method: Method,
    inputs: Inputs,
    plan: EvaluationPlan,
    config: Config,
    seeds: Sequence[int],
    make_team: Callable[[Method, EpochOf, Inputs, Sequence[int]], Team] | None = None,
) -> Iterator[list[list[Record]]]:
    """Train all seeds, each until early stopping or the config's last epoch.

    Args:
        method: what trains.
        inputs: as the method prepared them.
        plan: the evaluation that selects.
        config: shared by all seeds; its own seed is not read. All seeds share what the method draws from that seed in
            advance (MMGCN's frozen tables).
        seeds: at least one.
        make_team: `one_program` or `one_by_one`; by default `default_team()`.

    Yields:
        The records so far after each epoch, one list a seed.

    Raises:
        Diverged: a loss or a seed's embeddings are no longer finite.
    """
    protocol = config.eval
    epoch = make_epoch(method, config.batch_size, negatives=NEGATIVES[config.negatives])
    team = (make_team or default_team())(method, epoch, inputs, seeds)
    embed = jax.jit(partial(numbering.embed, method))
    states = team.init()
    histories: list[list[Record]] = [[] for _ in seeds]
    for number in range(1, config.epochs + 1):
        start = time.perf_counter()
        places = [place for place, history in enumerate(histories) if not finished(history, protocol)]
        states, metrics = team.run(states, places)
        losses = jax.device_get(metrics)
        trained = time.perf_counter()
        due = (number - 1) % protocol.evaluate_every == 0
        for place in places:
            if not np.isfinite(losses[place]["loss"]):
                raise Diverged(f"the loss of seed {seeds[place]} is not finite in epoch {number}")
            metrics_due = due and protocol.metric is not None
            values = evaluate(plan, embed(team.state(states, place), inputs)).means if metrics_due else {}
            selected = {str(protocol.metric): values[str(protocol.metric)]} if metrics_due else {}
            histories[place].append(
                {
                    "epoch": number,
                    "losses": {name: float(value) for name, value in losses[place].items()},
                    "split": protocol.split,
                    "selected": selected,
                    "metrics": values,
                    "improved": improves(histories[place], number, selected, protocol),
                    "train_seconds": trained - start,
                    "evaluate_seconds": time.perf_counter() - trained,
                }
            )
        yield histories
        if all(finished(history, protocol) for history in histories):
            return


def stack_keys(seeds: Sequence[int]) -> Keys:
    """Return the streams of all seeds, stacked along the leading axis."""
    return Keys(*(jnp.stack(streams) for streams in zip(*(make_keys(seed) for seed in seeds), strict=True)))


def best_value(history: Sequence[Record]) -> float:
    """Return the selecting metric at the best epoch so far; 0 if no epoch counts."""
    best = [record["selected"] for record in history if record["improved"]]
    return float(next(iter(best[-1].values()))) if best else 0.0
