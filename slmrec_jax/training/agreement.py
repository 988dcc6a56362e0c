"""Agreement of a run's processes before training: data read once per host, equal settings, one run folder."""

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax

from slmrec_jax import processes
from slmrec_jax.config import Source, first_change, relevant
from slmrec_jax.data import Dataset, load_copy, write_store
from slmrec_jax.errors import UserError
from slmrec_jax.evaluation.ranking import RankingPlan
from slmrec_jax.training.setup import Setup
from slmrec_jax.training.storage.folder import CONFIG, MadeBy

SAME_PACKAGES = ("slmrec-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
"""The packages that must have the same version in all processes."""


def read_once(read: Callable[[], Dataset], asked: Source) -> Dataset:
    """Read a data set once per host: the first process there calls `read` and leaves a copy for the others.

    Args:
        read: Reads the data set.
        asked: The source that is read, which must be the same in all processes.

    Raises:
        UserError: Some process cannot read the data, or processes request different data.
    """
    if processes.count() == 1:
        return read()
    told = processes.gathered([processes.host(), dataclasses.asdict(asked)])
    hosts, wanted = zip(*told, strict=True)
    _refuse_first_change(wanted)
    own = hosts[processes.index()]
    reader, is_shared = hosts.index(own), hosts.count(own) > 1
    with TemporaryDirectory(prefix="slmrec_jax-") as folder:
        copy = Path(folder) / "data"

        def read_and_copy() -> Dataset | None:
            if processes.index() != reader:
                return None
            found = read()
            if is_shared:
                write_store(found, copy)
            return found

        dataset = processes.in_all(read_and_copy)
        source = dataset and dataset.source and dataclasses.asdict(dataset.source)
        path, source = processes.gathered([str(copy), source])[reader]

        def read_copy() -> Dataset:
            if dataset is not None:
                return dataset
            # Containers on one host may not share a folder.
            return load_copy(Path(path), Source(**source) if source else None) if Path(path).exists() else read()

        return processes.in_all(read_copy)  # all processes have read the copy before it is deleted


def check_same_run(planned: Setup, ranking: RankingPlan, maker: MadeBy, *, resume: bool) -> None:
    """Check that all processes have the same packages, settings, method, data and kind of device.

    Raises:
        UserError: A process differs from the first. The message names the process and the difference.
    """
    if processes.count() == 1:
        return
    file = maker["config_file"]
    own = {
        **{f"version of {package}": importlib.metadata.version(package) for package in SAME_PACKAGES},
        **relevant(planned.config),
        "data set (fingerprint)": planned.dataset.fingerprint[:12],
        "method": maker["method"] or "the package's own",
        "config file (SHA-256)": file["sha256"][:12] if file else "none",
        "resume": repr(resume),
        "mesh": str(planned.layout and dict(planned.layout.mesh.shape)),
        "device": jax.local_devices()[0].device_kind,
        "number of users ranked at a time, from the device's memory": ranking.chunk.rows,
    }
    _refuse_first_change(processes.gathered(own))


def _refuse_first_change(told: Sequence[Mapping[str, Any]]) -> None:
    first, *others = told
    for index, other in enumerate(others, 1):
        if change := first_change(other, first) or first_change(first, other):
            error = UserError(
                f"process {index} differs from process 0 in its {change}: start all processes with the same "
                "installation, the same settings and the same data, on the same kind of device"
            )
            raise processes.raised_by_all(error)


@contextmanager
def held_by_first(held: AbstractContextManager[Path] | None) -> Iterator[Path]:
    """Hold a run's folder in the first process, the only one where `held` is given, and yield its path in all.

    Raises:
        UserError: The folder cannot be held, or some process does not see it.
    """
    with ExitStack() as stack:
        own = processes.in_first(lambda: None if held is None else stack.enter_context(held))
        path = processes.agreed(None if own is None else str(own.absolute()))
        folder = Path(path) if own is None else own

        def see() -> None:
            if not (folder / CONFIG).exists():
                raise UserError(
                    f"the run folder {folder} is not visible on this host: use a folder that all hosts share"
                )

        processes.in_all(see)
        yield folder
