"""Parts of the device run that compare its speed: steps, the product's bandwidth, ranking, and whole epochs."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

import bench_epoch
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import shapes
from bench_floor import TIMES, gather
from device_part import Part, has_torch, line_of, need_torch
from ours import compare_steps, default_compiler_options
from timing import measure, median_ms

from slmrec_jax import Config, devices
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.training.inputs import make_inputs
from slmrec_jax.training.setup import Setup, compiled, outline, with_inputs
from slmrec_jax.training.timing import Steps, compiled_setup
from slmrec_jax.types import Inputs

TASKS = ("fac", "none", "fm", "fd", "fd+fm")
LAYOUTS = ("coo", "csr")
ROUNDS = 5
COMPARISON_SECONDS = {"full": 6.0, "reduced": 1.5}
"""When no further round of a comparison starts."""

CALL_SECONDS = 0.25
"""About how long a call of ours takes: training takes steps for a second, which is more than a comparison needs."""

REDUCED_BATCH = 256
GENERATING_SECONDS = 25.0
"""About how long data of ten times the paper's size take to generate."""

EPOCH_SECONDS = 12.0
"""About how long epochs are timed."""

STEP_GOAL, PRODUCT_GOAL, COPY_GOAL = 10.0, 0.9, 0.6


def steps(part: Part) -> None:
    """Time a step of each task against the PyTorch peer, on data of three sizes."""
    if not has_torch():
        part.note("PyTorch is not installed: steps are timed without the peer")
    compile_seconds, of_fac = 0.0, 0.0
    for name in (shapes.PAPER, "", shapes.PAPER_TIMES_TEN):
        if name == shapes.PAPER_TIMES_TEN:
            _fac_by_default_options(part, of_fac)
        tasks = _tasks_in_time(part, name, compile_seconds, of_fac)
        if not tasks:
            return
        compile_seconds = _steps_of(part, name, tasks)
        of_fac = compile_seconds / 2 if len(tasks) > 1 else compile_seconds


def _tasks_in_time(part: Part, name: str, compile_seconds: float, of_fac: float) -> tuple[str, ...]:
    """Return all tasks, the first alone, or none, as time allows if compiling takes as long as before."""
    seconds = 3 * _comparison_seconds(part)  # peers begin before they are timed
    if name == shapes.PAPER_TIMES_TEN and not part.reduced:
        seconds += GENERATING_SECONDS
    label = name or part.data
    if part.has_time(seconds + compile_seconds, f"{label} with all tasks"):
        return TASKS
    return TASKS[:1] if part.has_time(seconds + of_fac, f"{label} with FAC alone") else ()


def _steps_of(part: Part, name: str, tasks: tuple[str, ...]) -> float:
    """Time the steps on one data set and return the seconds that it took to compile their programs."""
    dataset = part.dataset(name)
    inputs, start = make_inputs(dataset), time.monotonic()
    pool = ThreadPoolExecutor(len(tasks))  # compiling is work of the host, which has more cores than a program uses
    programs = {task: pool.submit(compiled, outline(_config(part, task), dataset)) for task in tasks}
    # Nothing is timed beside a compiler, unless time runs out.
    wait(programs.values(), max(part.left - len(tasks) * _comparison_seconds(part), 0))
    compile_seconds = time.monotonic() - start
    for task, program in programs.items():
        about = {"data": dataset.name, "task": task, "options": "platform"}
        if not program.done():
            part.note(f"{dataset.name}, {task} was left out: its program was not compiled in time")
            continue
        with part.guarded(**about):
            row = _compare(part, program.result(), inputs, task)
            part.row(**about, **row)
            for layout, goal in (("coo", STEP_GOAL if name == shapes.PAPER else None), ("csr", None)):
                if f"{layout}_over_ours" in row:
                    measured = f"step {task}, {dataset.name}: torch {layout.upper()} / ours"
                    part.finding(measured, row[f"{layout}_over_ours"], goal)
    pool.shutdown(wait=False, cancel_futures=True)
    return compile_seconds


def _fac_by_default_options(part: Part, compile_seconds: float) -> None:
    """Time FAC as XLA compiles it by default: the options of the platform may forbid to choose kernels by timing."""
    about = {"data": shapes.PAPER, "task": "fac", "options": "XLA's defaults"}
    if not devices.compiler_options():
        part.note("the platform has no compiler options of ours: XLA's defaults are those of every row")
    elif part.has_time(_comparison_seconds(part) + compile_seconds, "FAC by XLA's default options"):
        with part.guarded(**about), default_compiler_options():
            dataset = part.dataset(shapes.PAPER)
            made = compiled(outline(_config(part, "fac"), dataset))
            ours = Steps(with_inputs(made, make_inputs(dataset)))
            part.row(**about, **compare_steps(ours, {}, ROUNDS, _until(part), CALL_SECONDS))


def _compare(part: Part, made: Setup, inputs: Inputs, task: str) -> dict[str, float | str]:
    """Return the step times of ours and of the peers that run; one that fails leaves its error."""
    peers: dict[str, Callable[[], object]] = {}
    errors = {}
    for layout in LAYOUTS if has_torch() else ():
        import peer_torch
        import torch

        torch.cuda.empty_cache()  # what earlier peers left, which JAX may need
        try:
            peer = peer_torch.Trainer(made.dataset, task, made.config.batch_size, layout=layout)
            peer()
            peers[layout] = peer
        except Exception as error:
            errors[f"{layout}_error"] = line_of(error)
    row = compare_steps(Steps(with_inputs(made, inputs)), peers, ROUNDS, _until(part), CALL_SECONDS)
    ratios = {f"{layout}_over_ours": row[f"{layout}_step_ms"] / row["step_ms"] for layout in peers}
    return {**row, **ratios, **errors}


