"""A run from end to end: data, setup, compilation, training, test, and its folder."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from slmrec_jax import figures, processes
from slmrec_jax.config import IN_MEMORY, Config, Source, check_config, source_of, with_defaults, with_source
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.data.ids import alike
from slmrec_jax.errors import UserError, check_type, setting
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.evaluation.protocol import Plans
from slmrec_jax.meshes import choose_mesh
from slmrec_jax.methods import make_method
from slmrec_jax.program_cache import keep_programs
from slmrec_jax.training.agreement import check_same_run, held_by_first, read_once
from slmrec_jax.training.canary import check_jax
from slmrec_jax.training.events import Callback, evaluation_event, message
from slmrec_jax.training.fit import fit
from slmrec_jax.training.loading import load_dataset
from slmrec_jax.training.memory import (
    Memory,
    available_bytes,
    check_fits,
    estimate_within,
    line_of,
    peak_rss_bytes,
    trim_memory,
)
from slmrec_jax.training.planning import time_line
from slmrec_jax.training.progress import telling
from slmrec_jax.training.run import Run
from slmrec_jax.training.selection import best_epoch, check_epochs, sampled_of
from slmrec_jax.training.session import Position
from slmrec_jax.training.setup import MakeMethod, Setup, compiled, outline, with_own_inputs
from slmrec_jax.training.small_data import batch_warnings, fit_cutoffs
from slmrec_jax.training.storage.checkpoint import restore_embeddings
from slmrec_jax.training.storage.folder import CHECKPOINTS, CURVES, RESULT, STORE, Result, new_folder
from slmrec_jax.training.storage.records import write_json
from slmrec_jax.training.storage.resume import made_by, resumed_folder
from slmrec_jax.types import Embeddings

_UNUSED_SOURCE = "the config's settings for reading data are ignored, since the data set was given"


class CompiledRun(NamedTuple):
    """A compiled run before its first step. Only its data set is allocated, on the host."""

    setup: Setup
    """The setup, with compiled programs and with shapes in place of inputs."""
    plans: Plans
    memory: Memory
    copies: bool
    """Whether memory has room for checkpoint copies, so that they are written while training continues."""
    compile_seconds: float


def train(
    config: Config,
    dataset: Dataset | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    method: MakeMethod = make_method,
    config_file: Path | str | None = None,
    mesh: Mesh | str | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train a model, select its best epoch and test it, as the config specifies.

    Compiled programs are cached in the user's cache folder, as with the command line, unless JAX's compilation cache is
    already configured.

    Args:
        config: Every choice.
        dataset: The data; by default the data set that `config.data` names. A data set made in memory is stored in the
            run's folder.
        out: The run's folder, by default a new one in `runs/`.
        resume: Whether to continue the run in `out`. The result is bitwise identical to an uninterrupted run.
        overwrite: Whether to delete an existing run in `out`, once the new one is ready to start.
        method: Makes the method to train; pass your own here.
        config_file: The Python file that the config and the method come from, if any. The run records its SHA-256 and
            resumes only with the same file.
        mesh: The devices to train on, as for `setup`; several processes use all of their devices. A run may be resumed
            on different devices.
        progress: Whether to show progress: a bar on a terminal or in a notebook, lines elsewhere. By default only on a
            terminal and in a notebook.
        callbacks: Functions that receive each `Event` of the run, such as the end of an epoch with its losses and
            metrics. With several processes, only the first calls them.

    Raises:
        UserError: The config, the data or the folder is unusable, or JAX computes wrong results (`canary`): nothing was
            written. Or training diverged: the run's folder holds the epochs before.
        Interrupted: A signal requested a stop. The run can be resumed.
    """
    notes = keep_programs()
    _check_arguments(config, out, resume, overwrite, method, config_file, mesh, progress, callbacks)
    processes.in_all(check_jax)
    folder = None if out is None else Path(out)
    config, dataset, changes = _data(config, dataset, folder if resume else None)
    plans, planned, maker = processes.in_all(
        lambda: (
            evaluation.plan_run(dataset, config.eval, config.ks, config.seed),  # raises before anything is written
            outline(config, dataset, method=method, mesh=choose_mesh(mesh, config.dim)),
            made_by(_name_of(method), config_file),
        )
    )
    check_same_run(planned, plans.selecting.ranking, maker, resume=resume)

    def hold() -> AbstractContextManager[Path]:
        if resume and folder is not None:
            return resumed_folder(planned.config, planned.dataset, maker, folder)
        return new_folder(planned.config, planned.dataset, maker, folder, overwrite=overwrite)

    held = processes.in_first(hold)
    warnings = batch_warnings(planned.method, planned.config, planned.dataset)
    first = processes.is_first()  # only the first process reports to the user
    with telling(progress if first else False, config.epochs, callbacks if first else ()) as tell:
        for line in (*_introduction(planned), *changes, *warnings, *planned.method.notes, *notes):
            tell(message(line))
        num_on_host = processes.on_own_host()
        run = processes.in_all(lambda: _compile_run(planned, plans, tell, num_on_host))
        with held_by_first(held) as folder, _disk_faults(folder):
            tell(message(f"run folder {folder}"))
            # The inputs are not bound to a name, so that unused ones are freed after preparation and the rest before
            # the tests.
            position = fit(with_own_inputs(run.setup), plans.selecting, folder, tell, resume=resume, copies=run.copies)
            return _written(run, position, folder, tell)


