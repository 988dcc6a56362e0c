"""The full compiler, for tests whose subject is the compiled program; conftest.py tells it to hurry in all others."""

import os
from functools import partial

import jax

FULL = {"xla_backend_optimization_level": 3}
if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:
    FULL |= {"xla_cpu_use_fusion_emitters": True, "xla_cpu_parallel_codegen_split_count": 32}

full_jit = partial(jax.jit, compiler_options=FULL)
