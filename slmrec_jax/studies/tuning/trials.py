"""The trials of a search, proposed by optuna and recorded in a journal. No other module imports optuna.

A proposal is made in memory, as a function of the seeds and the finished trials. The journal holds only finished
trials, so an interrupted trial leaves no trace, and a resumed search makes the same proposals as an uninterrupted one.

The journal is optuna's journal file: one JSON line per operation, read with `json.loads`. Optuna unpickles snapshots of
other backends (Redis) and stored samplers; this module uses neither.
"""

import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from slmrec_jax.errors import Diverged, UserError, setting
from slmrec_jax.studies.tuning.seeds import best_value
from slmrec_jax.studies.tuning.space import Choices, Point, Range, Sampler, Space, grid
from slmrec_jax.training.selection import best_epoch
from slmrec_jax.training.storage.folder import Record
from slmrec_jax.training.storage.records import SEAL, seal

JOURNAL = "journal.jsonl"

PRUNE_AFTER_TRIALS, PRUNE_AFTER_EPOCHS = 5, 3
"""The numbers of trials and epochs after which a trial is stopped if its best value is below the median of the others
at that epoch."""


class Trial(NamedTuple):
    """A finished trial. `values` and `best_epochs` have one entry per seed."""

    number: int
    point: Point
    value: float
    """The selecting metric at the best epoch, averaged over seeds; 0 if training diverged."""
    state: str
    """`complete`, `pruned` or `diverged`."""
    curve: Mapping[int, float]
    """The best value so far, by epoch."""
    values: tuple[float, ...]
    best_epochs: tuple[int, ...]
    seconds: float


class Search(NamedTuple):
    """A search in a folder, opened by `open_search`."""

    journal: optuna.Study
    space: Space
    sampler: Sampler
    seeds: Sequence[int]


def open_search(folder: Path, space: Space, sampler: Sampler, seeds: Sequence[int]) -> Search:
    """Open the search whose journal is in a folder, or start one.

    Raises:
        OSError: The journal cannot be read or written.
        UserError: The journal is damaged.
    """
    path = folder / JOURNAL
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path} is not a regular file: remove it, or give another {setting('out')}")
    try:
        with _quiet_optuna():
            # A killed process may have left an incomplete last line, to which optuna would append.
            content = path.read_bytes() if path.exists() else b"\n"
            if not content.endswith(b"\n"):
                os.truncate(path, content.rfind(b"\n") + 1)
            storage = JournalStorage(JournalFileBackend(str(path)))
            journal = optuna.create_study(study_name="tune", storage=storage, direction="maximize", load_if_exists=True)
            search = Search(journal, space, sampler, seeds)
            trials(search)
    except (OSError, UserError):
        raise
    except Exception as error:  # optuna does not validate its input, so damage can raise any exception
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): the journal is damaged; start again with another "
            f"{setting('out')}"
        ) from error
    return search


def trials(search: Search) -> list[Trial]:
    """Return the finished trials in order.

    Raises:
        UserError: A trial was modified after it was recorded, which could change the best trial.
    """
    recorded, chained = search.journal.get_trials(deepcopy=False), ""
    for frozen in recorded:
        chained = _chained_seal(frozen, chained)
        if frozen.user_attrs.get(SEAL) != chained:
            raise UserError(
                f"{JOURNAL}: trial {frozen.number}, or one before it, was changed or removed after it was written: "
                f"restore the file, or start again with another {setting('out')}"
            )
    return [_trial(frozen) for frozen in recorded]


def best_trial(finished: Sequence[Trial]) -> Trial:
    """Return the best complete trial, or the first of several equal ones; raise a `UserError` if none is complete."""
    complete = [trial for trial in finished if trial.state == "complete"]
    if not complete:
        raise UserError(f"training diverged in every trial: give {setting('space')} lower learning rates")
    return max(complete, key=lambda trial: trial.value)


def run_trial(search: Search, train: Callable[[Point], Iterator[Sequence[Sequence[Record]]]]) -> Trial:
    """Propose the next point of a search that is not exhausted, train it, and record the trial in the journal.

    `train` yields the records of each seed after each epoch. If it raises anything other than `Diverged`, nothing is
    recorded.
    """
    with _quiet_optuna():
        study, trial = _propose(search)
        start, state, value = time.perf_counter(), TrialState.COMPLETE, 0.0
        try:
            for histories in train(trial.params):
                values = [best_value(history) for history in histories]
                trial.set_user_attr("values", values)
                trial.set_user_attr("best_epochs", [best_epoch(history) for history in histories])
                value = statistics.fmean(values)
                trial.report(value, max(map(len, histories)))
                if trial.should_prune():
                    state = TrialState.PRUNED
                    break
        except Diverged as error:
            value = 0.0
            trial.set_user_attr("diverged", str(error))
        trial.set_user_attr("seconds", time.perf_counter() - start)
        told = study.tell(trial, None if state == TrialState.PRUNED else value, state=state)
        seals = [each.user_attrs[SEAL] for each in search.journal.get_trials(deepcopy=False)]
        told.set_user_attr(SEAL, _chained_seal(told, seals[-1] if seals else ""))
        search.journal.add_trial(told)
        return trials(search)[-1]


def _propose(search: Search) -> tuple[optuna.Study, optuna.Trial]:
    """Return a new trial and its in-memory study, which contains the finished trials."""
    finished = search.journal.get_trials(deepcopy=False)
    distributions = {name: _distribution(values) for name, values in search.space.items()}
    if search.sampler == "grid":
        done = [trial.params for trial in finished]
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
        study.enqueue_trial(next(dict(point) for point in grid(search.space) if point not in done))
    else:
        seed = int(np.random.SeedSequence([*search.seeds, len(finished)]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=seed)
        pruner = optuna.pruners.MedianPruner(PRUNE_AFTER_TRIALS, PRUNE_AFTER_EPOCHS)
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        study.add_trials(finished)
    return study, study.ask(distributions)


def _distribution(values: Choices | Range) -> BaseDistribution:
    if isinstance(values, Choices):
        return CategoricalDistribution(values.values)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _trial(frozen: FrozenTrial) -> Trial:
    attributes: Mapping[str, Any] = frozen.user_attrs
    state = "pruned" if frozen.state == TrialState.PRUNED else "complete"
    return Trial(
        frozen.number,
        dict(frozen.params),
        float(cast("float", frozen.value)),
        "diverged" if "diverged" in attributes else state,
        dict(sorted(frozen.intermediate_values.items())),
        tuple(map(float, attributes.get("values", ()))),
        tuple(map(int, attributes.get("best_epochs", ()))),
        float(attributes["seconds"]),
    )


def _chained_seal(frozen: FrozenTrial, before: str) -> str:
    """Return the checksum of a trial and the previous seal, so that no trial can be removed unnoticed."""
    content = {
        "before": before,
        "state": frozen.state.name,
        "params": frozen.params,
        "value": frozen.value,
        "curve": frozen.intermediate_values,
        "attributes": {name: value for name, value in frozen.user_attrs.items() if name != SEAL},
    }
    return str(seal(content)[SEAL])


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Silence optuna's log and its warnings about experimental features, since the search reports its own trials."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
