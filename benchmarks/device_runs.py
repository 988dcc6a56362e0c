"""Parts of the device run about whole programs: how long they compile, their memory, and training to a quality."""

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import shapes
from bench_compile import time_run
from device_part import Part, need_torch

from slmrec_jax import Config
from slmrec_jax.training.memory import peak_rss_bytes, rss_bytes, tree_bytes
from slmrec_jax.training.setup import compiled, outline

MEMORY_GOAL = 0.15
STEPS = 3
"""Steps whose memory is measured. It does not grow from step to step."""


def compilation(part: Part) -> None:
    """Measure how long a run compiles, with an empty cache and with the programs that the first run cached."""
    for task in ("fac", "fd+fm"):
        with tempfile.TemporaryDirectory() as folder:
            longest = 0.0
            for run in ("first", "second"):
                row = time_run(part.data, task, Path(folder), run)
                longest = max(longest, row["run_seconds"])
                part.row(task=task, run=run, **row)
                part.finding(f"compile {task}, {run}: seconds", row["compile_seconds"], None, "≤")
        if task == "fac" and not part.has_time(5 * longest, "the same of FD+FM"):
            return


def peak(part: Part) -> None:
    """Compare the peak memory of a step program with what the compiler says in advance.

    The program runs on zeros in place of data, so that nothing else is ever allocated: preparing real inputs may need
    more memory than a step.
    """
    dataset = part.dataset(shapes.PAPER)
    planned = outline(replace(Config(), task="fac"), dataset)
    made, keys = compiled(planned), planned.keys()
    loop = made.loop
    analysis: Any = loop.run.memory_analysis()  # type: ignore[attr-defined]
    names = ("argument", "output", "alias", "temp", "generated_code")
    sizes = {name: int(getattr(analysis, f"{name}_size_in_bytes")) for name in names}
    forecast = sizes["argument"] + sizes["output"] - sizes["alias"] + sizes["temp"]
    before = memory_in_use()
    drawn_shapes = jax.eval_shape(planned.loop.order, made.inputs, keys, jnp.int32(0))
    inputs, drawn, progress = (_zeros(shape) for shape in (made.inputs, drawn_shapes, loop.shapes()))
    jax.block_until_ready((inputs, drawn, progress))
    allocated = memory_in_use()
    progress = loop.run(progress, drawn, inputs, keys, jnp.int32(STEPS))
    jax.block_until_ready(progress)
    measured = peak_since(before)
    part.row(
        data=dataset.name, task="fac", memory="device" if _stats() else "process", forecast_bytes=forecast,
        peak_bytes=measured, before_bytes=before, arrays_bytes=tree_bytes((inputs, drawn, progress)),
        allocated_bytes=allocated - before, program_bytes=sizes,
    )  # fmt: skip
    if not _stats():
        part.note("the peak is of the process, which has more in it than the arrays of a program")
    error = abs(measured / forecast - 1)
    part.finding("peak memory of a step program, FAC: |measured / forecast - 1|", error, MEMORY_GOAL, "≤")


def memory_in_use() -> int:
    """Return the bytes in use; on a device that shares the host's memory, start to count its peak again."""
    if _stats():
        return int(_stats()["bytes_in_use"])
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/clear_refs").write_text("5")
    return rss_bytes()


def peak_since(before: int) -> int:
    """Return the most bytes in use beyond `before`, which `memory_in_use` returned."""
    if _stats():
        return int(_stats()["peak_bytes_in_use"]) - before
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return peak_rss_bytes() - before
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) - before


def _stats() -> dict[str, Any]:
    stats = jax.devices()[0].memory_stats() or {}
    return stats if "peak_bytes_in_use" in stats else {}


def _zeros(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def quality(part: Part) -> None:
    """Train to the best validation recall of the PyTorch loop and compare the seconds.

    Ours may find programs that earlier parts compiled.
    """
    need_torch()
    import bench_quality

    flags = bench_quality.Flags(data=part.data, epochs=5 if part.reduced else 25)
    found = bench_quality.race(flags, seed=0)
    part.row(data=part.dataset().name, **found)
    part.finding("time to quality: torch / ours", found["ratio"])
