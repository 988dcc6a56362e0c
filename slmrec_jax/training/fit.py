"""From a method and its inputs to its best epoch: validation, early stopping, checkpoints, resumption."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tensorboardX import SummaryWriter

from slmrec_jax.config import Config
from slmrec_jax.errors import Diverged
from slmrec_jax.evaluation.protocol import EvaluationPlan, Protocol, evaluate
from slmrec_jax.sampling import NEGATIVES, SAMPLINGS
from slmrec_jax.training.checkpoint import open_checkpoints, restore_last, save
from slmrec_jax.training.folder import CHECKPOINTS, EVENTS, Record, append_record, read_history, write_history
from slmrec_jax.training.loop import make_epoch, make_keys
from slmrec_jax.training.progress import Report
from slmrec_jax.training.signals import Interrupted, stop_requests
from slmrec_jax.types import Inputs, Method


class Fitted(NamedTuple):
    """What training leaves besides its checkpoints."""

    history: list[Record]
    best_epoch: int
    compile_seconds: float
    step_ms: float
    """Median over the epochs of training time by step."""


def fit(
    method: Method, inputs: Inputs, plan: EvaluationPlan, config: Config, folder: Path, report: Report, *, resume: bool
) -> Fitted:
    """Trains until the protocol's early stopping or the config's last epoch.

    Args:
        method: what trains.
        inputs: as the method prepared them.
        plan: the evaluation that selects.
        config: of the run.
        folder: of the run; after each epoch its record and a checkpoint are there.
        report: where progress goes.
        resume: goes on from the newest checkpoint, to the same bits as if there had been no break.

    Raises:
        UserError: the loss is no longer finite (`Diverged`), or there is nothing to resume.
        Interrupted: a signal asked to stop; the epoch at hand was finished and saved.
    """
    protocol, keys = config.eval, make_keys(config.seed)
    state = jax.jit(method.init)(keys.init)
    with (
        open_checkpoints(folder / CHECKPOINTS) as checkpoints,
        SummaryWriter(str(folder / EVENTS)) as events,
        stop_requests() as stop_requested,
    ):
        history: list[Record] = []
        if resume:
            epochs_done, state = restore_last(checkpoints, state, report.say)
            history = read_history(folder, epochs_done) if epochs_done else []
            write_history(folder, history)
            report.say(f"resumed after epoch {epochs_done}")
        start = time.perf_counter()
        epoch = make_epoch(
            method,
            config.batch_size,
            negatives=NEGATIVES[config.negatives],
            keep_previous=protocol.stale_embeddings,
        )
        run_epoch = jax.jit(epoch, donate_argnums=0).lower(state, inputs, keys).compile()
        embed = jax.jit(method.embed).lower(state, inputs).compile()
        compile_seconds = time.perf_counter() - start

        while len(history) < config.epochs and not finished(history, protocol):
            number, start = len(history) + 1, time.perf_counter()
            state, previous, metrics = run_epoch(state, inputs, keys)
            losses = {name: float(value) for name, value in jax.device_get(metrics).items()}
            trained = time.perf_counter()
            _check_finite(losses, number)
            embeddings = embed(state if previous is None else previous, inputs)
            due = (number - 1) % protocol.evaluate_every == 0
            values = evaluate(plan, embeddings).means if due else {}
            selected = {protocol.metric: values[protocol.metric]} if due and protocol.metric else {}
            improved = improves(history, number, selected, protocol)
            record: Record = {
                "epoch": number,
                "losses": losses,
                "split": protocol.split,
                "selected": selected,
                "metrics": values,
                "improved": improved,
                "train_seconds": trained - start,
                "evaluate_seconds": time.perf_counter() - trained,
            }
            append_record(folder, record)
            save(checkpoints, number, state, embeddings, improved)
            history.append(record)
            _write_events(events, record)
            report.epoch(record)
            asked = stop_requested()
            if asked is not None and len(history) < config.epochs:
                raise Interrupted(asked, folder)
    steps = SAMPLINGS[method.sampling].num_steps(inputs.graph.interactions[0].shape[0], config.batch_size)
    step_ms = statistics.median(1e3 * record["train_seconds"] / steps for record in history)
    return Fitted(history, best_epoch(history), compile_seconds, step_ms)


def improves(history: Sequence[Record], number: int, selected: dict[str, float], protocol: Protocol) -> bool:
    """Whether an epoch is the best so far; under a protocol that does not select, each one is."""
    if protocol.metric is None:
        return True
    if not selected or (number == 1 and not protocol.first_epoch_counts):
        return False
    best = [record["selected"] for record in history if record["improved"]]
    return not best or _rounded(selected, protocol) > _rounded(best[-1], protocol)


def finished(history: Sequence[Record], protocol: Protocol) -> bool:
    """Whether early stopping ends the run: the last evaluated epoch is too far behind the best."""
    if protocol.patience is None or not history or not history[-1]["selected"]:
        return False
    return bool(history[-1]["epoch"] - best_epoch(history) > protocol.patience)


def best_epoch(history: Sequence[Record]) -> int:
    """The last epoch that was an improvement; 0 if none was."""
    return max((record["epoch"] for record in history if record["improved"]), default=0)


def _rounded(selected: dict[str, float], protocol: Protocol) -> float:
    (value,) = selected.values()
    return value if protocol.round_digits is None else round(value, protocol.round_digits)


def _check_finite(losses: dict[str, float], epoch: int) -> None:
    bad = [name for name, value in losses.items() if not np.isfinite(value)]
    if bad:
        raise Diverged(
            f"{bad[-1]} is not finite in epoch {epoch}: training diverged; lower --optimizer.learning-rate or raise "
            f"the temperature"
        )


def _write_events(events: SummaryWriter, record: Record) -> None:
    for name, value in record["losses"].items():
        events.add_scalar(f"loss/{name}", value, record["epoch"])
    for name, value in record["metrics"].items():
        events.add_scalar(f"{record['split']}/{name}", value, record["epoch"])