@contextmanager
def _disk_faults(folder: Path) -> Iterator[None]:
    """Turn an `OSError` within the block into a one-line `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; fix that, then continue with "
            f"{setting('resume', True)}"
        ) from error


def _check_arguments(
    config: Any,
    out: Any,
    resume: Any,
    overwrite: Any,
    method: Any,
    config_file: Any,
    mesh: Any,
    progress: Any,
    callbacks: Any,
) -> None:
    check_config(config)
    check_epochs(config)
    check_type("out", out, (str, Path, type(None)), "the path of a folder")
    check_type("resume", resume, bool, "true or false")
    check_type("overwrite", overwrite, bool, "true or false")
    check_type("method", method, Callable, "a function of a config and a spec")
    check_type("config_file", config_file, (str, Path, type(None)), "the path of a Python file")
    check_type("mesh", mesh, (Mesh, str, type(None)), "a mesh, sizes such as 'data=2,model=4', or 'auto'")
    if progress is not None:
        check_type("progress", progress, bool, "true or false")
    check_type("callbacks", callbacks, (tuple, list), "a list of functions")
    for callback in callbacks:
        check_type("callbacks", callback, Callable, "a list of functions")
    if resume and overwrite:
        raise UserError(
            f"{setting('resume', True)} continues a run and {setting('overwrite', True)} deletes it: give one"
        )
    if resume and out is None:
        raise UserError(f"{setting('resume', True)} needs {setting('out')}: the folder of the run to continue")


def _name_of(method: MakeMethod) -> str | None:
    """Return the name of the user's own function, which identifies it when the run is resumed."""
    return None if method is make_method else getattr(method, "__qualname__", type(method).__name__)


def _data(config: Config, dataset: Dataset | None, folder: Path | None) -> tuple[Config, Dataset, list[str]]:
    """Return the config resolved for its data set, the data set, and log lines about settings that changed."""
    config, given = with_defaults(config), dataset
    if given is None and config.data != IN_MEMORY and folder is not None and (folder / STORE).exists():
        raise UserError(
            f"{folder} was run on a data set made in memory: leave out {setting('data')}, or in Python pass it as "
            "dataset"
        )
    read = partial(load_dataset, config, given, folder)
    dataset = read_once(read, source_of(config)) if given is None else read()
    asked, config = source_of(config), with_source(config, dataset.source)
    unused = [] if given is None or asked in (Source(), source_of(config)) else [_UNUSED_SOURCE]
    dataset = dataset.with_modalities(config.modalities)
    config, notes = fit_cutoffs(config, dataset)
    trim_memory()  # the readers' copies
    return config, dataset, [*unused, *notes]


