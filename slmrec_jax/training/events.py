"""Events that a run reports to its callbacks while it trains."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from slmrec_jax.training.storage.folder import Record


class Event(NamedTuple):
    """Something that happened in a run."""

    kind: Literal["message", "epoch", "evaluation"]
    """A line for the user, the end of an epoch, or the evaluation of the best epoch at the end of the run."""
    text: str
    """The event as one line."""
    epoch: int = 0
    """The epoch, counted from 1; 0 for a message."""
    values: Mapping[str, float] = {}
    """Values by name: `loss/loss` is the total loss and `loss/main` one of its terms; `valid/recall@20` is a metric on
    a split, in epochs that are evaluated; `seconds/train` and `seconds/evaluate` are the epoch's times."""
    metric: str | None = None
    """The name, in `values`, of the metric that selects the best epoch, if this epoch was evaluated with it."""
    improved: bool = False
    """Whether the epoch is the best so far."""


Callback = Callable[[Event], None]
"""A function that receives each event. A warning that a checkpoint could not be written or deleted may come from the
thread that writes it, even during another call; all other events come from the training thread. If the function raises
an exception, the run ends and can be resumed."""


def message(text: str) -> Event:
    """Make the event for a line of text."""
    return Event("message", text)


def epoch_event(record: Record) -> Event:
    """Make the event for the end of an epoch."""
    split, losses = record["split"], record["losses"]
    selected = [f"{split}/{name}" for name in record["selected"]]
    values = {
        **{f"loss/{name}": value for name, value in losses.items()},
        **{f"{split}/{name}": value for name, value in record["metrics"].items()},
        "seconds/train": record["train_seconds"],
        "seconds/evaluate": record["evaluate_seconds"],
    }
    shown = "  ".join(f"{name} {value:.4f}" for name, value in losses.items() if "/" not in name)
    widths = record.get("half_widths", {})
    for name, value in record["selected"].items():
        shown += f"  {split} {name} {value:.4f}" + (f" ± {widths[name]:.4f}" if name in widths else "")
    best = " *" if record["improved"] else ""
    line = f"epoch {record['epoch']:>4}  {shown}{best}  {record['train_seconds']:.2f} s"
    return Event("epoch", line, record["epoch"], values, next(iter(selected), None), record["improved"])


def evaluation_event(epoch: int, splits: Mapping[str, Mapping[str, float]]) -> Event:
    """Make the event for the evaluation of the best epoch on each split."""
    values = {f"{split}/{name}": value for split, means in splits.items() for name, value in means.items()}
    return Event("evaluation", f"best epoch {epoch}, measured on {' and '.join(splits)}", epoch, values)
