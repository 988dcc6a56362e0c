"""A run from end to end, and what can be asked of one that is done."""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from slmrec_jax import figures
from slmrec_jax.config import (
    IN_MEMORY,
    Config,
    check_config,
    first_change,
    relevant,
    source_of,
    with_defaults,
    with_source,
)
from slmrec_jax.config.protocols import PROTOCOLS, Candidates, Split
from slmrec_jax.data import Dataset, Feature, Source, Words, check_dataset, load_source
from slmrec_jax.data.ids import alike
from slmrec_jax.data.new_items import NewItems
from slmrec_jax.errors import UserError, check_choice, check_type, setting
from slmrec_jax.evaluation import groups
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.evaluation.groups import Side
from slmrec_jax.evaluation.ranking import prepare, rank
from slmrec_jax.methods import make_method
from slmrec_jax.serving.recommendations import Recommendations, user_rows
from slmrec_jax.training.canary import check_jax
from slmrec_jax.training.cold_items import MakeMethod, cold_item_rows, features_of
from slmrec_jax.training.fit import Fitted, fit
from slmrec_jax.training.inputs import input_shapes, make_inputs, make_spec
from slmrec_jax.training.memory import Memory, available_bytes, check_fits, estimate, give_back, line_of, peak_rss_bytes
from slmrec_jax.training.numbering import by_degree, prepared
from slmrec_jax.training.progress import SILENT, Report
from slmrec_jax.training.selection import best_epoch
from slmrec_jax.training.small_data import batch_doubts, fit_cutoffs
from slmrec_jax.training.steps import compile_steps
from slmrec_jax.training.storage.checkpoint import places, restore_embeddings
from slmrec_jax.training.storage.folder import (
    CHECKPOINTS,
    CURVES,
    DATA,
    NO_RUN,
    RESULT,
    STORE,
    Description,
    MadeBy,
    Record,
    Result,
    held_folder,
    new_folder,
    read_config,
    read_history,
    read_made_by,
)
from slmrec_jax.training.storage.records import read_bytes, read_json, write_json
from slmrec_jax.types import Embeddings

RESUMABLE = ("epochs", "checkpoint_every_steps", "on_nan")
"""Settings that may change when a run is resumed."""


