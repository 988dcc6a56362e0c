"""Selection of the best epoch, and early stopping."""

import time
from collections.abc import Callable, Mapping, Sequence

from slmrec_jax.config import Config
from slmrec_jax.config.protocols import Protocol
from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation.protocol import Evaluation
from slmrec_jax.training.storage.folder import Record, Sampled


def make_record(
    history: Sequence[Record],
    protocol: Protocol,
    losses: Mapping[str, float],
    measure: Callable[[], Evaluation],
    train_seconds: float,
    evaluation_start: float,
) -> Record:
    """Make the record of the epoch that follows a history.

    Args:
        history: The records of the epochs before.
        protocol: Determines whether this epoch is evaluated, and the metric that compares epochs.
        losses: The mean losses of the epoch.
        measure: Evaluates the epoch; called only if an evaluation is due.
        train_seconds: The time that the epoch's steps took.
        evaluation_start: The `time.perf_counter` value at the start of the evaluation.
    """
    number = len(history) + 1
    due = (number - 1) % protocol.evaluate_every == 0
    measured = measure() if due else None
    values = measured.means if measured else {}
    selected = {protocol.metric: values[protocol.metric]} if due and protocol.metric else {}
    record: Record = {
        "epoch": number,
        "losses": losses,
        "split": protocol.split,
        "selected": selected,
        "metrics": values,
        "improved": improves(history, number, selected, protocol),
        "train_seconds": train_seconds,
        "evaluate_seconds": time.perf_counter() - evaluation_start,
    }
    if measured and measured.half_widths:
        record["half_widths"] = measured.half_widths
    return record


def sampled_of(measured: Evaluation) -> Sampled | None:
    """Describe the sample of users that was measured; `None` if all users were."""
    if not measured.half_widths:
        return None
    return {
        "users": len(measured.users),
        "of": measured.population,
        "half_widths": dict(measured.half_widths),
    }


def improves(history: Sequence[Record], number: int, selected: Mapping[str, float], protocol: Protocol) -> bool:
    """Return whether an epoch is the best so far. Without a selecting metric, every epoch is."""
    if protocol.metric is None:
        return True
    if not selected or (number == 1 and not protocol.first_epoch_counts):
        return False
    best = [record["selected"] for record in history if record["improved"]]
    return not best or _rounded(selected, protocol) > _rounded(best[-1], protocol)


def finished(history: Sequence[Record], protocol: Protocol) -> bool:
    """Return whether early stopping ends the run: the last epoch was evaluated and is too far behind the best."""
    if protocol.patience is None or len(history) < first_selectable_epoch(protocol) or not history[-1]["selected"]:
        return False
    return bool(history[-1]["epoch"] - best_epoch(history) > protocol.patience)


def first_selectable_epoch(protocol: Protocol) -> int:
    """Return the number of the first epoch that can be the best one."""
    return 1 if protocol.metric is None or protocol.first_epoch_counts else 1 + protocol.evaluate_every


def check_epochs(config: Config) -> None:
    """Reject a number of epochs of which none can be the best one, with a `UserError`."""
    first = first_selectable_epoch(config.eval)
    if config.epochs < first:
        raise UserError(
            f"{setting('epochs', config.epochs)} is too few: under protocol {config.protocol}, epoch {first} is the "
            f"first that can be selected; give {setting('epochs')} at least {first}"
        )


def best_epoch(history: Sequence[Record]) -> int:
    """Return the number of the last epoch that improved; 0 if none did."""
    return max((record["epoch"] for record in history if record["improved"]), default=0)


def _rounded(selected: Mapping[str, float], protocol: Protocol) -> float:
    (value,) = selected.values()
    return value if protocol.round_digits is None else round(value, protocol.round_digits)
