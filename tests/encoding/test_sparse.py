"""The sparse product in every implementation: values and derivatives are those of the dense matrix."""

import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from compilers import FULL
from graphs import GRAPHS

from slmrec_jax.devices import compiling_for
from slmrec_jax.encoding import matrices
from slmrec_jax.encoding import sparse as products
from slmrec_jax.encoding.matrices import Operator, Scales, operator
from slmrec_jax.encoding.rows import product_rows
from slmrec_jax.encoding.sparse import PRODUCTS, matmul, rows_of_product, segment_sum

WHOLE = [name for name in PRODUCTS if name != "blocked"]
"""Without the product that takes large matrices by blocks; on small ones it is `chunked`."""


def matrix(name):
    num_users, num_items, users, items = GRAPHS[name]
    values = np.random.default_rng(1).normal(size=len(users)).astype(np.float32)
    return scipy.sparse.csr_array((values, (users, items)), shape=(num_users, num_items))


def with_values(sparse, values):
    """Return the operator whose two copies are made from one array of values, in the order of `matrix`."""
    order = jnp.argsort(sparse.matrix.columns, stable=True)
    return Operator(sparse.matrix._replace(values=values), sparse.transposed._replace(values=values[order]))


class Case(NamedTuple):
    """A matrix in float64, its arguments, and everything that one compiled program computes of them."""

    sparse: Operator
    dense: np.ndarray
    x: np.ndarray
    g: np.ndarray
    found: dict


@pytest.fixture(scope="module", params=itertools.product(GRAPHS, WHOLE), ids="-".join)
def case(request):
    graph, product = request.param
    host = matrix(graph)
    sparse = operator(host)
    x, g = (np.random.default_rng(2 + i).normal(size=(host.shape[1 - i], 7)).astype(np.float32) for i in range(2))

    def everything(sparse, x, g):
        values = sparse.matrix.values
        value, pull = jax.vjp(lambda x: matmul(sparse, x, product), x)

        def penalty(x):
            gradient = jax.grad(lambda x: jnp.sum(matmul(sparse, x, product) ** 3))(x)
            return jnp.sum(gradient**2)

        def from_users(values):
            return jnp.vdot(g, matmul(with_values(sparse, values), x, product))

        def from_items(values):
            return jnp.vdot(x, matmul(with_values(sparse, values).T, g, product))

        return {
            "value": value,
            "derivative": pull(g)[0],
            "transpose": matmul(sparse.T, g, product),
            "second derivative": jax.grad(penalty)(x),
            "derivatives by the values": [jax.grad(of)(values) for of in (from_users, from_items)],
            "vmap": jax.vmap(lambda x: matmul(sparse, x, product))(jnp.stack([x, 2 * x, -x])),
        }

    return Case(sparse, host.toarray().astype(np.float64), x, g, jax.jit(everything)(sparse, x, g))


