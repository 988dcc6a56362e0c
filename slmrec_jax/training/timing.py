"""Time training steps as training runs them: many steps of an epoch in each call of the compiled program."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slmrec_jax.config import Config, check_config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.methods import make_method
from slmrec_jax.training.fit import SEGMENT_SECONDS
from slmrec_jax.training.loop import Means
from slmrec_jax.training.memory import peak_rss_bytes
from slmrec_jax.training.setup import MakeMethod, Setup, compiled, outline, with_own_inputs


class StepTiming(NamedTuple):
    """The time and the memory of training steps on one device."""

    device: str
    """The name of the device, such as `NVIDIA H100 80GB HBM3`."""
    platform: str
    """`cpu`, `gpu` or `tpu`."""
    step_ms: float
    """The median step time over the rounds, in milliseconds."""
    step_ms_quartiles: tuple[float, float]
    """The lower and upper quartiles of the step time over the rounds, in milliseconds."""
    steps_per_second: float
    interactions_per_second: float
    compile_seconds: float
    """The time to trace and compile the programs. Programs in JAX's compilation cache are loaded instead of
    compiled."""
    peak_bytes: int
    """The peak memory of the process or device so far, including compilation and all work before the timing."""
    peak_of: str
    """Whose memory it is: `device`, or `process` if the device shares the host's memory or does not report its own."""
    steps_per_call: int
    rounds: int


class Steps:
    """A runner of consecutive steps of a compiled setup, from the start of training.

    Calling it takes a number of steps and returns without waiting for them. As in training, each call of the compiled
    program stays within one epoch and one pass.
    """

    def __init__(self, setup: Setup) -> None:
        self.loop, self.inputs, self.keys = setup.loop, setup.inputs, setup.keys()
        self.step = 0
        self.progress = self.loop.init(self.keys)
        self.drawn = self.loop.order(self.inputs, self.keys, jnp.int32(0))

    def __call__(self, count: int) -> Means:
        """Take `count` steps and return the running means of the current epoch."""
        end = self.step + count
        while self.step < end:
            if self.step % self.loop.steps_per_pass == 0:
                self.drawn = self.loop.order(self.inputs, self.keys, jnp.int32(self.step))
            stop = min(end, self.loop.boundary(self.step))
            taken = jnp.int32(stop - self.step)
            self.progress = self.loop.run(self.progress, self.drawn, self.inputs, self.keys, taken)
            self.step = stop
        return self.progress.means

    def interactions_per_step(self) -> float:
        """Wait for the steps and return the mean number of interactions per step in the current epoch."""
        within = (self.step - 1) % self.loop.steps_per_epoch + 1
        return int(self.progress.means.rows) / within


def compiled_setup(config: Config, dataset: Dataset, *, method: MakeMethod = make_method) -> tuple[Setup, float]:
    """Make a compiled setup like `train` does; also return the compilation time in seconds."""
    planned = outline(config, dataset.by_degree(), method=method)
    start = time.perf_counter()
    planned = compiled(planned)
    seconds = time.perf_counter() - start
    return with_own_inputs(planned), seconds


def choose_steps_per_call(run: Callable[[int], object], seconds: float | None = None) -> int:
    """Return the number of steps that take about `seconds`; by default the duration of one call in training."""
    _wait(run(1))  # the first call includes loading the program
    start = time.perf_counter()
    _wait(run(1))
    return max(1, int((SEGMENT_SECONDS if seconds is None else seconds) / (time.perf_counter() - start)))


def time_steps(config: Config, dataset: Dataset, rounds: int, *, method: MakeMethod = make_method) -> StepTiming:
    """Time training steps on JAX's default device.

    Args:
        config: Every choice.
        dataset: The data.
        rounds: The number of timed calls, of about a second each.
        method: Makes the method.

    Raises:
        UserError: The config does not fit the data.
    """
    check_config(config)
    setup, compile_seconds = compiled_setup(config, dataset, method=method)
    run = Steps(setup)
    steps = choose_steps_per_call(run)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        _wait(run(steps))
        seconds.append((time.perf_counter() - start) / steps)
    lower, median, upper = statistics.quantiles(seconds, n=4) if rounds > 1 else 3 * seconds
    device = jax.devices()[0]
    peak_bytes, peak_of = peak_memory()
    return StepTiming(
        device=device.device_kind,
        platform=device.platform,
        step_ms=1e3 * median,
        step_ms_quartiles=(1e3 * lower, 1e3 * upper),
        steps_per_second=1 / median,
        interactions_per_second=run.interactions_per_step() / median,
        compile_seconds=compile_seconds,
        peak_bytes=peak_bytes,
        peak_of=peak_of,
        steps_per_call=steps,
        rounds=rounds,
    )


def peak_memory() -> tuple[int, str]:
    """Return the peak bytes in use so far, and whose: `device` if JAX's device reports them, otherwise `process`."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"]), "device"
    return peak_rss_bytes(), "process"


def _wait(result: object) -> None:
    jax.block_until_ready(result)  # type: ignore[no-untyped-call]
