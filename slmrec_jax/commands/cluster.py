"""The flags by which the processes of one run find each other."""

from dataclasses import dataclass

from slmrec_jax.errors import UserError
from slmrec_jax.joining import AUTO, join


@dataclass(frozen=True)
class ClusterFlags:
    """The flags with which the processes of one run find each other."""

    coordinator: str | None = None
    """Run as one of several processes: HOST:PORT of the first, with a free port; or auto, to ask Slurm, Open MPI,
    Kubernetes or a Cloud TPU."""
    num_processes: int | None = None
    """The number of processes."""
    process_id: int | None = None
    """The index of this process, from 0."""


def join_processes(flags: ClusterFlags) -> None:
    """Join the processes of a run, if the flags ask for several.

    Raises:
        UserError: The flags contradict each other, or the other processes do not join.
    """
    coordinator, num_processes, process_id = flags.coordinator, flags.num_processes, flags.process_id
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise UserError("--num-processes and --process-id need --coordinator: give HOST:PORT of the first process")
        return
    if coordinator != AUTO:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isascii() or not port.isdigit():
            raise UserError(f"--coordinator is {coordinator!r}: give HOST:PORT, such as localhost:1234, or auto")
        if num_processes is None or process_id is None:
            raise UserError("--coordinator HOST:PORT needs --num-processes and --process-id")
        if num_processes < 1:
            raise UserError(f"--num-processes is {num_processes}: give at least 1")
        if not 0 <= process_id < num_processes:
            raise UserError(f"--process-id is {process_id}: give 0 to {num_processes - 1}, below --num-processes")
    join(coordinator, num_processes, process_id)
