"""Tiny computations with known results, which detect a JAX version or device that computes wrongly before training.

Training depends on each kind of computation. The inputs are arguments of the compiled program, so that the compiler
cannot constant-fold the results. The expected results are computed by NumPy in float64, or stored.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from slmrec_jax.encoding.matrices import Operator, operator
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.errors import UserError

KNOWN_WRONG = {"0.10.2": "jax-ml/jax#39103"}
"""JAX versions that can return wrong results, with the report of each."""

MATRIX = np.array([[0.5, 0.0, -2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.5, 0.25, 0.0, 3.0]], np.float32)
ROWS = np.array([[1.0, -2.0], [0.5, 4.0], [3.0, 0.125], [-1.5, 2.5]], np.float32)
COTANGENT = np.array([[1.0, 2.0], [5.0, -3.0], [-0.5, 0.25]], np.float32)
REAL = np.array([True, True, False, True])
SEGMENTS = np.array([2, 0, 2, 0], np.int32)
MANY = np.arange(32_769)[:, None] * np.array([1.0, 0.0, 0.0])
"""The reported case: jax 0.10.2 computes products of this many rows wrongly. Squared row norms are at most 2³⁰."""

KEY = 7
RANDOM_BITS = np.array([2895194379, 4185947648, 1300703658, 1906787632], np.uint32)
"""The first bits of threefry for `KEY`, on which JAX 0.10.1 and 0.12.0.1 agree."""


class ProbeInputs(NamedTuple):
    """The inputs of the computations."""

    matrix: Operator
    rows: Float[Array, "4 2"]
    cotangent: Float[Array, "3 2"]
    real: Bool[Array, " 4"]
    segments: Int[Array, " 4"]
    many: Float[Array, "many 3"]
    key: Key[Array, ""]


def check_jax() -> None:
    """Check that JAX computes correctly. The first call in a process spends some tenths of a second compiling.

    Raises:
        UserError: The version is known to be faulty, or a result is wrong: integers must be equal, floats within 1e-5.
    """
    if jax.__version__ in KNOWN_WRONG:
        raise UserError(
            f"jax {jax.__version__} can return wrong results from jit on CPU ({KNOWN_WRONG[jax.__version__]}): "
            "install another version"
        )
    # Rule out two legitimate differences: some devices round the factors of a product to fewer bits by default, and
    # there are two ways to draw many random bits.
    with jax.default_matmul_precision("highest"), jax.threefry_partitionable(True):
        computed = jax.jit(compute)(_probe_inputs())
    for name, arrays in expected().items():
        if not all(map(_same, computed[name], arrays)):
            raise UserError(
                f"jax {jax.__version__} on {jax.devices()[0].device_kind} computes {name} wrongly, so no result can "
                "be trusted: install the versions of requirements.txt, or choose another device with JAX_PLATFORMS"
            )


def compute(inputs: ProbeInputs) -> dict[str, tuple[Array, ...]]:
    """Return the result arrays of each computation, by name."""
    product, pull = jax.vjp(lambda x: matmul(inputs.matrix, x), inputs.rows)
    scores = jnp.where(inputs.real[None, :], inputs.rows @ inputs.rows.T, -jnp.inf)
    bits = jax.lax.bitcast_convert_type(inputs.rows, jnp.uint32)
    return {
        "a sparse product and its derivative": (product, *pull(inputs.cotangent)),
        "sums by segment": (jax.ops.segment_sum(inputs.rows, inputs.segments, MATRIX.shape[0]),),
        "a masked softmax": (jax.nn.softmax(scores, axis=1),),
        "bit operations on floats": ((bits >> 9) ^ (bits << 5),),
        "random bits": (jax.random.bits(inputs.key, RANDOM_BITS.shape, np.uint32),),
        "products of many rows": (jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(inputs.many),),
    }


def expected() -> dict[str, tuple[np.ndarray, ...]]:
    """Return the correct results of `compute`."""
    matrix, rows, cotangent = (x.astype(np.float64) for x in (MATRIX, ROWS, COTANGENT))
    sums = np.zeros(cotangent.shape)
    np.add.at(sums, SEGMENTS, rows)
    scores = np.where(REAL, rows @ rows.T, -np.inf)
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    bits = ROWS.view(np.uint32)
    return {
        "a sparse product and its derivative": (matrix @ rows, matrix.T @ cotangent),
        "sums by segment": (sums,),
        "a masked softmax": (exponentials / exponentials.sum(axis=1, keepdims=True),),
        "bit operations on floats": ((bits >> 9) ^ (bits << 5),),
        "random bits": (RANDOM_BITS,),
        "products of many rows": (np.sum(MANY**2, axis=1),),
    }


def _probe_inputs() -> ProbeInputs:
    return ProbeInputs(
        matrix=operator(scipy.sparse.csr_array(MATRIX)),
        rows=jnp.asarray(ROWS),
        cotangent=jnp.asarray(COTANGENT),
        real=jnp.asarray(REAL),
        segments=jnp.asarray(SEGMENTS),
        many=jnp.asarray(MANY, np.float32),
        key=jax.random.key(KEY, impl="threefry2x32"),
    )


def _same(computed: Shaped[Array, "..."], known: Shaped[np.ndarray, "..."]) -> bool:
    if jnp.issubdtype(computed.dtype, jnp.integer):
        return np.array_equal(computed, known)
    return np.allclose(computed, known, rtol=1e-5, atol=1e-5)
