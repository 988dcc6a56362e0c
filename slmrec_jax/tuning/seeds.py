"""Several seeds of one config as one program: their states and keys batched, the data shared.

What a seed computes is what a run of it alone computes, to float32 rounding: the same start, batches, negatives and
masks. Nothing is written; the records are for a search that needs validation alone.
"""

import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax.training.train_state import TrainState
from jaxtyping import Array

from slmrec_jax.config import Config
from slmrec_jax.errors import Diverged
from slmrec_jax.evaluation.protocol import EvaluationPlan, evaluate
from slmrec_jax.sampling import NEGATIVES
from slmrec_jax.training.folder import Record
from slmrec_jax.training.loop import Keys, make_epoch, make_keys
from slmrec_jax.training.selection import finished, improves
from slmrec_jax.types import Embeddings, Inputs, Method


def fit_seeds(
    method: Method, inputs: Inputs, plan: EvaluationPlan, config: Config, seeds: Sequence[int]
) -> Iterator[list[list[Record]]]:
    """Trains all seeds until each has come to its early stopping, or to the config's last epoch.

    A seed that has come to its end is trained along until the others have, but not measured any more.

    Args:
        method: what trains.
        inputs: as the method prepared them.
        plan: the evaluation that selects.
        config: of all; its own seed is not read.
        seeds: at least one.

    Yields:
        After each epoch the records so far, a list a seed.

    Raises:
        Diverged: a loss, or what a seed ranks with, is no longer finite.
    """
    protocol = config.eval
    keys = stack_keys(seeds)
    state = jax.jit(jax.vmap(method.init))(keys.init)
    epoch = make_epoch(method, config.batch_size, negatives=NEGATIVES[config.negatives])
    run_epoch = jax.jit(jax.vmap(epoch, in_axes=(0, None, 0)), donate_argnums=0)

    @jax.jit
    def embed(state: TrainState, inputs: Inputs, place: Array) -> Embeddings:
        return method.embed(jax.tree.map(lambda x: x[place], state), inputs)

    histories: list[list[Record]] = [[] for _ in seeds]
    for number in range(1, config.epochs + 1):
        start = time.perf_counter()
        state, metrics = run_epoch(state, inputs, keys)
        losses = {name: np.asarray(values) for name, values in jax.device_get(metrics).items()}
        trained = time.perf_counter()
        due = (number - 1) % protocol.evaluate_every == 0
        for place, (seed, history) in enumerate(zip(seeds, histories, strict=True)):
            if finished(history, protocol):
                continue
            if not np.isfinite(losses["loss"][place]):
                raise Diverged(f"the loss of seed {seed} is not finite in epoch {number}")
            selected = {}
            if due and protocol.metric:
                embeddings = embed(state, inputs, jnp.int32(place))
                selected = {protocol.metric: evaluate(plan, embeddings).means[protocol.metric]}
            history.append(
                {
                    "epoch": number,
                    "losses": {name: float(values[place]) for name, values in losses.items()},
                    "split": protocol.split,
                    "selected": selected,
                    "improved": improves(history, number, selected, protocol),
                    "train_seconds": trained - start,
                }
            )
        yield histories
        if all(finished(history, protocol) for history in histories):
            return


def stack_keys(seeds: Sequence[int]) -> Keys:
    """The streams of all seeds, the leading axis the seeds."""
    return Keys(*(jnp.stack(streams) for streams in zip(*(make_keys(seed) for seed in seeds), strict=True)))


def best_value(history: Sequence[Record]) -> float:
    """The selecting metric at the best epoch so far; 0 where none counts."""
    best = [record["selected"] for record in history if record["improved"]]
    return float(next(iter(best[-1].values()))) if best else 0.0