@dataclass(frozen=True)
class Run:
    """A run: its best epoch, and what was measured."""

    config: Config
    dataset: Dataset
    embeddings: Embeddings
    result: dict[str, Any]
    history: list[Record]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether training came to its end. If not, the best epoch is that of the epochs saved so far."""
        return "seconds" in self.result

    def recommend(
        self,
        users: Any = None,
        k: int = 20,
        *,
        new_items: NewItems | None = None,
        only_new: bool = False,
        method: MakeMethod = make_method,
    ) -> Recommendations:
        """Ranks the items that a user has not interacted with, in any split.

        Args:
            users: raw ids, or a single one (a string is one id); all users by default.
            k: how many items each; all, where there are fewer.
            new_items: items that training did not know, ranked among the others by their features.
            only_new: ranks these alone.
            method: what trained; a user's own stands here. Only new items need it.

        Raises:
            UserError: a user is not known, k is below 1, or the system cannot place new items.
        """
        check_type("k", k, (int, np.integer), "the number of items that each user gets")
        check_type("new_items", new_items, (NewItems, type(None)), "what read_new_items returns")
        if only_new and new_items is None:
            raise UserError("only_new=True needs new_items: what read_new_items returns")
        rows = user_rows(users, self.dataset.user_ids, self.dataset.name)
        known = [] if only_new else [self.dataset.train, self.dataset.valid, self.dataset.test]
        ids, embeddings = self.dataset.item_ids, self.embeddings
        if new_items is not None:
            placed = self._place(new_items.features, len(new_items.ids), method)
            tables = [placed] if only_new else [jnp.asarray(embeddings.items), placed]
            ids = new_items.ids if only_new else _joined(ids, new_items.ids)
            embeddings = Embeddings(embeddings.users, jnp.concatenate(tables))
        plan = prepare(rows, known, len(ids), min(k, len(ids)), score=self.config.eval.score)
        ranking = rank(plan, embeddings)
        return Recommendations(self.dataset.user_ids[rows], ids[ranking.items], ranking.scores)

    def evaluate(
        self,
        split: Split = "test",
        protocol: str | None = None,
        candidates: Candidates | None = None,
    ) -> evaluation.Evaluation:
        """Measure the best epoch on a split, by the run's own protocol and candidates or others.

        Cut-offs are those of the run and the protocol, as far as there are so many items to rank.
        """
        return evaluation.evaluate(self._plan(split, protocol, candidates), self.embeddings)

    def evaluate_by(
        self,
        side: Side,
        split: Split = "test",
        protocol: str | None = None,
        candidates: Candidates | None = None,
    ) -> list[groups.Group]:
        """As `evaluate`, for users or items of each degree apart (`groups.evaluate_by_degree`)."""
        check_choice("side", side, get_args(Side))
        plan = self._plan(split, protocol, candidates)
        return groups.evaluate_by_degree(plan, self.embeddings, self.dataset.train, side)

    def with_content(self, method: MakeMethod = make_method) -> "Run":
        """The run with items that have no training interactions placed by their features alone.

        As training left them, their ids' rows are random.

        Raises:
            UserError: the system cannot place such items.
        """
        items = evaluation.cold_items(self.dataset)
        if len(items) == 0:
            return self
        placed = self._place(features_of(self.dataset, items), len(items), method)
        return replace(
            self, embeddings=self.embeddings._replace(items=jnp.asarray(self.embeddings.items).at[items].set(placed))
        )

    def _plan(self, split: Split, protocol: str | None, candidates: Candidates | None) -> evaluation.EvaluationPlan:
        check_choice("split", split, get_args(Split))
        check_choice("protocol", protocol, (None, *PROTOCOLS))
        check_choice("candidates", candidates, (None, *get_args(Candidates)))
        rules = PROTOCOLS[protocol] if protocol else self.config.eval
        rules = rules._replace(candidates=candidates or self.config.eval.candidates, metric=None)
        # They were given to training: what this evaluation cannot have is left out.
        count = evaluation.num_candidates(self.dataset, rules)
        cutoffs = tuple(k for k in (*rules.cutoffs, *self.config.ks) if k <= count) or (count,)
        return evaluation.plan(self.dataset, split, rules._replace(cutoffs=cutoffs))

    def _place(
        self, features: Mapping[str, Feature | Words], count: int, method: MakeMethod
    ) -> Float[Array, "items dim"]:
        epoch = self.result["best_epoch"]
        return cold_item_rows(self.config, self.dataset, self.folder, epoch, features, count, method)


def train(
    config: Config,
    dataset: Dataset | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    method: MakeMethod = make_method,
    config_file: Path | str | None = None,
    report: Report = SILENT,
) -> Run:
    """Train, select and test as the config says.

    Args:
        config: Every choice.
        dataset: The data; by default what `config.data` names. One that was made in memory is kept in the run's folder.
        out: The run's folder; by default a new one under `runs/`.
        resume: Go on with the run in `out`, to the same bits as if it had not stopped.
        method: What makes the method that trains; pass your own here.
        config_file: The Python file that config and method come from, if they do. The run records its SHA-256 and
            resumes only with the same file.
        report: Where progress goes.

    Raises:
        UserError: Something in config, data or folder cannot be used, or JAX computes wrongly (`canary`), and nothing
            was written; or training diverged, and the run folder holds the epochs before.
        Interrupted: A signal asked to stop, and the run can be resumed.
    """
    check_jax()
    check_config(config)
    check_type("out", out, (str, Path, type(None)), "the path of a folder")
    check_type("resume", resume, bool, "true or false")
    check_type("method", method, Callable, "a function of a config and a spec")
    check_type("config_file", config_file, (str, Path, type(None)), "the path of a Python file")
    check_type("report", report, Report, "a slmrec_jax.training.progress.Report")
    folder = Path(out) if out is not None else None
    if resume and folder is None:
        raise UserError(f"{setting('resume', True)} needs {setting('out')}: the folder of the run to go on with")
    config = with_defaults(config)
    dataset = _loaded(config, dataset, folder if resume else None)
    config, dataset = with_source(config, dataset.source), dataset.with_modalities(config.modalities)
    config, left_out = fit_cutoffs(config, dataset)
    give_back()  # what its readers took
    # Before anything is written, so that a split that no one can be tested on is refused now. A split that a data set
    # does not have is left out, unless it selects.
    splits = [
        split for split in get_args(Split) if split == config.eval.split or len(getattr(dataset, split).users) > 0
    ]
    plans = {split: evaluation.plan(dataset, split, config.eval, config.ks) for split in splits}
    made = method(config, make_spec(config, dataset))
    made_by = _made_by(method, config_file)
    if resume and folder is not None:
        held = _held_folder(config, dataset, made_by, folder)
    else:
        held = new_folder(config, dataset, made_by, folder)
    for line in (*_introduction(config, dataset), *left_out, *batch_doubts(made, config, dataset), *made.notes):
        report.say(line)
    given = input_shapes(dataset)
    programs = compile_steps(made, jax.eval_shape(partial(prepared, made), given), config)
    give_back()  # what the compiler took
    memory = estimate(given, programs, plans[config.eval.split].ranking)
    report.say(line_of(memory))
    check_fits(memory, available_bytes())
    with held as folder:
        report.say(f"run folder {folder}")
        inputs = prepared(made, make_inputs(dataset, config.missing, by_degree(dataset)))
        give_back()  # copies of the features
        try:
            fitted = fit(programs.on(inputs), plans[config.eval.split], config, dataset, folder, report, resume=resume)
            del inputs  # the tests need their memory, not them
            if not fitted.best_epoch:
                raise UserError(
                    f"no epoch counts under protocol {config.protocol}: train for more than {config.epochs}"
                )
            embeddings = restore_embeddings(folder / CHECKPOINTS, fitted.best_epoch)
            run = Run(config, dataset, embeddings, {}, fitted.history, folder)
            run = replace(run, result=_result(run, fitted, plans, programs.compile_seconds, memory))
            write_json(folder / RESULT, run.result)
            if (folder / CURVES).is_symlink():  # what it leads to is not ours
                (folder / CURVES).unlink()
            figures.draw_curves(fitted.history, folder / CURVES, f"{config.model} on {dataset.name}")
        except OSError as error:
            raise UserError(
                f"cannot write to {folder}: {error.strerror or error}; fix that, then go on with "
                f"{setting('resume', True)}"
            ) from error
    return run


def load_run(folder: Path | str, dataset: Dataset | None = None, *, data: Path | str | None = None) -> Run:
    """Load a run, to evaluate it or to recommend; the model's code is not needed.

    Of a run that was stopped, this is the best epoch of those that were saved (`Run.finished`).

    Args:
        folder: Folder of the run.
        dataset: The data it was trained on; by default what its config names.
        data: Where to load them from instead.

    Raises:
        UserError: The run is not complete or has no epoch yet, or the data are not those it was trained on.
    """
    check_type("folder", folder, (str, Path), "the path of a run's folder")
    check_type("data", data, (str, Path, type(None)), "the path of a data set's folder")
    folder = Path(folder)
    config = read_config(folder)
    wanted = config if data is None else replace(config, data=data if isinstance(data, str) else str(data.absolute()))
    dataset = _loaded(wanted, dataset, folder).with_modalities(config.modalities)
    _check_same_data(folder, dataset)
    result: dict[str, Any]
    if (folder / RESULT).exists():
        result = read_json(folder / RESULT, Result, f"finish the run again with {setting('resume', True)}")
        history = read_history(folder, result["epochs"])
    else:
        history = _saved_history(folder)
        result = {
            "best_epoch": best_epoch(history),
            "epochs": len(history),
            "seed": config.seed,
            "fingerprint": dataset.fingerprint,
            "protocol": config.protocol,
        }
    if not any(record["epoch"] == result["best_epoch"] and record["improved"] for record in history):
        raise UserError(f"{folder}: {RESULT} and the records of its epochs disagree on the best epoch: {NO_RUN}")
    embeddings = restore_embeddings(folder / CHECKPOINTS, result["best_epoch"])
    if (len(embeddings.users), len(embeddings.items)) != (dataset.num_users, dataset.num_items):
        raise UserError(f"{folder}: its embeddings are not of the users and items of {dataset.name}: {NO_RUN}")
    return Run(config, dataset, embeddings, result, history, folder)


def _saved_history(folder: Path) -> list[Record]:
    """Read the records up to the newest checkpoint of a run that has no result yet."""
    saved = places(folder / CHECKPOINTS)
    history = read_history(folder, saved[-1].epochs) if saved else []
    if not best_epoch(history):
        raise UserError(
            f"{folder}: the run was stopped before an epoch was saved; go on with {setting('resume', True)}"
        )
    return history


def _joined(known: Shaped[np.ndarray, " known"], new: Shaped[np.ndarray, " new"]) -> Shaped[np.ndarray, " items"]:
    """Raw ids of both, which become strings unless they are numbers on both sides."""
    if (known.dtype.kind == "U") != (new.dtype.kind == "U"):
        known, new = known.astype(np.str_), new.astype(np.str_)
    return np.concatenate([known, new])


def _loaded(config: Config, dataset: Dataset | None, folder: Path | None) -> Dataset:
    """Return the data set that is given, or that the config names.

    Args:
        config: Of the run.
        dataset: As the caller gave it.
        folder: Of the run, where there is one already: it holds a data set that was made in memory.
    """
    check_type("dataset", dataset, (Dataset, type(None)), "a Dataset, such as slmrec_jax.load returns for a folder")
    if dataset is None and config.data == IN_MEMORY:
        if folder is None:
            raise UserError("the run's data set was made in memory: pass it as dataset")
        # Its source is memory still, not the folder that keeps it.
        dataset = replace(load_source(Source(str(folder / STORE))))
    elif dataset is None:
        dataset = load_source(source_of(config))
    check_dataset(dataset)
    return dataset


def _made_by(method: MakeMethod, config_file: Path | str | None) -> MadeBy:
    """Describe what makes the method, so that a run resumes with the same."""
    name = None if method is make_method else getattr(method, "__qualname__", type(method).__name__)
    if config_file is None:
        return {"method": name, "config_file": None}
    path = Path(config_file).resolve()
    digest = hashlib.sha256(read_bytes(path, "give the file that the run was begun with")).hexdigest()
    return {"method": name, "config_file": {"path": str(path), "sha256": digest}}


def _held_folder(config: Config, dataset: Dataset, made_by: MadeBy, folder: Path) -> AbstractContextManager[Path]:
    now = {name: value for name, value in relevant(config).items() if name not in RESUMABLE}
    change = first_change(relevant(read_config(folder)), now)
    if change:
        raise UserError(
            f"{folder} was run with another {change}: resume it as it was, or start a new run with another "
            f"{setting('out')}; only {', '.join(map(setting, RESUMABLE))} may change"
        )
    _check_same_maker(folder, made_by)
    _check_same_data(folder, dataset)
    saved = places(folder / CHECKPOINTS)
    if saved and config.epochs < saved[-1].epochs:
        raise UserError(
            f"{folder} has trained {saved[-1].epochs} epochs already: {setting('epochs', config.epochs)} would undo "
            f"some of them; give {setting('epochs', saved[-1].epochs)} or more"
        )
    return held_folder(folder, config, made_by)


def _check_same_maker(folder: Path, now: MadeBy) -> None:
    before = read_made_by(folder)
    old, new = before["config_file"], now["config_file"]
    if old and not new:
        raise UserError(f"{folder} was begun with {_file(old)}: resume it with the same file")
    if new and not old:
        raise UserError(f"{folder} was begun without a config file: resume it without {_file()}")
    if old and new and old["sha256"] != new["sha256"]:
        raise UserError(
            f"{folder} was begun with {_file(old)} of SHA-256 {old['sha256'][:12]}, and {new['path']} has "
            f"{new['sha256'][:12]}: restore the file as it was, or start a new run with another {setting('out')}"
        )
    if before["method"] != now["method"]:
        made = [f"method {name}" if name else "the package's own method" for name in (before["method"], now["method"])]
        raise UserError(f"{folder} was begun with {made[0]}, not {made[1]}: resume it with the same")


def _file(recorded: Mapping[str, Any] | None = None) -> str:
    """Name the argument that takes a config file."""
    return setting("config_file", recorded and recorded["path"], flag="config")


def _check_same_data(folder: Path, dataset: Dataset) -> None:
    trained_on = read_json(folder / DATA, Description, NO_RUN)["fingerprint"]
    if trained_on != dataset.fingerprint:
        raise UserError(
            f"{folder} was run on other data (fingerprint {trained_on[:12]}) than {dataset.name} holds now "
            f"({dataset.fingerprint[:12]}): give back the data it was run on, or start a new run"
        )


def _introduction(config: Config, dataset: Dataset) -> list[str]:
    device = jax.devices()[0]
    modalities = ", ".join(dataset.features) or "none"
    return [
        f"{dataset.name}: {dataset.num_users} users, {dataset.num_items} items, {len(dataset.train.users)} / "
        f"{len(dataset.valid.users)} / {len(dataset.test.users)} interactions, modalities: {modalities}, "
        f"fingerprint {dataset.fingerprint[:12]}",
        *dataset.notes,
        *alike(dataset.user_ids, dataset.item_ids),
        *evaluation.doubts(dataset, config.eval.split, config.eval),
        f"jax {jax.__version__} on {jax.device_count()} × {device.device_kind}",
    ]


def _result(
    run: Run,
    fitted: Fitted,
    plans: Mapping[str, evaluation.EvaluationPlan],
    compile_seconds: float,
    memory: Memory,
) -> dict[str, Any]:
    start = time.perf_counter()
    means = {split: evaluation.evaluate(plan, run.embeddings).means for split, plan in plans.items()}
    seconds = time.perf_counter() - start
    return {
        **means,
        "best_epoch": fitted.best_epoch,
        "epochs": len(run.history),
        "skipped_steps": fitted.tally.skipped_steps,
        "rollbacks": fitted.tally.rollbacks,
        "seed": run.config.seed,
        "fingerprint": run.dataset.fingerprint,
        "protocol": run.config.protocol,
        "seconds": {
            "compile": compile_seconds,
            "train": sum(record["train_seconds"] for record in run.history),
            "evaluate": seconds + sum(record["evaluate_seconds"] for record in run.history),
        },
        "step_ms": fitted.step_ms,
        "estimated_bytes": sum(memory),
        "peak_rss_bytes": peak_rss_bytes(),
    }
