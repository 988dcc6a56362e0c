"""Training steps of SLMRec with its defaults. PyTorch is not imported here, because its memory would count as ours."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from unittest import mock

from timing import measure, median_ms

from slmrec_jax import Config, devices
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.training.timing import Steps, choose_steps_per_call, compiled_setup


def our_steps(dataset: Dataset, task: str) -> tuple[Steps, float]:
    """Return a function that takes a number of steps, and the seconds that its programs took to compile."""
    setup, seconds = compiled_setup(replace(Config(), task=task), dataset)
    return Steps(setup), seconds


def compare_steps(
    ours: Steps,
    peers: Mapping[str, Callable[[], object]],
    rounds: int,
    until: float = math.inf,
    call_seconds: float | None = None,
) -> dict[str, float]:
    """Return the milliseconds of a step of ours and of each peer, which take turns, and the steps in a call of ours."""
    steps = choose_steps_per_call(ours, call_seconds)
    seconds = measure({"": partial(ours, steps), **peers}, rounds, until)
    return {"steps_a_call": steps, "step_ms": median_ms(seconds.pop("")) / steps} | {
        f"{name}_step_ms": median_ms(of_peer) for name, of_peer in seconds.items()
    }


@contextmanager
def default_compiler_options() -> Iterator[None]:
    """Compile loops with XLA's defaults within the block, in place of the platform's options."""
    with mock.patch.object(devices, "OPTIONS", {platform: {} for platform in devices.OPTIONS}):
        yield