def _compile_run(planned: Setup, plans: Plans, tell: Callback, num_on_host: int) -> CompiledRun:
    """Compile a run and check that it fits in memory. `num_on_host` processes share the memory of this host."""
    start = time.perf_counter()
    setup = compiled(planned)
    seconds = time.perf_counter() - start
    trim_memory()  # the compiler's
    ranking, available = plans.selecting.ranking, available_bytes(num_on_host)
    # Several processes write collectively, and each always makes a copy.
    memory, copies = estimate_within(available if processes.count() == 1 else None, setup, ranking)
    if not copies:
        tell(message("checkpoints: there is no memory for copies, so training waits while they are written"))
    tell(message(line_of(memory)))
    check_fits(memory, available)
    line = time_line(setup)
    if line:
        tell(message(line))
    return CompiledRun(setup, plans, memory, copies, seconds)


def _introduction(planned: Setup) -> list[str]:
    dataset, config, device = planned.dataset, planned.config, jax.devices()[0]
    num_devices = 1 if planned.layout is None else planned.layout.mesh.size
    modalities = ", ".join(dataset.features) or "none"
    return [
        f"{dataset.name}: {dataset.num_users} users, {dataset.num_items} items, {len(dataset.train.users)} / "
        f"{len(dataset.valid.users)} / {len(dataset.test.users)} interactions, modalities: {modalities}, "
        f"fingerprint {dataset.fingerprint[:12]}",
        *dataset.notes,
        *alike(dataset.user_ids, dataset.item_ids),
        *evaluation.split_warnings(dataset, config.eval.split, config.eval),
        f"jax {jax.__version__} on {num_devices} × {device.device_kind}{_mesh_of(planned)}",
    ]


def _mesh_of(planned: Setup) -> str:
    if planned.layout is None:
        return ""
    sizes = ", ".join(f"{name} {size}" for name, size in planned.layout.mesh.shape.items())
    mixed = f"; {planned.config.model} mixes columns: each device holds whole tables"
    return f", as a mesh of {sizes}{'' if planned.method.by_columns else mixed}"


def _written(run: CompiledRun, position: Position, folder: Path, tell: Callback) -> Run:
    """Test the best epoch and write the result and the curves."""
    config, dataset = run.setup.config, run.setup.dataset
    best = best_epoch(position.history)
    embeddings, layout = restore_embeddings(folder / CHECKPOINTS, best), run.setup.layout
    # The tables of a mesh may be too large for one device.
    placed: Embeddings = jax.tree.map(jnp.asarray, embeddings) if layout is None else layout.put(embeddings)
    start = time.perf_counter()
    measured = {split: evaluation.evaluate(plan, placed) for split, plan in run.plans.final.items()}
    means = {split: each.means for split, each in measured.items()}
    tell(evaluation_event(best, means))
    history = list(position.history)
    result = _result(run, position, time.perf_counter() - start) | means
    sampled = {split: sample for split, each in measured.items() if (sample := sampled_of(each))}
    result |= {"sampled": sampled} if sampled else {}
    if processes.is_first():
        write_json(folder / RESULT, result)
        if (folder / CURVES).is_symlink():  # do not write through the link
            (folder / CURVES).unlink()
        figures.draw_curves(history, folder / CURVES, f"{config.model} on {dataset.name}")
    processes.wait_for_all()
    return Run(config, dataset, placed if layout is None else embeddings, result, history, folder)


def _result(run: CompiledRun, position: Position, test_seconds: float) -> dict[str, Any]:
    config, history, steps = run.setup.config, position.history, run.setup.loop.steps_per_epoch
    layout = run.setup.layout
    result: Result = {
        "best_epoch": best_epoch(history),
        "epochs": len(history),
        "skipped_steps": position.tally.skipped_steps,
        "rollbacks": position.tally.rollbacks,
        "seed": config.seed,
        "fingerprint": run.setup.dataset.fingerprint,
        "protocol": config.protocol,
        "seconds": {
            "compile": run.compile_seconds,
            "train": sum(record["train_seconds"] for record in history),
            "evaluate": test_seconds + sum(record["evaluate_seconds"] for record in history),
        },
        "step_ms": statistics.median(1e3 * record["train_seconds"] / steps for record in history),
        "estimated_bytes": sum(run.memory),
        "peak_rss_bytes": peak_rss_bytes(),
        "mesh": {} if layout is None else dict(layout.mesh.shape),
        "processes": processes.count(),
    }
    return dict(result)
