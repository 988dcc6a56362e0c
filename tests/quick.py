"""Quick compilation, for tests of what is traced rather than of the optimised program."""

from functools import partial

import jax

FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""Compiler options for tests of what is traced; compiling takes a third of the time.

Tests of the compiled program, of recorded values and of determinism use the full compiler.
"""

fast_jit = partial(jax.jit, compiler_options=FAST_COMPILE)
