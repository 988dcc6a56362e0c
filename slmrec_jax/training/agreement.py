"""What the processes of one run must agree on before they train, and the folder that one of them holds for all."""

import importlib.metadata
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from slmrec_jax import processes
from slmrec_jax.config import first_change, relevant
from slmrec_jax.errors import UserError
from slmrec_jax.training.setup import Setup
from slmrec_jax.training.storage.folder import MadeBy

SAME_PACKAGES = ("slmrec-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
"""The packages of which all processes need the same version."""


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
