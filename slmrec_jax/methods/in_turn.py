"""The sum of a function over parts of its arguments, one part after the other, in the memory of one.

What does not depend on the part is computed once: a `jax.lax.scan` over the whole function would propagate the graph
again for each. Losses ask for views where they need them, so the division is made in the traced program.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jaxtyping import PyTree

Result = TypeVar("Result", bound=PyTree)


def sum_in_turn(function: Callable[[Any], Result], parts: PyTree) -> Result:
    """Return Σ function(part), with derivatives in what the function closes over.

    The derivative computes each part again, so that one part's intermediate results exist at a time.

    Args:
        function: Takes the parts without their first axis, and returns arrays to be added.
        parts: Arrays that start with the axis of parts.
    """
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), parts)  # type: ignore[no-untyped-call]
    of_part = without_shared_work(function, first)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, first))

    def add(total: Result, part: PyTree) -> tuple[Result, None]:
        return jax.tree.map(jnp.add, total, of_part(part)), None

    total: Result
    total, _ = jax.lax.scan(add, nothing, parts)
    return total


def without_shared_work(function: Callable[[Any], Result], example: PyTree) -> Callable[[Any], Result]:
    """Compute what does not depend on the argument now, and return a function of the rest.

    Args:
        function: Any function that JAX traces.
        example: An argument, or its shapes.
    """
    traced, shape = jax.make_jaxpr(function, return_shape=True)(example)
    form = jax.tree.structure(shape)
    own, shared = _divided(traced.jaxpr)
    made = {variable for equation in own for variable in equation.outvars}
    read = [x for equation in own for x in equation.invars] + list(traced.jaxpr.outvars)
    missing = list(dict.fromkeys(x for x in read if not isinstance(x, Literal) and x not in made))
    missing = [variable for variable in missing if variable not in traced.jaxpr.invars]
    debug_info = traced.jaxpr.debug_info._replace(arg_names=(), result_paths=None)
    program = traced.jaxpr.replace(invars=[], outvars=missing, eqns=shared, debug_info=debug_info)
    values = jaxpr_as_fun(ClosedJaxpr(program, traced.consts))()
    rest = jaxpr_as_fun(ClosedJaxpr(traced.jaxpr.replace(constvars=missing, eqns=own), values))

    @jax.checkpoint
    def of_argument(argument: PyTree) -> Result:
        result: Result = jax.tree.unflatten(form, rest(*jax.tree.leaves(argument)))
        return result

    return of_argument


def _divided(program: Jaxpr) -> tuple[list[JaxprEqn], list[JaxprEqn]]:
    """Return the operations that depend on the program's arguments, and the others."""
    depends: set[Var] = set(program.invars)
    own, shared = [], []
    for equation in program.eqns:
        if any(x in depends for x in equation.invars if not isinstance(x, Literal)):
            own.append(equation)
            depends.update(equation.outvars)
        else:
            shared.append(equation)
    return own, shared
