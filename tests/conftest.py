"""Check every annotated shape of the package at run time; make the small graphs and data that tests share."""

import gc
import os
import resource
from functools import partial
from pathlib import Path

# Many tests compile the same programs. XLA logs a harmless error for each that it reads back.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "programs")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

install_import_hook("slmrec_jax", "beartype.beartype")

# Compiled programs stay, and Python's collector would often scan everything that tracing them left.
gc.set_threshold(200_000, 20, 100)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""Compiler options for tests of what is traced; compiling takes a third of the time.

Tests of the compiled program, of recorded values and of determinism use the full compiler.
"""

fast_jit = partial(jax.jit, compiler_options=FAST_COMPILE)


@pytest.fixture(scope="session")
def tiny():
    """A data set small enough that a run takes seconds, with three modalities and some rows missing."""
    from slmrec_jax.data.synthetic import demo

    columns = {"visual": 8, "acoustic": 6, "textual": 5}
    return demo(num_users=60, num_items=80, num_scenes=6, exposures=40, columns=columns).by_degree()


def random_interactions(seed, num_users, num_items, num_interactions):
    """Distinct pairs; the last user and the last two items have none."""
    rng = np.random.default_rng(seed)
    pairs = rng.choice((num_users - 1) * (num_items - 2), num_interactions, replace=False)
    return (pairs // (num_items - 2)).astype(np.int32), (pairs % (num_items - 2)).astype(np.int32)


GRAPHS = {
    "random": (23, 31, *random_interactions(0, 23, 31, 150)),
    "one edge": (3, 4, np.array([1], np.int32), np.array([2], np.int32)),
    "hub": (40, 5, np.r_[np.arange(40), 7].astype(np.int32), np.r_[np.zeros(40), 3].astype(np.int32)),
    "one item": (6, 1, np.arange(6, dtype=np.int32), np.zeros(6, np.int32)),
    "isolated": (9, 8, np.array([0, 0, 4], np.int32), np.array([1, 2, 2], np.int32)),
}
"""Corner cases by name: the number of users, the number of items, and the interactions."""


@pytest.fixture
def optax_promotion():
    """Allow Optax to add integers to floats, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def refusing_disk():
    """Return a function that limits the size of files until the test ends, like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
