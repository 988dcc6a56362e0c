"""How much memory a run will take, known when its programs are compiled and nothing large is allocated."""

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax

from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation.ranking import IN_FLIGHT, RankingPlan
from slmrec_jax.training.steps import Programs
from slmrec_jax.training.storage.arrays import READ_BACK_BYTES
from slmrec_jax.types import Inputs

LATER_BYTES = 112 * 2**20
"""What a run's process grew by on the demo data, whose arrays take next to nothing: programs of ranking, checks and
measures, and the writer of checkpoints. On the host; an accelerator has none of it."""

SHOWN_BYTES = 5 * 2**20
"""Parts that round to nothing are not named."""

GROUP = Path("/sys/fs/cgroup")
"""Where a container finds its own limit."""


class Memory(NamedTuple):
    """Bytes at the peak of a run, in the memory that JAX computes in; the parts add up to it."""

    process: int
    """What the process holds before anything of the run is allocated: Python, JAX, compiled programs, the data set. 0
    on an accelerator, whose memory is another."""
    earlier: int
    """By how much the peak so far, of compiling or of what the process did before, lies above the rest together. 0 on
    an accelerator."""
    later: int
    """Programs that are compiled, and libraries that are loaded, only where they are first used (`LATER_BYTES`)."""
    preparation: int
    """By how much the peak while inputs are prepared lies above that of training."""
    graph: int
    features: int
    """Those that models read as they were given. On CPU too a copy of what the data set has, since NumPy seldom lays
    arrays out as JAX needs them."""
    precomputed: int
    """What the model computes once from graph and features (`Graph.derived`, `Inputs.cache`)."""
    state: int
    """Parameters and optimizer state."""
    activations: int
    """What a step needs besides, gradients included, where an evaluation does not need more."""
    evaluation: int
    """Embeddings and scores, where they need more than a step; otherwise 0."""
    checkpoints: int
    """Copies on their way to the disk, and on the host what is read back of them."""

    @property
    def to_come(self) -> int:
        """All but what the process holds already, or held."""
        return sum(self) - self.process - self.earlier


def estimate(given: Inputs, programs: Programs, ranking: RankingPlan) -> Memory:
    """The peak of a run, from shapes and from what the compiler says of its programs.

    Args:
        given: the shapes of the inputs before the method prepares them.
        programs: compiled for the shapes of what it makes of them.
        ranking: of the evaluation that selects.
    """
    host = jax.default_backend() == "cpu"
    prepared, state = programs.inputs, size(programs.shapes)
    embeddings = size(programs.embed.out_info)
    computed = prepared.graph.derived, prepared.cache
    graph, cache = size(prepared.graph._replace(derived={})), size(computed)
    features = size(prepared.features)
    step = size(programs.order.out_info) + _temporary(programs.segment)
    evaluated = embeddings + max(_temporary(programs.embed), embeddings + _scores(ranking))
    largest_of_state = max(map(size, jax.tree.leaves(programs.shapes)))
    read_back = min(state, max(READ_BACK_BYTES, largest_of_state)) if host else 0
    copies = state + embeddings + read_back
    during = max(step, evaluated)
    largest = max((size(leaf) for leaf in jax.tree.leaves(computed)), default=0)
    preparing = size(given.features) + 2 * largest
    known = Memory(
        process=rss_bytes() if host else 0,
        earlier=0,
        later=LATER_BYTES if host else 0,
        preparation=max(0, preparing - features - state - during - copies),
        graph=graph,
        features=features,
        precomputed=cache,
        state=state,
        activations=step if step >= evaluated else 0,
        evaluation=evaluated if evaluated > step else 0,
        checkpoints=copies,
    )
    return known._replace(earlier=max(0, peak_rss_bytes() - sum(known)) if host else 0)


def check_fits(memory: Memory, available: int | None) -> None:
    """Refuses a run that would not fit, before it begins.

    Args:
        memory: of the run.
        available: bytes that may still be taken; `None` where that is not known.

    Raises:
        UserError: what is to come is more; the line names its largest part and what makes that smaller.
    """
    if available is None or memory.to_come <= available:
        return
    parts = memory._asdict()
    smaller = smaller_by()
    largest = max(smaller, key=lambda name: parts[name])
    raise UserError(
        f"memory: {_gib(memory.to_come)} GiB more would be needed and {_gib(available)} are free; the largest part is "
        f"{largest} with {_gib(parts[largest])}: give {smaller[largest]}"
    )


def smaller_by() -> dict[str, str]:
    """Say what makes each part smaller."""
    dim, modalities = f"a smaller {setting('dim')}", f"fewer {setting('modalities')}"
    return {
        "preparation": modalities,
        "graph": "data with fewer interactions",
        "features": modalities,
        "precomputed": f"{setting('frozen_rows', 'bfloat16')} (slmrec), {setting('propagation', 'definition')}, which "
        f"is slower, or {modalities}",
        "state": dim,
        "activations": f"a smaller {setting('batch_size')} or {setting('dim')}",
        "evaluation": dim,
        "checkpoints": dim,
    }


def line_of(memory: Memory) -> str:
    """The estimate for the log, in GiB, the largest part first."""
    parts = sorted(memory._asdict().items(), key=lambda part: -part[1])
    named = ", ".join(f"{name} {_gib(value)}" for name, value in parts if value >= SHOWN_BYTES)
    return f"memory: {_gib(sum(memory))} GiB expected at the peak: {named}"


def available_bytes() -> int | None:
    """What the device that JAX computes on has left: the machine's own memory on CPU, else the accelerator's."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    return min((free for free in (_free_of_machine(), _free_of_group()) if free is not None), default=None)


def size(tree: Any) -> int:
    """Bytes of all arrays, or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def rss_bytes() -> int:
    """What the process holds in memory now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return peak_rss_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_rss_bytes() -> int:
    """The most that the process has held in memory."""
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def give_back() -> None:
    """Gives the system what was freed, which glibc would keep for itself: hundreds of MiB after compiling."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries do not have it
    if trim is not None:
        trim(0)


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    found = (line.split() for line in lines)
    return next((1024 * int(words[1]) for words in found if words[0] == "MemAvailable:"), None)


def _free_of_group() -> int | None:
    """What the container's limit leaves (cgroup 2), if there is one. Cached files count as free."""
    try:
        limit, used = ((GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    return None if limit == "max" else int(limit) - int(used) + int(cached["inactive_file"])


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f}"


def _temporary(program: jax.stages.Compiled) -> int:
    analysis = program.memory_analysis()
    return 0 if analysis is None else int(analysis.temp_size_in_bytes)  # some backends tell nothing


def _scores(ranking: RankingPlan) -> int:
    chunk = ranking.chunk
    blocks = 2 if chunk.score == "sigmoid" else 1
    in_flight = min(IN_FLIGHT, len(ranking.first_pairs))
    return in_flight * blocks * 4 * chunk.rows * chunk.num_ranked + 8 * ranking.num_users * chunk.k
