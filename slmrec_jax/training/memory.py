"""The memory that a run will take, known once its programs are compiled and before anything large is allocated."""

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax

from slmrec_jax.devices import on_cpu
from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation.ranking import RankingPlan, factors, ranking_program
from slmrec_jax.evaluation.scoring import AGAIN_ROWS
from slmrec_jax.evaluation.tiles import IN_FLIGHT
from slmrec_jax.training.inputs import input_shapes
from slmrec_jax.training.setup import Setup
from slmrec_jax.training.storage.arrays import READ_BACK_BYTES
from slmrec_jax.types import Embeddings, Inputs, Method

LATER_BYTES = 112 * 2**20
"""The growth of a run's process on the demo data, whose arrays are negligible: programs for ranking, checks and
metrics, and the writer of checkpoints. On the host; nothing of it is on an accelerator."""

SPARE = 0.1
"""The share of the available memory that must stay free for checkpoints to be copied: estimates are good to a tenth."""

SHOWN_BYTES = 5 * 2**20
"""Smaller parts are not listed."""

CGROUP = Path("/sys/fs/cgroup")
"""The folder where a container finds its limit."""


class Memory(NamedTuple):
    """The bytes at the peak of a run, in the memory that JAX computes in, by part.

    On a mesh of accelerators, they are those of each device; on CPUs, those of the process, with all of its devices.
    """

    process: int
    """The memory of the process before the run allocates anything: Python, JAX, compiled programs, the data set. 0 on
    an accelerator, which has its own memory."""
    earlier: int
    """The excess of the peak so far, of compiling or of earlier work of the process, over all other parts together. 0
    on an accelerator."""
    later: int
    """Programs and libraries that are loaded when they are first used (`LATER_BYTES`)."""
    preparation: int
    """The excess of the peak while inputs are prepared over that of training."""
    graph: int
    features: int
    """Features that models read in their original form and type. A copy of the data set's on CPU too."""
    precomputed: int
    """Results that the model computes once from graph and features (`Graph.derived`, `Inputs.cache`)."""
    state: int
    """Parameters and optimizer state."""
    activations: int
    """The temporary memory of a step, including gradients, unless an evaluation needs more."""
    evaluation: int
    """Embeddings and scores, if they need more than a step; otherwise 0."""
    checkpoints: int
    """Copies that are being written to disk and, in the memory of arrays, what is read back to check them. If training
    waits for them, embeddings and what is read back, if they need more than a step or an evaluation; otherwise 0."""

    @property
    def to_come(self) -> int:
        """The bytes that are still to be allocated."""
        return sum(self) - self.process - self.earlier


def estimate(planned: Setup, ranking: RankingPlan, *, copies: bool = True) -> Memory:
    """Estimate the peak of a compiled run, whose inputs may be shapes, from the compiler's analysis of its programs.

    `ranking` is that of the evaluation that selects. `copies` says whether checkpoints are copied and written beside
    training, or written while training waits.
    """
    host, layout = on_cpu(), planned.layout
    devices = len(layout.mesh.local_devices) if layout is not None and host else 1

    def size(tree: Any) -> int:
        return tree_bytes(tree) if layout is None else devices * layout.bytes_of(tree)

    def temporary(program: Callable[..., Any]) -> int:
        return devices * _temporary(program)

    given, prepared, programs = input_shapes(planned.dataset), planned.inputs, planned.loop
    tables: Embeddings = _program(programs.embed).out_info
    state, embeddings = size(programs.shapes()), size(tables)
    computed = _computed(prepared)
    graph, cache = size(prepared.graph._replace(derived={})), size(computed)
    features = size(prepared.features)
    step = size(_program(programs.order).out_info) + temporary(programs.run)
    scores = (
        _scores(ranking, tables)
        if layout is None
        else _scores_on_mesh(ranking, layout.shapes(jax.eval_shape(partial(factors, ranking), tables)), devices)
    )
    scores += _of_rounding(ranking, embeddings, tables)
    evaluated = embeddings + max(temporary(programs.embed), embeddings + scores)
    largest_of_state = max(map(size, jax.tree.leaves(programs.shapes())))
    # Parts of arrays are read back to their devices.
    in_parts = layout is not None and jax.process_count() > 1
    read_back = min(state, max(READ_BACK_BYTES, largest_of_state)) if host or in_parts else 0
    written = embeddings + read_back
    in_turn = {"activations": step, "evaluation": evaluated, "checkpoints": 0 if copies else written}
    largest_part = max(in_turn, key=lambda name: in_turn[name])
    during = {name: size if name == largest_part else 0 for name, size in in_turn.items()}
    beside = state + written if copies else 0
    # On one device, features that the method holds as they were given are not made again.
    kept = set() if layout is not None else _passed_on(planned.method, given)
    leaves = jax.tree.leaves(computed)
    largest = max((size(leaf) for place, leaf in enumerate(leaves) if place not in kept), default=0)
    preparing = size(given.features) + 2 * largest - sum(size(leaves[place]) for place in kept)
    known = Memory(
        process=rss_bytes() if host else 0,
        earlier=0,
        later=LATER_BYTES if host else 0,
        preparation=max(0, preparing - features - state - sum(during.values()) - beside),
        graph=graph,
        features=features,
        precomputed=cache,
        state=state,
        activations=during["activations"],
        evaluation=during["evaluation"],
        checkpoints=during["checkpoints"] + beside,
    )
    return known._replace(earlier=max(0, peak_rss_bytes() - sum(known)) if host else 0)