def _comparison_seconds(part: Part) -> float:
    return COMPARISON_SECONDS["reduced" if part.reduced else "full"]


def _until(part: Part) -> float:
    return min(part.until, time.monotonic() + _comparison_seconds(part))


def _config(part: Part, task: str) -> Config:
    config = replace(Config(), task=task)  # type: ignore[arg-type]
    return replace(config, batch_size=REDUCED_BATCH) if part.reduced else config


def bandwidth(part: Part) -> None:
    """Compare the bytes that the product moves in a second with those of a copy, and with PyTorch's product of CSR.

    The product of R and of its transpose alternate, as in training. An entry reads a row of the table, and each row of
    the result is written once; places of entries and factors are not counted. A copy reads and writes each byte.
    """
    if not has_torch():
        part.note("PyTorch is not installed: the product is not compared with its")
    copied = jnp.asarray(np.random.default_rng(0).standard_normal(2**20 if part.reduced else 2**27, np.float32))
    copy = jax.jit(jnp.copy)
    for name in (shapes.PAPER, shapes.PAPER_TIMES_TEN):
        if name == shapes.PAPER_TIMES_TEN and not part.has_time(0 if part.reduced else 30, name):
            return
        dataset, dim = part.dataset(name, features=False), Config().dim
        operator = make_inputs(dataset).graph.adjacency
        rows = np.random.default_rng(0).standard_normal((dataset.num_items, dim), np.float32)
        x = jnp.asarray(rows)
        cases: dict[str, Callable[[], object]] = {
            "ours": partial(gather, operator, x), "copy": partial(copy, copied)
        }  # fmt: skip
        if has_torch():
            with part.guarded(data=name, peer="csr"):
                cases["csr"] = _torch_products(dataset, rows)
        ms = {case: median_ms(seconds) for case, seconds in measure(cases, ROUNDS, part.until).items()}
        entries, written = len(dataset.train.users), dataset.num_users + dataset.num_items
        moved = {"ours": TIMES * 4 * dim * (2 * entries + written), "copy": 2 * copied.nbytes}
        rates = {case: bytes_ / ms[case] / 1e6 for case, bytes_ in moved.items()}
        part.row(data=dataset.name, ms=ms, products_in_a_call=2 * TIMES, gigabytes_per_second=rates)
        goals = (COPY_GOAL, PRODUCT_GOAL) if name == shapes.PAPER else (None, None)
        part.finding(f"product, {dataset.name}: its bandwidth / a copy's", rates["ours"] / rates["copy"], goals[0])
        if "csr" in ms:
            part.finding(f"product, {dataset.name}: torch CSR / ours", ms["csr"] / ms["ours"], goals[1])


def _torch_products(dataset: Dataset, rows: np.ndarray) -> Callable[[], None]:
    """Return what `bench_floor.gather` computes, by PyTorch: R and its transpose in compressed rows."""
    import peer_torch
    import torch

    users, items = dataset.train
    user_degrees, item_degrees = dataset.degrees()
    values = (1 / np.sqrt(user_degrees[users] * item_degrees[items])).astype(np.float32)
    host = scipy.sparse.csr_array((values, (users, items)), shape=(dataset.num_users, dataset.num_items))

    def on_device(matrix: scipy.sparse.csr_array) -> torch.Tensor:
        parts = (torch.tensor(each) for each in (matrix.indptr, matrix.indices, matrix.data))
        return torch.sparse_csr_tensor(*parts, matrix.shape).to(peer_torch.device())

    forward, backward = on_device(host), on_device(host.T.tocsr())
    table = torch.tensor(rows, device=peer_torch.device())

    def run() -> None:
        x = table
        for _ in range(TIMES):
            x = backward @ (forward @ x)
        peer_torch.synchronize()

    return run


def ranking(part: Part) -> None:
    """Rank all items for users, against PyTorch's matmul and topk."""
    need_torch()
    import bench_evaluate

    flags = bench_evaluate.Flags(users=500 if part.reduced else 40_000, rounds=3)
    for name in (shapes.PAPER, ""):
        if part.has_time(0 if name == shapes.PAPER else 8, name or part.data):
            dataset = part.dataset(name, features=False) if name else part.dataset()
            row = bench_evaluate.compare(dataset, flags)
            part.row(data=dataset.name, **row)
            part.finding(f"ranking, {dataset.name}: torch / ours", row["ratio"])


def epoch(part: Part) -> None:
    """Time whole epochs as training runs them against their steps alone."""
    setup, _ = compiled_setup(replace(Config(), task="fac"), part.dataset())
    epochs = bench_epoch.Epochs(setup)
    seconds = epochs.steps_alone() + epochs.epoch()
    rounds = max(2, min(50, int(min(part.left, EPOCH_SECONDS) / seconds)))
    found = bench_epoch.interleaved({"steps": epochs.steps_alone, "epoch": epochs.epoch}, rounds)
    quartiles = bench_epoch.shares(found["steps"], found["epoch"])
    ms = {case: median_ms(of_case) for case, of_case in found.items()}
    part.row(data=part.dataset().name, task="fac", steps=setup.steps_per_epoch, rounds=rounds, ms=ms, shares=quartiles)
    part.finding("epoch: share beyond its steps", quartiles[1])
