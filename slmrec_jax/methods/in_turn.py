"""Sums over parts of a function's argument, computed one part at a time in the memory of one part.

Computations that do not depend on the part are done once; a `jax.lax.scan` over the whole function would propagate the
graph again for each part. Losses request views where they need them, so the split is made in the traced program (the
jaxpr). A call of a jitted function is treated as one operation.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jaxtyping import Array, PyTree, Scalar

from slmrec_jax.types import Metrics

Returned = TypeVar("Returned", bound=PyTree)


def sum_in_turn(function: Callable[[Any], Returned], parts: PyTree) -> Returned:
    """Return Σ function(part).

    Args:
        function: Takes one part, without the leading axis, and returns arrays to be summed.
        parts: Arrays that start with the axis of parts.
    """
    of_part, shared = divided_function(function, _first(parts))
    return _summed(lambda part: of_part(shared, part), parts)


def loss_in_turn(loss: Callable[[Any], tuple[Scalar, Metrics]], parts: PyTree) -> tuple[Scalar, Metrics]:
    """Return Σ loss(part), differentiable in reverse mode with respect to what the loss closes over.

    The metrics have no derivative. The gradient of each part is computed right after its value, while its residuals are
    in memory.

    Args:
        loss: Takes one part, without the leading axis.
        parts: Arrays that start with the axis of parts.
    """
    of_part, shared = divided_function(loss, _first(parts))
    places = [place for place, x in enumerate(shared) if jnp.issubdtype(x.dtype, jnp.floating)]

    def of_floats(floats: Sequence[Array], part: PyTree) -> tuple[Scalar, Metrics]:
        return of_part(_replaced(shared, places, floats), part)

    @jax.custom_vjp
    def total(floats: Sequence[Array]) -> tuple[Scalar, Metrics]:
        return _summed(lambda part: of_floats(floats, part), parts)

    def forward(floats: Sequence[Any]) -> tuple[tuple[Scalar, Metrics], list[Array | None]]:
        values = [x.value for x in floats]
        wanted = [place for place, x in enumerate(floats) if x.perturbed]

        def of_wanted(some: Sequence[Array], part: PyTree) -> tuple[Scalar, Metrics]:
            return of_floats(_replaced(values, wanted, some), part)

        with_gradient = jax.value_and_grad(of_wanted, has_aux=True)
        found, gradient = _summed(lambda part: with_gradient([values[place] for place in wanted], part), parts)
        return found, _replaced([None] * len(values), wanted, gradient)

    def backward(gradient: list[Array | None], cotangents: Any) -> tuple[list[Array | None]]:
        scale = cotangents[0].instantiate() if isinstance(cotangents[0], SymbolicZero) else cotangents[0]
        return ([x if x is None else scale.astype(x.dtype) * x for x in gradient],)

    total.defvjp(forward, backward, symbolic_zeros=True)
    found: tuple[Scalar, Metrics] = total([shared[place] for place in places])
    return found


def divided_function(
    function: Callable[[Any], Returned], example: PyTree
) -> tuple[Callable[[Sequence[Any], PyTree], Returned], Sequence[Any]]:
    """Split a function into the part that depends on its argument and the arrays that this part reads from the rest.

    Args:
        function: Any function that JAX can trace.
        example: An example argument, or its shapes.

    Returns:
        of_argument: `(shared, argument) -> function(argument)`.
        shared: Arrays that do not depend on the argument, computed by this call.
    """
    traced, shape = jax.make_jaxpr(function, return_shape=True)(example)
    own, rest = _divided(traced.jaxpr)
    known = {*traced.jaxpr.invars, *(variable for equation in own for variable in equation.outvars)}
    read = [x for equation in own for x in equation.invars] + list(traced.jaxpr.outvars)
    missing = list(dict.fromkeys(x for x in read if not isinstance(x, Literal) and x not in known))
    described = traced.jaxpr.debug_info._replace(arg_names=(), result_paths=None)
    program = traced.jaxpr.replace(invars=[], outvars=missing, eqns=rest, debug_info=described)
    shared = jaxpr_as_fun(ClosedJaxpr(program, traced.consts))()

    def of_argument(shared: Sequence[Any], argument: PyTree) -> Returned:
        own_program = jaxpr_as_fun(ClosedJaxpr(traced.jaxpr.replace(constvars=missing, eqns=own), shared))
        result: Returned = jax.tree.unflatten(jax.tree.structure(shape), own_program(*jax.tree.leaves(argument)))
        return result

    return of_argument, shared


def _divided(program: Jaxpr) -> tuple[list[JaxprEqn], list[JaxprEqn]]:
    """Split a program's operations into those that depend on its arguments and the others."""
    depends: set[Var] = set(program.invars)
    own, rest = [], []
    for equation in program.eqns:
        if any(x in depends for x in equation.invars if not isinstance(x, Literal)):
            own.append(equation)
            depends.update(equation.outvars)
        else:
            rest.append(equation)
    return own, rest


def _replaced(values: Sequence[Any], places: Sequence[int], by: Sequence[Any]) -> list[Any]:
    """Return a copy of the values with those at `places` replaced."""
    after = list(values)
    for place, value in zip(places, by, strict=True):
        after[place] = value
    return after


def _first(parts: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), parts)  # type: ignore[no-untyped-call]


def _summed(of_part: Callable[[PyTree], Returned], parts: PyTree) -> Returned:
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, _first(parts)))

    def add(total: Returned, part: PyTree) -> tuple[Returned, None]:
        return jax.tree.map(jnp.add, total, of_part(part)), None

    total: Returned
    total, _ = jax.lax.scan(add, nothing, parts)
    return total
