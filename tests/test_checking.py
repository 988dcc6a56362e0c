"""Annotations are checked at run time, in each function that an outer one makes of the same code."""

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
