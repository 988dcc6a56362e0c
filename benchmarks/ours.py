"""Training steps of SLMRec with its defaults. PyTorch is not imported here, because its memory would count as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

from slmrec_jax import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.training import loop
from slmrec_jax.training.timing import Steps, compiled_setup


def our_steps(dataset: Dataset, task: str) -> tuple[Steps, float]:
    """Return a function that takes a number of steps, and the seconds that its programs took to compile."""
    setup, seconds = compiled_setup(replace(Config(), task=task), dataset)
    return Steps(setup), seconds


@contextmanager
def default_compiler_options() -> Iterator[None]:
    """Compile loops with XLA's defaults within the block, in place of the platform's options."""
    with mock.patch.object(loop, "compiler_options", return_value=None):
        yield
