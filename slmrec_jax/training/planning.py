"""What training would take on a device, attached or not: memory, compilation, and an estimate of its time."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from slmrec_jax.config import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.devices import Target, compiling_for, lowered
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.evaluation.ranking import rank_chunks
from slmrec_jax.hardware.compilers import target_of
from slmrec_jax.hardware.programs import NO_SPEED, Cost, Speed, program_cost
from slmrec_jax.hardware.targets import HARDWARE, Hardware, hardware_of_kind
from slmrec_jax.methods import make_method
from slmrec_jax.training.memory import Memory, estimate
from slmrec_jax.training.setup import MakeMethod, Setup, compiled, outline

USABLE = {"gpu": 0.75, "tpu": 0.97, "cpu": 1.0}
"""The share of a device's memory that JAX uses by default (`XLA_PYTHON_CLIENT_MEM_FRACTION` on GPUs)."""


class Program(NamedTuple):
    """A compiled program."""

    temporary_bytes: int
    cost: Cost
    """Of one step, or of the whole program if it is no loop over steps."""


class Plan(NamedTuple):
    """What training would take."""

    on: str
    """The device, by its name."""
    memory: Memory
    usable_bytes: int
    """What JAX would use of the device's memory."""
    steps_per_epoch: int
    compile_seconds: float
    """For all programs, on this machine."""
    speed: Speed | None
    """What the estimates divide by; `None` for a CPU, which is better measured."""
    programs: Mapping[str, Program]
    """`step`, a turn of the training segment; `order`, once an epoch; `embed` and, off the CPU, `ranking`, of an
    evaluation."""

    @property
    def fits(self) -> bool:
        """Whether all of it fits in the memory that JAX would use."""
        return sum(self.memory) <= self.usable_bytes

    @property
    def epoch_seconds(self) -> float:
        """The estimate of an epoch with its evaluation; 0 without a speed."""
        costs = {name: program.cost.seconds for name, program in self.programs.items()}
        return self.steps_per_epoch * costs.pop("step") + sum(costs.values())


def plan(config: Config, dataset: Dataset, on: str, *, method: MakeMethod = make_method) -> Plan:
    """Compile what training runs for a device that need not be attached, and count what its programs do.

    Args:
        config: Every choice.
        dataset: The data, or a stand-in of the same sizes (`sized_dataset`).
        on: A name of `DEVICES`.
        method: Makes the method, as for `train`.

    Raises:
        UserError: The config and the data do not go together, or the device's compiler is not installed.
    """
    target = target_of(on)
    with compiling_for(target):
        return _planned(outline(config, dataset, method=method), on, target)


def _planned(planned: Setup, on: str, target: Target) -> Plan:
    config = planned.config
    start = time.perf_counter()
    setup = compiled(planned)
    loop, rates = setup.loop, HARDWARE.get(on)
    speed = rates and speed_of(rates, config.precision)
    programs = {
        "step": _program(loop.run, speed, of_step=True),
        "order": _program(loop.order, speed),
        "embed": _program(loop.embed, speed),
    }
    ranking = evaluation.plan(setup.dataset, config.eval.split, config.eval, config.ks).ranking
    if target.platform != "cpu":
        embeddings = jax.eval_shape(planned.loop.embed, loop.shapes().state, setup.inputs)
        arguments = embeddings, ranking.queries, jnp.asarray(ranking.first_pairs), ranking.chunk
        in_float32 = rates and speed_of(rates, "float32")
        programs["ranking"] = _program(lowered(rank_chunks, *arguments, static=(3,))(), in_float32)
    seconds = time.perf_counter() - start
    memory = estimate(setup, ranking)._replace(process=0, earlier=0, later=0)
    usable = int(USABLE[target.platform] * (target.memory_bytes or 0))
    return Plan(on, memory, usable, loop.steps_per_epoch, seconds, speed, programs)


def time_line(setup: Setup) -> str | None:
    """Return the estimate for the device that JAX computes on, for the log; `None` if its rates are not known."""
    hardware = hardware_of_kind(jax.devices()[0].device_kind)
    if hardware is None:
        return None
    speed, steps = speed_of(hardware, setup.config.precision), setup.loop.steps_per_epoch
    seconds = program_cost(cast("jax.stages.Compiled", setup.loop.run).as_text() or "", speed)[1].seconds
    return (
        f"time: a step takes about {1e3 * seconds:.3g} ms and an epoch's {steps} steps {steps * seconds:.3g} s by an "
        f"estimate: {assumptions(speed)}"
    )


def assumptions(speed: Speed) -> str:
    """Return what estimates by this speed assume."""
    return (
        f"each kernel takes its bytes at {speed.bandwidth / 1e9:.0f} GB/s, its matrix products at "
        f"{speed.operations / 1e12:.3g} TFLOP/s, or {1e6 * speed.launch_seconds:.1f} µs, whichever is longest"
    )


def speed_of(hardware: Hardware, precision: str) -> Speed:
    """Return what a program's counts are divided by."""
    rates = hardware.rates
    return Speed(rates.bandwidth, rates.of(precision), rates.launch_seconds, hardware.cache_bytes)


def _program(program: Any, speed: Speed | None, *, of_step: bool = False) -> Program:
    whole, step = program_cost(program.as_text(), speed or NO_SPEED)
    temporary = int(program.memory_analysis().temp_size_in_bytes)
    return Program(temporary, step if of_step else whole)
