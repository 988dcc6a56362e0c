"""Annotations are checked at run time, in each function that an outer one makes of the same code."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from checking import checked
from jaxtyping import Array, Float, TypeCheckError, jaxtyped


def product_or_first(multiplied):
    @jaxtyped(typechecker=checked)
    def product(x: Float[Array, "rows inner"], y: Float[Array, "inner columns"]) -> Float[Array, "rows columns"]:
        return x @ y if multiplied else x

    return product


def other_shapes():
    @jaxtyped(typechecker=checked)
    def product(x: Float[Array, "rows inner"], y: Float[Array, "rows inner"]) -> Float[Array, " rows"]:
        return jnp.sum(x * y, axis=1)

    return product


def test_every_function_of_one_signature_is_checked():
    x, y = jnp.zeros((2, 3)), jnp.zeros((3, 4))
    for _ in range(2):
        assert product_or_first(True)(x, y).shape == (2, 4)
        with pytest.raises(TypeCheckError, match="checking the parameters"):
            product_or_first(True)(x, x)
        with pytest.raises(TypeCheckError, match="checking the return value"):
            product_or_first(False)(x, y)
        assert other_shapes()(x, x).shape == (2,)
        with pytest.raises(TypeCheckError, match="checking the parameters"):
            other_shapes()(x, y)


@pytest.mark.slow
def test_annotations_hold_in_a_step_of_every_system(tmp_path):
    tests = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    command = [sys.executable, str(tests / "annotated_program.py"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