def estimate_within(available: int | None, planned: Setup, ranking: RankingPlan) -> tuple[Memory, bool]:
    """Estimate a run with copies of checkpoints, or without if that leaves too little of the available bytes (`SPARE`).

    The second result says whether there are copies. `available` is `None` if it is not known.
    """
    copied = estimate(planned, ranking)
    if available is None or copied.to_come <= (1 - SPARE) * available:
        return copied, True
    return estimate(planned, ranking, copies=False), False


def check_fits(memory: Memory, available: int | None) -> None:
    """Refuse a run that would not fit in the available bytes (`None` if not known), before it begins.

    Raises:
        UserError: The run needs more; the line names its largest part and what makes it smaller.
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
    """Return what makes each part smaller."""
    dim, modalities = f"a smaller {setting('dim')}", f"fewer {setting('modalities')}"
    return {
        "preparation": modalities,
        "graph": "data with fewer interactions",
        "features": modalities,
        "precomputed": f"{setting('frozen_rows', 'bfloat16')} (slmrec), {setting('propagation', 'definition')}, which "
        f"is slower, or {modalities}",
        "state": dim,
        "activations": f"a smaller {setting('dim')} or {setting('batch_size')}, or fewer {setting('micro_batches')}",
        "evaluation": dim,
        "checkpoints": dim,
    }


def line_of(memory: Memory) -> str:
    """Format the estimate for the log, in GiB, the largest part first."""
    parts = sorted(memory._asdict().items(), key=lambda part: -part[1])
    named = ", ".join(f"{name} {_gib(value)}" for name, value in parts if value >= SHOWN_BYTES)
    return f"memory: {_gib(sum(memory))} GiB expected at the peak: {named}"


def available_bytes(neighbours: int = 1) -> int | None:
    """Return the free memory of the device that JAX computes on: on CPU the machine's, else the accelerator's.

    Args:
        neighbours: The number of processes that share the machine's, this one included.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    found = [free for free in (_free_of_machine(), _free_of_group()) if free is not None]
    return min(found) // neighbours if found else None


def tree_bytes(tree: Any) -> int:
    """Return the bytes of all arrays, or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def rss_bytes() -> int:
    """Return the bytes that the process holds in memory now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return peak_rss_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_rss_bytes() -> int:
    """Return the most bytes that the process has held in memory."""
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def trim_memory() -> None:
    """Return freed memory to the system, which glibc would keep.

    It lowers the peak of a run at the paper's size by 3.6 % (`benchmarks/bench_peak.py`).
    """
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
    """Return what the container's limit leaves (cgroup 2), if there is one. Cached files count as free."""
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    return None if limit == "max" else int(limit) - int(used) + int(cached["inactive_file"])


def _passed_on(method: Method, given: Inputs) -> set[int]:
    """Return the places, among the arrays that a method computes once, of those that are features it was given."""
    traced = jax.make_jaxpr(lambda inputs: _computed(method.prepare(inputs)))(given).jaxpr
    features = traced.invars[len(jax.tree.leaves(given.graph)) :]
    return {place for place, leaf in enumerate(traced.outvars) if leaf in features}


def _computed(prepared: Inputs) -> tuple[Any, Any]:
    return prepared.graph.derived, prepared.cache


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f}"


def _program(program: Callable[..., Any]) -> jax.stages.Compiled:
    return cast("jax.stages.Compiled", program)


def _temporary(program: Callable[..., Any]) -> int:
    analysis = _program(program).memory_analysis()
    return 0 if analysis is None else int(analysis.temp_size_in_bytes)  # some backends report nothing


def _scores(ranking: RankingPlan, embeddings: Embeddings) -> int:
    chunk = ranking.chunk
    if not on_cpu():
        program = ranking_program(ranking, jax.eval_shape(partial(factors, ranking), embeddings))
        return _temporary(program) + 8 * len(ranking.first_pairs) * chunk.rows * chunk.k
    blocks = 2 if chunk.score == "sigmoid" else 1
    tiles, dim = ranking.tiles, embeddings.items.shape[1]
    in_flight = min(IN_FLIGHT, len(ranking.first_pairs) // tiles.chunks)
    rows = tiles.chunks * chunk.rows
    return (in_flight * blocks * rows + dim) * 4 * tiles.columns + 8 * ranking.num_users * chunk.k


def _of_rounding(ranking: RankingPlan, embeddings_bytes: int, embeddings: Embeddings) -> int:
    """Return the bytes of rounded embeddings, and of what is found by them and ranked again."""
    if ranking.precision == "float32":
        return 0
    found, rows = ranking.chunk.k, len(ranking.queries.users)
    block = AGAIN_ROWS * found * embeddings.items.shape[1] * embeddings.items.dtype.itemsize
    return embeddings_bytes // 2 + rows * (4 * found + 8 * ranking.k) + block


def _scores_on_mesh(ranking: RankingPlan, embeddings: Embeddings, devices: int) -> int:
    found = 8 * len(ranking.first_pairs) * ranking.chunk.rows * ranking.chunk.k
    return devices * (_temporary(ranking_program(ranking, embeddings)) + found)
