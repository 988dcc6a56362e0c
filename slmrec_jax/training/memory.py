"""Estimates of a run's memory, made after its programs are compiled and before anything large is allocated."""

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
"""The host memory by which a run's process grows on the demo data, whose arrays are negligible: programs for ranking,
checks and metrics, and the checkpoint writer. None of it is on an accelerator."""

SPARE = 0.1
"""The share of the available memory that must stay free for checkpoints to be copied. Estimates are accurate to 10
%."""

SHOWN_BYTES = 5 * 2**20
"""The size below which a part is not listed."""

CGROUP = Path("/sys/fs/cgroup")
"""The folder that holds a container's memory limit."""


class Memory(NamedTuple):
    """The peak memory of a run in bytes, by part, in the memory that JAX computes in.

    On a mesh of accelerators, the values are per device; on CPUs, per process with all of its devices.
    """

    process: int
    """The memory of the process before the run allocates anything: Python, JAX, compiled programs, the data set. 0 on
    an accelerator, which has separate memory."""
    earlier: int
    """The amount by which the process's peak so far, from compilation or earlier work, exceeds the sum of all other
    parts. 0 on an accelerator."""
    later: int
    """Programs and libraries that are loaded on first use (`LATER_BYTES`)."""
    preparation: int
    """The amount by which the peak of preparing the inputs exceeds the peak of training."""
    graph: int
    features: int
    """Features that models read in their original form and dtype. On CPU too, they are a copy of the data set's."""
    precomputed: int
    """Results that the model computes once from the graph and the features (`Graph.derived`, `Inputs.cache`)."""
    state: int
    """Parameters and optimizer state."""
    activations: int
    """The temporary memory of a step, including gradients, unless an evaluation needs more."""
    evaluation: int
    """Embeddings and scores of an evaluation, if they need more than a step; otherwise 0."""
    checkpoints: int
    """Checkpoint copies that are being written, and the parts read back to verify them if those are in this memory. If
    training waits for checkpoints: embeddings and the parts read back, if they need more than a step or an evaluation;
    otherwise 0."""

    @property
    def to_come(self) -> int:
        """The bytes that are yet to be allocated."""
        return sum(self) - self.process - self.earlier


def estimate(planned: Setup, ranking: RankingPlan, *, copies: bool = True) -> Memory:
    """Estimate the peak memory of a compiled run from the compiler's analysis. The run's inputs may be shapes.

    `ranking` is the plan of the evaluation that selects the best epoch. `copies` says whether checkpoints are copied
    and written while training continues, or written while training waits.
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
    # With several processes, the parts of sharded arrays are read back to their devices.
    in_parts = layout is not None and jax.process_count() > 1
    read_back = min(state, max(READ_BACK_BYTES, largest_of_state)) if host or in_parts else 0
    written = embeddings + read_back
    # These follow each other, so that only the largest counts.
    phases = {"activations": step, "evaluation": evaluated, "checkpoints": 0 if copies else written}
    phase, peak = max(phases.items(), key=lambda item: item[1])
    copied = state + written if copies else 0
    # On one device, features that the method passes through unchanged are not copied.
    kept = set() if layout is not None else _passed_on(planned.method, given)
    leaves = jax.tree.leaves(computed)
    largest = max((size(leaf) for place, leaf in enumerate(leaves) if place not in kept), default=0)
    preparing = size(given.features) + 2 * largest - sum(size(leaves[place]) for place in kept)
    known = Memory(
        process=rss_bytes() if host else 0,
        earlier=0,
        later=LATER_BYTES if host else 0,
        preparation=max(0, preparing - features - state - peak - copied),
        graph=graph,
        features=features,
        precomputed=cache,
        state=state,
        activations=peak if phase == "activations" else 0,
        evaluation=peak if phase == "evaluation" else 0,
        checkpoints=copied + (peak if phase == "checkpoints" else 0),
    )
    return known._replace(earlier=max(0, peak_rss_bytes() - sum(known)) if host else 0)


def estimate_within(available: int | None, planned: Setup, ranking: RankingPlan) -> tuple[Memory, bool]:
    """Estimate a run with checkpoint copies, or without if too little of the available memory would remain (`SPARE`).

    The second result says whether there are copies. `available` is in bytes, and `None` if unknown.
    """
    copied = estimate(planned, ranking)
    if available is None or copied.to_come <= (1 - SPARE) * available:
        return copied, True
    return estimate(planned, ranking, copies=False), False


def check_fits(memory: Memory, available: int | None) -> None:
    """Check that a run fits in the available bytes (`None` if unknown), before it begins.

    Raises:
        UserError: The run needs more. The message names its largest part and how to make it smaller.
    """
    if available is None or memory.to_come <= available:
        return
    parts = memory._asdict()
    smaller = smaller_by()
    largest = max(smaller, key=lambda name: parts[name])
    raise UserError(
        f"memory: {_gib(memory.to_come)} GiB more are needed, but {_gib(available)} GiB are free; the largest part is "
        f"{largest} with {_gib(parts[largest])}: give {smaller[largest]}"
    )


def smaller_by() -> dict[str, str]:
    """Return the settings that make each part smaller."""
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
    """Format the estimate for the log, in GiB, with the largest part first."""
    parts = sorted(memory._asdict().items(), key=lambda part: -part[1])
    named = ", ".join(f"{name} {_gib(value)}" for name, value in parts if value >= SHOWN_BYTES)
    return f"memory: {_gib(sum(memory))} GiB expected at the peak: {named}"


def available_bytes(num_on_host: int = 1) -> int | None:
    """Return the free memory that JAX can use: the machine's on CPU, otherwise the accelerator's; `None` if unknown.

    Args:
        num_on_host: The number of processes that share the machine's memory, including this one.
    """
    if not on_cpu():
        stats = jax.local_devices()[0].memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    found = [free for free in (_free_of_machine(), _free_of_group()) if free is not None]
    return min(found) // num_on_host if found else None


def tree_bytes(tree: Any) -> int:
    """Return the total bytes of the arrays, or shapes, in a pytree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def rss_bytes() -> int:
    """Return the resident memory of the process in bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return peak_rss_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_rss_bytes() -> int:
    """Return the peak resident memory of the process in bytes."""
    # `ru_maxrss` is in kilobytes on Linux and in bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def trim_memory() -> None:
    """Return freed memory, which glibc would keep, to the operating system.

    This lowers the peak of a run at the paper's size by 3.6 % (`benchmarks/bench_peak.py`).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
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
    """Return the bytes left under the container's limit (cgroup 2), if it has one. Cached files count as free."""
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    return None if limit == "max" else int(limit) - int(used) + int(cached["inactive_file"])


def _passed_on(method: Method, given: Inputs) -> set[int]:
    """Return the indices of the results of `prepare` that are input features, passed through unchanged."""
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
    """Return the bytes of the rounded embeddings, and of the items found with them and then ranked again."""
    if ranking.precision == "float32":
        return 0
    found, rows = ranking.chunk.k, len(ranking.queries.users)
    block = AGAIN_ROWS * found * embeddings.items.shape[1] * embeddings.items.dtype.itemsize
    return embeddings_bytes // 2 + rows * (4 * found + 8 * ranking.k) + block


def _scores_on_mesh(ranking: RankingPlan, embeddings: Embeddings, devices: int) -> int:
    found = 8 * len(ranking.first_pairs) * ranking.chunk.rows * ranking.chunk.k
    return devices * (_temporary(ranking_program(ranking, embeddings)) + found)