def test_product_and_derivative_are_those_of_the_dense_matrix(case):
    np.testing.assert_allclose(case.found["value"], case.dense @ case.x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(case.found["derivative"], case.dense.T @ case.g, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("product", WHOLE)
def test_an_eager_product_is_that_of_the_dense_matrix(product):
    host, rng = matrix("random"), np.random.default_rng(9)
    x, g = (rng.normal(size=(rows, 7)).astype(np.float32) for rows in host.shape[::-1])
    value, pull = jax.vjp(lambda x: matmul(operator(host), x, product), jnp.asarray(x))
    np.testing.assert_allclose(value, host @ x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pull(jnp.asarray(g))[0], host.T @ g, rtol=1e-5, atol=1e-5)


def test_transpose(case):
    np.testing.assert_allclose(case.found["transpose"], case.dense.T @ case.g, rtol=1e-5, atol=1e-5)


def test_second_derivative(case):
    """With f(x) = Σ (R x)³ and g = ∇f = 3 Rᵀ (R x)², the gradient of |g|² is 2 H g, where H v = 6 Rᵀ (R x · R v)."""
    product = case.dense @ case.x
    gradient = case.dense.T @ (3 * product**2)
    expected = 2 * case.dense.T @ (6 * product * (case.dense @ gradient))
    np.testing.assert_allclose(case.found["second derivative"], expected, rtol=1e-3, atol=1e-3)


def test_the_derivative_by_the_values_is_that_of_the_dense_matrix(case):
    """The derivative by the value of an entry (r, c) is g_r · x_c, in either direction."""
    rows = np.repeat(np.arange(case.sparse.matrix.num_rows), np.diff(case.sparse.matrix.offsets))
    expected = (case.g.astype(np.float64) @ case.x.T)[rows, np.asarray(case.sparse.matrix.columns)]
    for found in case.found["derivatives by the values"]:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_vmap_is_a_loop(case):
    expected = np.stack([case.dense @ (scale * case.x) for scale in (1, 2, -1)])
    np.testing.assert_allclose(case.found["vmap"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("product", WHOLE)
def test_first_and_second_derivatives_by_values_and_rows_are_those_of_the_definition(product):
    sparse, rng = operator(matrix("random")), np.random.default_rng(7)
    x = jnp.asarray(rng.normal(size=(31, 4)), jnp.float32)

    def penalty(values, x, product_of):
        gradients = jax.grad(lambda values, x: jnp.sum(product_of(with_values(sparse, values), x) ** 3), (0, 1))
        return sum(jnp.sum(gradient**2) for gradient in gradients(values, x))

    ours, theirs = (
        jax.jit(jax.grad(partial(penalty, product_of=product_of), (0, 1)))(sparse.matrix.values, x)
        for product_of in (
            lambda operator, x: matmul(operator, x, product),
            lambda operator, x: segment_sum(operator.matrix, 31, x),
        )
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("product", WHOLE)
def test_vmap_over_values(product):
    sparse, rng = operator(matrix("random")), np.random.default_rng(8)
    x, g = (jnp.asarray(rng.normal(size=(rows, 4)), jnp.float32) for rows in (31, 23))

    def squares(values):
        return jnp.vdot(matmul(with_values(sparse, values), x, product) ** 2, g)

    many = np.stack([sparse.matrix.values, 2 * sparse.matrix.values])
    gradient = jax.jit(jax.grad(squares))
    together, alone = jax.jit(jax.vmap(jax.grad(squares)))(many), [gradient(values) for values in many]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize("product", WHOLE)
def test_a_derivative_that_is_not_needed_costs_nothing(product):
    """With respect to x alone the program is the transposed product; with respect to the values it has no product."""
    sparse, x, g = operator(matrix("random")), np.ones((31, 5), np.float32), np.ones((23, 5), np.float32)

    def cost(function, *arguments):
        compiled = jax.jit(function).lower(*arguments).compile(FULL)
        return compiled.as_text().count(" = "), compiled.cost_analysis()["flops"]

    def pulled(g, x, place):
        _, pull = jax.vjp(lambda values, x: matmul(with_values(sparse, values), x, product), sparse.matrix.values, x)
        return pull(g)[place]

    assert cost(partial(pulled, place=1), g, x) == cost(lambda g: matmul(sparse.T, g, product), g)
    entries = len(sparse.matrix.values)
    assert cost(partial(pulled, place=0), g, x)[1] <= 3 * entries * 5


def test_a_product_that_nothing_depends_on_has_zero_derivatives():
    sparse, x = operator(matrix("random")), jnp.ones((31, 5))
    _, pull = jax.vjp(lambda values, x: (matmul(with_values(sparse, values), x), 2 * x), sparse.matrix.values, x)
    by_values, by_x = pull((jnp.zeros((23, 5)), jnp.ones((31, 5))))
    np.testing.assert_array_equal(by_values, np.zeros(len(sparse.matrix.values)))
    np.testing.assert_array_equal(by_x, np.full((31, 5), 2.0))


@pytest.mark.parametrize("product", WHOLE)
def test_vmap_of_the_derivative_is_a_loop(product):
    host = matrix("random")
    sparse, dense = operator(host), host.toarray().astype(np.float64)
    rng = np.random.default_rng(4)
    xs, gs = (rng.normal(size=(3, rows, 5)).astype(np.float32) for rows in dense.shape[::-1])

    def squares(x, g):
        """Return a function that is not linear in x, so that its derivative depends on x too."""
        return jnp.vdot(matmul(sparse, x, product) ** 2, g)

    gradient = jax.jit(jax.grad(squares))
    looped = [gradient(x, g) for x, g in zip(xs, gs, strict=True)]
    expected = [dense.T @ (2 * (dense @ x) * g) for x, g in zip(xs, gs, strict=True)]
    for found in (jax.jit(jax.vmap(jax.grad(squares)))(xs, gs), looped):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("product", WHOLE)
def test_a_matrix_without_entries_is_zero_and_so_is_its_derivative(product):
    nothing = operator(scipy.sparse.csr_array((3, 4), dtype=np.float32))
    value, pull = jax.vjp(lambda x: matmul(nothing, x, product), jnp.ones((4, 2)))
    np.testing.assert_array_equal(value, np.zeros((3, 2)))
    np.testing.assert_array_equal(pull(jnp.ones((3, 2)))[0], np.zeros((4, 2)))


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_a_matrix_without_rows_or_columns(shape, platform):
    with compiling_for(platform):
        nothing = operator(scipy.sparse.csr_array(shape, dtype=np.float32))
        assert matmul(nothing, jnp.ones((shape[1], 2))).shape == (shape[0], 2)


def test_repeated_entries_are_summed():
    twice = scipy.sparse.coo_array((np.array([1.0, 2.0], np.float32), ([0, 0], [1, 1])), shape=(2, 3))
    np.testing.assert_array_equal(matmul(operator(twice), jnp.eye(3)), [[0, 3, 0], [0, 0, 0]])


def test_the_cpu_uses_the_compiled_product():
    lowered = jax.jit(matmul).lower(operator(matrix("random")), jnp.ones((31, 4)))
    assert ("csr_sparse_dense" in lowered.as_text()) == (jax.default_backend() == "cpu")


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_hub_of_ten_thousand_entries(product):
    rng = np.random.default_rng(0)
    hub = scipy.sparse.csr_array((rng.normal(size=10_000).astype(np.float32), (np.full(10_000, 1), np.arange(10_000))))
    x = rng.normal(size=(10_000, 3)).astype(np.float32)
    expected = hub.astype(np.float64) @ x
    g = rng.normal(size=expected.shape).astype(np.float32)

    @jax.jit
    def both(sparse, x, g):
        value, pull = jax.vjp(lambda x: matmul(sparse, x, product), x)
        return value, pull(g)[0]

    value, derivative = both(operator(hub), x, g)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(derivative, hub.T.astype(np.float64) @ g, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("wanted", "platform"), [(1, "cpu"), (2, "cpu"), (50, "cpu"), (2, "gpu")])
def test_rows_of_a_product_are_those_of_the_table_in_value_and_derivatives(wanted, platform):
    """Few rows and many, some of them repeated."""
    host = matrix("random")
    assert products.FEW * 2 <= host.shape[0] < products.FEW * 50
    sparse, rng = operator(host), np.random.default_rng(5)
    ids = jnp.asarray(np.r_[rng.integers(0, host.shape[0], wanted - 1), 2], jnp.int32).at[0].set(2)
    x = jnp.asarray(rng.normal(size=(host.shape[1], 5)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(wanted, 5)), jnp.float32)

    def value(x, values, by_rows):
        made = with_values(sparse, values)
        table = matmul(made, x)
        rows = rows_of_product(made, x, table, ids) if by_rows else table[ids]
        return jnp.sum(weights * rows**2)

    def penalty(x, values, by_rows):
        return sum(jnp.sum(each**2) for each in jax.grad(value, (0, 1))(x, values, by_rows))

    @jax.jit
    def everything(x, values):
        return [
            [jax.value_and_grad(of, places)(x, values, by_rows) for of, places in asked] for by_rows in (True, False)
        ]

    asked = (value, 0), (value, 1), (value, (0, 1)), (penalty, (0, 1))
    with compiling_for(platform):
        by_rows, by_table = everything(x, sparse.matrix.values)
    for found, expected, limit in zip(by_rows, by_table, (1e-5, 1e-5, 1e-5, 1e-4), strict=True):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=limit, atol=limit), found, expected)


def test_a_slice_of_a_product():
    host = matrix("random")
    sparse, x = operator(host), jnp.ones((host.shape[1], 2))
    rows = product_rows(sparse, x, matmul(sparse, x))
    np.testing.assert_allclose(rows(slice(1, 3)), (host @ np.ones((host.shape[1], 2)))[1:3], rtol=1e-5)


def test_rows_of_products_of_a_batch():
    host, rng = matrix("random"), np.random.default_rng(6)
    sparse = operator(host)
    ids = jnp.asarray(rng.integers(0, host.shape[0], (2, 2)), jnp.int32)
    xs = jnp.asarray(rng.normal(size=(2, host.shape[1], 4)), jnp.float32)

    def value(x, ids):
        return jnp.sum(jnp.sin(rows_of_product(sparse, x, matmul(sparse, x), ids)))

    together = jax.jit(jax.vmap(jax.grad(value)))(xs, ids)
    gradient = jax.jit(jax.grad(value))
    alone = [gradient(*one) for one in zip(xs, ids, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_a_matrix_of_scales_alone_in_value_and_derivative(monkeypatch):
    """The CPU's product of a large graph, for whole tables and for few rows, is that of the same graph with values."""
    host, rng = matrix("random"), np.random.default_rng(7)
    scales = Scales(*(rng.uniform(0.1, 1, size) for size in host.shape))
    held = operator(host, scales)
    monkeypatch.setattr(matrices, "MOST_VALUES", 0)
    alone = operator(host, scales)
    assert held.matrix.values is not None
    assert alone.matrix.values is None
    x, ids = jnp.asarray(rng.normal(size=(host.shape[1], 4)), jnp.float32), jnp.array([3, 0])

    @jax.jit
    def both(sparse, x):
        def few(x):
            return jnp.sum(jnp.sin(rows_of_product(sparse, x, matmul(sparse, x), ids)))

        def whole(x):
            return jnp.sum(jnp.sin(matmul(sparse, x)))

        return jax.value_and_grad(few)(x), jax.value_and_grad(whole)(x)

    for found, expected in zip(jax.tree.leaves(both(alone, x)), jax.tree.leaves(both(held, x)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
