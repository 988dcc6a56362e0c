"""A search over trials that goes on where it stopped. The only module that knows optuna.

A proposal is a function of the seeds and of the trials that have finished, made in memory; the journal holds finished
trials alone. So an interrupted trial leaves nothing, and a search that goes on proposes what it would have proposed.

The journal is optuna's journal file: a line of JSON for each operation, read by `json.loads`. Optuna unpickles
snapshots of backends that have them (Redis), and samplers only where a program does so; neither happens here.
"""

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
from slmrec_jax.studies.tuning.space import Choices, Point, Range, Sampler, Space, grid
from slmrec_jax.training.storage.records import SEAL, seal

JOURNAL = "journal.jsonl"

PRUNE_AFTER_TRIALS, PRUNE_AFTER_EPOCHS = 5, 3
"""From then on a trial stops whose best validation so far is below the median of the others' at the same epoch."""


class Trial(NamedTuple):
    """One that has finished."""

    number: int
    point: Point
    value: float
    """The selecting metric at the best epoch, mean over seeds; 0 where training diverged."""
    state: str
    """`complete`, `pruned` or `diverged`."""
    curve: Mapping[int, float]
    """The best value so far by epoch."""
    values: tuple[float, ...]
    """By seed."""
    best_epochs: tuple[int, ...]
    seconds: float


class Progress(NamedTuple):
    """What a trial has come to after an epoch."""

    epoch: int
    values: tuple[float, ...]
    """Of each seed, the best so far."""
    best_epochs: tuple[int, ...]


class Search(NamedTuple):
    """A search in a folder, opened by `open_search`."""

    journal: optuna.Study
    space: Space
    sampler: Sampler
    seeds: Sequence[int]


def open_search(folder: Path, space: Space, sampler: Sampler, seeds: Sequence[int]) -> Search:
    """The search whose journal lies in a folder, or a new one.

    Raises:
        OSError: the disk refuses to read or write the journal.
        UserError: the journal is damaged.
    """
    path = folder / JOURNAL
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path} is not a regular file: remove it, or give another {setting('out')}")
    try:
        with _quiet():
            _drop_torn_line(path)
            storage = JournalStorage(JournalFileBackend(str(path)))
            # It proposes nothing: its sampler is never asked.
            journal = optuna.create_study(study_name="tune", storage=storage, direction="maximize", load_if_exists=True)
            search = Search(journal, space, sampler, seeds)
            trials(search)
    except (OSError, UserError):
        raise
    # Optuna checks nothing of what it reads, and raises what that happens to lead to.
    except Exception as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): the journal is damaged; start again with another "
            f"{setting('out')}"
        ) from error
    return search


def trials(search: Search) -> list[Trial]:
    """Return those that have finished, in their order.

    Raises:
        UserError: one of them is not as it was entered, which could make another one the best.
    """
    found, before = search.journal.get_trials(deepcopy=False), ""
    for frozen in found:
        after = _checksum(frozen, before)
        if frozen.user_attrs.get(SEAL) != after:
            raise UserError(
                f"{JOURNAL}: trial {frozen.number}, or one before it, was changed or removed after it was written: "
                f"restore the file, or start again with another {setting('out')}"
            )
        before = after
    return [_trial(frozen) for frozen in found]


def best_trial(finished: Sequence[Trial]) -> Trial:
    """The best of those that were trained to their end; the first of equal ones.

    Raises:
        UserError: there is none.
    """
    complete = [trial for trial in finished if trial.state == "complete"]
    if not complete:
        raise UserError(f"training diverged in every trial: give {setting('space')} lower learning rates")
    return max(complete, key=lambda trial: trial.value)


def run_trial(search: Search, train: Callable[[Point], Iterator[Progress]]) -> Trial:
    """Proposes a point, trains it, and enters it into the journal.

    Args:
        search: it must not be exhausted.
        train: yields after each epoch; what it raises leaves no trace in the journal, unless training diverged.
    """
    with _quiet():
        study, trial = _propose(search)
        start, progress, state = time.perf_counter(), None, TrialState.COMPLETE
        value = 0.0
        try:
            for progress in train(trial.params):
                value = statistics.fmean(progress.values)
                trial.report(value, progress.epoch)
                if trial.should_prune():
                    state = TrialState.PRUNED
                    break
        except Diverged as error:
            value = 0.0
            trial.set_user_attr("diverged", str(error))
        if progress is not None:
            trial.set_user_attr("values", progress.values)
            trial.set_user_attr("best_epochs", progress.best_epochs)
        trial.set_user_attr("seconds", time.perf_counter() - start)
        told = study.tell(trial, None if state == TrialState.PRUNED else value, state=state)
        before = [each.user_attrs[SEAL] for each in search.journal.get_trials(deepcopy=False)]
        told.set_user_attr(SEAL, _checksum(told, before[-1] if before else ""))
        search.journal.add_trial(told)
        return trials(search)[-1]


def _propose(search: Search) -> tuple[optuna.Study, optuna.Trial]:
    """A trial of a study in memory that knows the finished ones."""
    finished = search.journal.get_trials(deepcopy=False)
    distributions = {name: _distribution(values) for name, values in search.space.items()}
    if search.sampler == "grid":
        done = [trial.params for trial in finished]
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
        study.enqueue_trial(next(dict(point) for point in grid(search.space) if point not in done))
        return study, study.ask(distributions)
    seed = int(np.random.SeedSequence([*search.seeds, len(finished)]).generate_state(1)[0])
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(PRUNE_AFTER_TRIALS, PRUNE_AFTER_EPOCHS),
    )
    study.add_trials(finished)
    return study, study.ask(distributions)


def _distribution(values: Choices | Range) -> BaseDistribution:
    if isinstance(values, Choices):
        return CategoricalDistribution(values.values)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _drop_torn_line(path: Path) -> None:
    """Cuts off what a stopped process left of its last line: the next one would be written behind it."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


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


def _checksum(frozen: FrozenTrial, before: str) -> str:
    """Of what a trial says, and of the one before it, so that none can be left out."""
    said = {
        "state": frozen.state.name,
        "params": frozen.params,
        "value": frozen.value,
        "curve": frozen.intermediate_values,
        "attributes": {name: value for name, value in frozen.user_attrs.items() if name != SEAL},
    }
    return str(seal({"before": before, **said})[SEAL])


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna logs each trial and warns of what is experimental; the search says its own."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
