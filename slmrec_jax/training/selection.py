"""Which epoch is the best, and when there will be no better one."""

from collections.abc import Mapping, Sequence

from slmrec_jax.config.protocols import Protocol
from slmrec_jax.training.storage.folder import Record


def improves(history: Sequence[Record], number: int, selected: Mapping[str, float], protocol: Protocol) -> bool:
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


def _rounded(selected: Mapping[str, float], protocol: Protocol) -> float:
    (value,) = selected.values()
    return value if protocol.round_digits is None else round(value, protocol.round_digits)
