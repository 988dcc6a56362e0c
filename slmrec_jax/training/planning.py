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
from slmrec_jax.hardware.programs import Cost, Speed, program_cost
from slmrec_jax.hardware.targets import Hardware, hardware_of
from slmrec_jax.training.memory import Memory, estimate
from slmrec_jax.training.setup import Setup, compiled, outline

USABLE = {"gpu": 0.75, "tpu": 0.97, "cpu": 1.0}
"""The share of a device's memory that JAX uses by default (`XLA_PYTHON_CLIENT_MEM_FRACTION` on GPUs)."""


class Program(NamedTuple):
    """A compiled program."""

    compile_seconds: float
    temporary_bytes: int
    cost: Cost
    """Of one step, or of the whole program if it is no loop over steps."""


class Plan(NamedTuple):
    """What training would take."""

    target: str
    memory: Memory
    usable_bytes: int
    """What JAX would use of the device's memory."""
    steps_per_epoch: int
    programs: Mapping[str, Program]
    """`step`, a turn of the training segment; `order`, once an epoch; `embed` and `ranking`, of an evaluation."""

    @property
    def fits(self) -> bool:
        """Whether all of it fits in the memory that JAX would use."""
        return sum(self.memory) <= self.usable_bytes

    @property
    def epoch_seconds(self) -> float:
        """The estimate of an epoch with its evaluation."""
        costs = {name: program.cost.seconds for name, program in self.programs.items()}
        return self.steps_per_epoch * costs.pop("step") + sum(costs.values())


def plan(config: Config, dataset: Dataset, on: str) -> Plan:
    """Compile what training runs for a device that need not be attached, and count what its programs do.

    Args:
        config: Every choice.
        dataset: The data, or a stand-in of the same sizes (`sized_dataset`).
        on: A name of `HARDWARE`.

    Raises:
        UserError: The config and the data do not go together, or the device's compiler is not installed.
    """
    hardware, target = hardware_of(on), target_of(on)
    with compiling_for(target):
        return _planned(config, dataset, on, target, hardware)


def _planned(config: Config, dataset: Dataset, on: str, target: Target, hardware: Hardware) -> Plan:
    planned = outline(config, dataset)
    start = time.perf_counter()
    setup = compiled(planned)
    seconds = time.perf_counter() - start
    loop, speed = setup.loop, speed_of(hardware, config.precision)
    ranking = evaluation.plan(setup.dataset, config.eval.split, config.eval, config.ks).ranking
    embeddings = jax.eval_shape(planned.loop.embed, loop.shapes().state, setup.inputs)
    start = time.perf_counter()
    ranks = lowered(
        rank_chunks, embeddings, ranking.queries, jnp.asarray(ranking.first_pairs), ranking.chunk, static=(3,)
    )()
    ranking_seconds = time.perf_counter() - start
    programs = {
        "step": _program(loop.run, seconds, speed, of_step=True),
        "order": _program(loop.order, 0.0, speed),
        "embed": _program(loop.embed, 0.0, speed),
        "ranking": _program(ranks, ranking_seconds, speed._replace(operations=hardware.rates.float32)),
    }
    memory = estimate(setup, ranking)._replace(process=0, earlier=0, later=0)
    usable = int(USABLE[target.platform] * hardware.memory_bytes)
    return Plan(on, memory, usable, loop.steps_per_epoch, programs)


def speed_of(hardware: Hardware, precision: str) -> Speed:
    """Return what a program's counts are divided by."""
    rates = hardware.rates
    return Speed(rates.bandwidth, rates.of(precision), rates.launch_seconds, hardware.cache_bytes)


def step_cost(setup: Setup, speed: Speed) -> Cost:
    """Return the cost of a training step of a compiled setup."""
    return program_cost(cast("jax.stages.Compiled", setup.loop.run).as_text() or "", speed)[1]


def _program(program: Any, compile_seconds: float, speed: Speed, *, of_step: bool = False) -> Program:
    whole, step = program_cost(program.as_text(), speed)
    temporary = int(program.memory_analysis().temp_size_in_bytes)
    return Program(compile_seconds, temporary, step if of_step else whole)
