from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from graphs import GRAPHS

from slmrec_jax.devices import compiling_for
from slmrec_jax.encoding import sparse as products
from slmrec_jax.encoding.rows import product_rows
from slmrec_jax.encoding.sparse import (
    PRODUCTS,
    Operator,
    matmul,
    operator,
    platform_product,
    rows_of_product,
    segment_sum,
)


def matrix(name):
    num_users, num_items, users, items = GRAPHS[name]
    values = np.random.default_rng(1).normal(size=len(users)).astype(np.float32)
    return scipy.sparse.csr_array((values, (users, items)), shape=(num_users, num_items))


@pytest.fixture(params=GRAPHS)
def problem(request):
    dense = matrix(request.param)
    x = np.random.default_rng(2).normal(size=(dense.shape[1], 7)).astype(np.float32)
    g = np.random.default_rng(3).normal(size=(dense.shape[0], 7)).astype(np.float32)
    return operator(dense), dense.toarray().astype(np.float64), x, g


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_product_and_derivative_are_those_of_the_dense_matrix(problem, product, wrap):
    sparse, dense, x, g = problem
    value, pull = jax.vjp(wrap(lambda x: matmul(sparse, x, product)), jnp.asarray(x))
    np.testing.assert_allclose(value, dense @ x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pull(jnp.asarray(g))[0], dense.T @ g, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("product", PRODUCTS)
def test_transpose(problem, product):
    sparse, dense, _, g = problem
    np.testing.assert_allclose(matmul(sparse.T, jnp.asarray(g), product), dense.T @ g, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("product", PRODUCTS)
def test_second_derivative(problem, product):
    sparse, dense, x, _ = problem

    def penalty(x):
        gradient = jax.grad(lambda x: jnp.sum(matmul(sparse, x, product) ** 3))(x)
        return jnp.sum(gradient**2)

    def by_dense(x):
        gradient = jax.grad(lambda x: jnp.sum((jnp.asarray(dense, jnp.float32) @ x) ** 3))(x)
        return jnp.sum(gradient**2)

    ours, theirs = (jax.grad(f)(jnp.asarray(x)) for f in (penalty, by_dense))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def with_values(sparse, values):
    """The operator whose two copies are made from one array of values, in the order of `matrix`."""
    order = jnp.argsort(sparse.matrix.columns, stable=True)
    return Operator(sparse.matrix._replace(values=values), sparse.transposed._replace(values=values[order]))


def summed(sparse, dense_like):
    """Σ over entries (r, c) of a float64 table at (r, c): what the derivative by the values is, entry by entry."""
    rows = np.repeat(np.arange(sparse.matrix.num_rows), np.diff(sparse.matrix.offsets))
    return dense_like[rows, np.asarray(sparse.matrix.columns)]


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_derivative_by_the_values_is_that_of_the_dense_matrix(problem, product):
    sparse, _, x, g = problem
    expected = summed(sparse, g.astype(np.float64) @ x.T.astype(np.float64))
    for value in (
        lambda values, x: jnp.vdot(g, matmul(with_values(sparse, values), x, product)),
        lambda values, x: jnp.vdot(x, matmul(with_values(sparse, values).T, jnp.asarray(g), product)),
    ):
        found = jax.jit(jax.grad(value))(sparse.matrix.values, jnp.asarray(x))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("product", PRODUCTS)
def test_derivatives_by_values_and_rows_are_those_of_the_definition_of_the_second_order_too(product):
    sparse, rng = operator(matrix("random")), np.random.default_rng(7)
    x = jnp.asarray(rng.normal(size=(31, 4)), jnp.float32)

    def penalty(values, x, product_of):
        gradients = jax.grad(lambda values, x: jnp.sum(product_of(with_values(sparse, values), x) ** 3), (0, 1))
        return sum(jnp.sum(gradient**2) for gradient in gradients(values, x))

    ours, theirs = (
        jax.grad(penalty, (0, 1))(sparse.matrix.values, x, product_of)
        for product_of in (
            lambda operator, x: matmul(operator, x, product),
            lambda operator, x: segment_sum(operator.matrix, 31, x),
        )
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("product", PRODUCTS)
def test_vmap_over_values(product):
    sparse, rng = operator(matrix("random")), np.random.default_rng(8)
    x, g = (jnp.asarray(rng.normal(size=(rows, 4)), jnp.float32) for rows in (31, 23))

    def squares(values):
        return jnp.vdot(matmul(with_values(sparse, values), x, product) ** 2, g)

    many = jnp.stack([sparse.matrix.values, 2 * sparse.matrix.values])
    together, alone = jax.jit(jax.vmap(jax.grad(squares)))(many), [jax.grad(squares)(values) for values in many]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_derivative_that_is_not_asked_for_costs_nothing(product):
    """By x alone, the compiled program is that of the transposed product; by the values alone, it has no product."""
    sparse, x, g = operator(matrix("random")), jnp.ones((31, 5)), jnp.ones((23, 5))

    def cost(function, *arguments):
        compiled = jax.jit(function).lower(*arguments).compile()
        return compiled.as_text().count(" = "), compiled.cost_analysis()["flops"]

    def pulled(g, x, place):
        _, pull = jax.vjp(lambda values, x: matmul(with_values(sparse, values), x, product), sparse.matrix.values, x)
        return pull(g)[place]

    assert cost(partial(pulled, place=1), g, x) == cost(lambda g: matmul(sparse.T, g, product), g)
    entries = len(sparse.matrix.values)
    assert cost(partial(pulled, place=0), g, x)[1] <= 3 * entries * 5


def test_a_product_that_nothing_depends_on_has_no_derivative():
    sparse, x = operator(matrix("random")), jnp.ones((31, 5))
    _, pull = jax.vjp(lambda values, x: (matmul(with_values(sparse, values), x), 2 * x), sparse.matrix.values, x)
    by_values, by_x = pull((jnp.zeros((23, 5)), jnp.ones((31, 5))))
    np.testing.assert_array_equal(by_values, np.zeros(len(sparse.matrix.values)))
    np.testing.assert_array_equal(by_x, np.full((31, 5), 2.0))


@pytest.mark.parametrize("product", PRODUCTS)
def test_vmap_is_a_loop(problem, product):
    sparse, dense, x, _ = problem
    batch = jnp.stack([jnp.asarray(x), 2 * jnp.asarray(x), -jnp.asarray(x)])
    mapped = jax.vmap(lambda x: matmul(sparse, x, product))(batch)
    np.testing.assert_allclose(mapped, np.stack([dense @ b for b in np.asarray(batch)]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("product", PRODUCTS)
def test_vmap_of_the_derivative_is_a_loop(product):
    host = matrix("random")
    sparse, dense = operator(host), host.toarray().astype(np.float64)
    rng = np.random.default_rng(4)
    xs, gs = (rng.normal(size=(3, rows, 5)).astype(np.float32) for rows in dense.shape[::-1])

    def squares(x, g):
        """Not linear, so that the derivative depends on x too."""
        return jnp.vdot(matmul(sparse, x, product) ** 2, g)

    gradient = jax.jit(jax.grad(squares))
    looped = [gradient(x, g) for x, g in zip(xs, gs, strict=True)]
    expected = [dense.T @ (2 * (dense @ x) * g) for x, g in zip(xs, gs, strict=True)]
    for found in (jax.jit(jax.vmap(jax.grad(squares)))(xs, gs), looped):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_matrix_without_entries_is_zero_and_so_is_its_derivative(product):
    nothing = operator(scipy.sparse.csr_array((3, 4), dtype=np.float32))
    value, pull = jax.vjp(lambda x: matmul(nothing, x, product), jnp.ones((4, 2)))
    np.testing.assert_array_equal(value, np.zeros((3, 2)))
    np.testing.assert_array_equal(pull(jnp.ones((3, 2)))[0], np.zeros((4, 2)))


def test_entries_that_stand_twice_are_summed():
    twice = scipy.sparse.coo_array((np.array([1.0, 2.0], np.float32), ([0, 0], [1, 1])), shape=(2, 3))
    np.testing.assert_array_equal(matmul(operator(twice), jnp.eye(3)), [[0, 3, 0], [0, 0, 0]])


def test_the_cpu_takes_the_compiled_product():
    assert platform_product() == ("csr" if jax.default_backend() == "cpu" else "scan")
    lowered = jax.jit(matmul).lower(operator(matrix("random")), jnp.ones((31, 4)))
    assert ("csr_sparse_dense" in lowered.as_text()) == (jax.default_backend() == "cpu")


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_hub_of_ten_thousand_entries(product):
    rng = np.random.default_rng(0)
    hub = scipy.sparse.csr_array((rng.normal(size=10_000).astype(np.float32), (np.full(10_000, 1), np.arange(10_000))))
    x = rng.normal(size=(10_000, 3)).astype(np.float32)
    expected = hub.astype(np.float64) @ x
    value, pull = jax.vjp(lambda x: matmul(operator(hub), x, product), jnp.asarray(x))
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    g = rng.normal(size=expected.shape).astype(np.float32)
    np.testing.assert_allclose(pull(jnp.asarray(g))[0], hub.T.astype(np.float64) @ g, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("wanted", [1, 2, 50])
def test_rows_of_a_product_are_those_of_the_table_in_value_and_derivatives(wanted, platform):
    """Few rows and many, some of them more than once."""
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

    def ways(of, places):
        by = jax.value_and_grad(of, places)
        return (jax.jit(by, static_argnums=2),) if of is penalty else (by, jax.jit(by, static_argnums=2))

    for of, places, limit in ((value, 0, 1e-5), (value, 1, 1e-5), (value, (0, 1), 1e-5), (penalty, (0, 1), 1e-4)):
        for way in ways(of, places):
            with compiling_for(platform):
                found, expected = (way(x, sparse.matrix.values, by_rows) for by_rows in (True, False))
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
    alone = [jax.grad(value)(*one) for one in zip(xs, ids, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
