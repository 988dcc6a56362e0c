"""Plans for training on a device, attached or not: memory, compilation, and an estimate of the time."""

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import jax

from slmrec_jax.config import Config, check_config, with_defaults
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.devices import Target, compiling_for
from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.evaluation.ranking import RankingPlan, factors, ranking_program
from slmrec_jax.hardware.compilers import target_of
from slmrec_jax.hardware.programs import NO_SPEED, Cost, Speed, program_cost
from slmrec_jax.hardware.targets import HARDWARE, Hardware, hardware_of_kind
from slmrec_jax.meshes import AUTO, choose_mesh, mesh_sizes
from slmrec_jax.methods import make_method
from slmrec_jax.training.memory import Memory, available_bytes, estimate_within
from slmrec_jax.training.setup import MakeMethod, Setup, compiled, outline
from slmrec_jax.training.small_data import fit_cutoffs


class Program(NamedTuple):
    """The memory and the cost of a compiled program."""

    temporary_bytes: int
    cost: Cost
    """The cost of one step, or of the whole program if it is not a loop over steps."""


class Plan(NamedTuple):
    """The memory, programs and estimated time of training on a device, or on each device of a mesh."""

    on: str
    """The name of the device."""
    mesh: Mapping[str, int]
    """The sizes of the mesh axes; empty for one device."""
    by_columns: bool
    """Whether the mesh shards tables by columns; otherwise each device holds whole tables (`Method.by_columns`)."""
    memory: Memory
    copies: bool
    """Whether there is room for checkpoint copies; otherwise training waits while checkpoints are written."""
    usable_bytes: int | None
    """The bytes of the device's memory that JAX can use; `None` if unknown."""
    steps_per_pass: int
    steps_per_epoch: int
    compile_seconds: float
    """The time to compile all programs on this machine."""
    speed: Speed | None
    """The hardware rates that estimates are based on; `None` for a CPU, where measuring is better."""
    programs: Mapping[str, Program]
    """The programs by name: `step`, one iteration of the training loop; `order`, run once per pass; `embed` and
    (except on one CPU) `ranking`, run in each evaluation."""

    @property
    def fits(self) -> bool:
        """Whether the run fits in the memory that JAX can use. If that is unknown, it is assumed to fit."""
        return self.usable_bytes is None or sum(self.memory) <= self.usable_bytes

    @property
    def epoch_seconds(self) -> float:
        """The estimated time of an epoch including its evaluation; 0 if `speed` is `None`."""
        costs = {name: program.cost.seconds for name, program in self.programs.items()}
        passes = self.steps_per_epoch / self.steps_per_pass
        return self.steps_per_epoch * costs.pop("step") + passes * costs.pop("order") + sum(costs.values())


def plan(
    config: Config, dataset: Dataset, on: str, *, mesh: str | None = None, method: MakeMethod = make_method
) -> Plan:
    """Compile the training programs for a device, which need not be attached, and estimate their cost.

    Args:
        config: Every choice.
        dataset: The data, or a stand-in of the same sizes (`sized_dataset`).
        on: A device name from `DEVICES`.
        mesh: The sizes of a mesh of such devices, such as `data=2,model=4`.
        method: Makes the method, as for `train`.

    Raises:
        UserError: The config does not fit the data, or the device's compiler is not installed.
    """
    check_config(config)
    sizes = {} if mesh is None else _planned_sizes(mesh)
    target = target_of(on, math.prod(sizes.values()))
    with compiling_for(target):
        config, _ = fit_cutoffs(with_defaults(config), dataset)
        ranking = evaluation.selecting_plan(dataset, config.eval, config.ks, config.seed).ranking
        chosen = choose_mesh(mesh, config.dim, target.devices)
        return _planned(outline(config, dataset, method=method, mesh=chosen), ranking, on, target)


def _planned_sizes(mesh: str) -> dict[str, int]:
    if mesh == AUTO:
        raise UserError(
            f"{setting('mesh', AUTO)}: the number of devices to plan for is unknown; give sizes such as data=1,model=8"
        )
    return mesh_sizes(mesh)


def _planned(planned: Setup, ranking: RankingPlan, on: str, target: Target) -> Plan:
    start = time.perf_counter()
    setup = compiled(planned)
    loop, rates, ranks = setup.loop, HARDWARE.get(on), None
    layout = setup.layout
    if target.platform != "cpu" or layout is not None:
        embeddings = jax.eval_shape(planned.loop.embed, loop.shapes().state, setup.inputs)
        embeddings = jax.eval_shape(partial(factors, ranking), embeddings)
        embeddings = embeddings if layout is None else layout.shapes(embeddings)
        ranks = ranking_program(ranking, embeddings)
    seconds = time.perf_counter() - start
    speed = rates and speed_of(rates, planned.config.precision)
    programs = {
        "step": _program(loop.run, speed, of_step=True),
        "order": _program(loop.order, speed),
        "embed": _program(loop.embed, speed),
    }
    if ranks is not None:
        programs["ranking"] = _program(ranks, rates and speed_of(rates, "float32"))
    available = available_bytes() if target.memory_bytes is None else target.memory_bytes
    memory, copies = estimate_within(available, setup, ranking)
    # On a CPU, this includes the memory that the process already uses.
    usable = None if available is None else available + memory.process + memory.earlier
    return Plan(
        on,
        {} if layout is None else dict(layout.mesh.shape),
        planned.method.by_columns,
        memory,
        copies,
        usable,
        loop.steps_per_pass,
        loop.steps_per_epoch,
        seconds,
        speed,
        programs,
    )


def time_line(setup: Setup) -> str | None:
    """Return a log line with the time estimate for JAX's device; `None` if the device's rates are unknown."""
    hardware = hardware_of_kind(jax.devices()[0].device_kind)
    if hardware is None:
        return None
    speed, steps = speed_of(hardware, setup.config.precision), setup.loop.steps_per_epoch
    seconds = program_cost(cast("jax.stages.Compiled", setup.loop.run).as_text() or "", speed)[1].seconds
    if not seconds:  # the program's text does not have the form that `program_cost` parses
        return None
    return (
        f"time: a step takes about {1e3 * seconds:.3g} ms and an epoch's {steps} steps {steps * seconds:.3g} s, as an "
        f"estimate: {assumptions(speed)}"
    )


def assumptions(speed: Speed) -> str:
    """Describe the assumptions of estimates at this speed."""
    return (
        f"each kernel takes its bytes at {speed.bandwidth / 1e9:.0f} GB/s, its matrix products at "
        f"{speed.operations / 1e12:.3g} TFLOP/s, or {1e6 * speed.launch_seconds:.1f} µs, whichever is longest, and a "
        f"transfer to other devices {1e6 * speed.meet_seconds:.0f} µs and its bytes at {speed.link / 1e9:.0f} GB/s"
    )


def speed_of(hardware: Hardware, precision: str) -> Speed:
    """Return the rates that a program's counts are divided by."""
    rates = hardware.rates
    own = rates.bandwidth, rates.of(precision), rates.launch_seconds, hardware.cache_bytes
    return Speed(*own, rates.link, rates.meet_seconds)


def _program(program: Any, speed: Speed | None, *, of_step: bool = False) -> Program:
    whole, step = program_cost(program.as_text(), speed or NO_SPEED)
    temporary = int(program.memory_analysis().temp_size_in_bytes)
    return Program(temporary, step if of_step else whole)
