"""What the processes of one run share before they train: data that one reads, equal settings, the run's folder."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from slmrec_jax import processes
from slmrec_jax.config import Source, first_change, relevant
from slmrec_jax.data import Dataset, load_copy, write_store
from slmrec_jax.errors import RefusedElsewhere, UserError
from slmrec_jax.training.setup import Setup
from slmrec_jax.training.storage.folder import MadeBy

SAME_PACKAGES = ("slmrec-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
"""The packages of which all processes need the same version."""


def read_once(read: Callable[[], Dataset]) -> Dataset:
    """Return what a function reads; of the processes on a host, only the first calls it, and leaves a copy for others.

    Raises:
        UserError: The data cannot be read, in any process.
    """
    if processes.count() == 1:
        return read()
    hosts = processes.gathered([platform.node(), _boot_id()])
    index = processes.index()
    reader = hosts.index(hosts[index])
    dataset, refusal, source = None, None, None
    with TemporaryDirectory(prefix="slmrec_jax-") as folder:
        copy = Path(folder) / "data"
        if index == reader:
            try:
                dataset = read()
                source = dataset.source and dataclasses.asdict(dataset.source)
                if hosts.count(hosts[index]) > 1:
                    write_store(dataset, copy)
            except UserError as error:
                refusal = error
        told = processes.gathered([str(copy), source, refusal and str(refusal)])
        if refusal is not None:
            raise refusal
        said = next((each for _, _, each in told if each), None)
        if said is not None:
            raise RefusedElsewhere(said)
        if dataset is None:
            place, source, _ = told[reader]
            dataset = load_copy(Path(place), Source(**source) if source else None)
        processes.wait_for_all()  # before the copy is deleted
    return dataset


def _boot_id() -> str:
    """Return what tells machines of the same name apart, where Linux says it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def check_same_run(planned: Setup, maker: MadeBy, *, resume: bool) -> None:
    """Refuse processes that were given different packages, settings, methods or data.

    Raises:
        UserError: A process differs from the first; the line names it and what differs.
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
    }
    first, *others = processes.gathered(own)
    for index, other in enumerate(others, 1):
        if change := first_change(other, first) or first_change(first, other):
            raise UserError(
                f"process {index} differs from process 0 in its {change}: start all processes with the same "
                "installation, the same flags and the same data"
            )


@contextmanager
def held_by_first(held: AbstractContextManager[Path] | None) -> Iterator[Path]:
    """Hold a run's folder in the first process, which alone has what holds it, and tell the others its path.

    Raises:
        UserError: The folder cannot be held.
    """
    with ExitStack() as stack:
        own = processes.in_first(lambda: None if held is None else stack.enter_context(held))
        path = processes.agreed(None if own is None else str(own.absolute()))
        yield Path(path) if own is None else own
