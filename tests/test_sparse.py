import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from conftest import GRAPHS

from slmrec_jax import sparse as products
from slmrec_jax.rows import rows_of_product as of_product
from slmrec_jax.sparse import PRODUCTS, default_product, matmul, operator, rows_of_product


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
    assert default_product() == ("csr" if jax.default_backend() == "cpu" else "scan")
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


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("wanted", [1, 2, 50])
def test_rows_of_a_product_are_those_of_the_table_in_value_and_derivative(wanted, backend, monkeypatch):
    """Few rows and many, some of them more than once."""
    host = matrix("random")
    assert products.FEW * 2 <= host.shape[0] < products.FEW * 50
    sparse, rng = operator(host), np.random.default_rng(5)
    ids = jnp.asarray(np.r_[rng.integers(0, host.shape[0], wanted - 1), 2], jnp.int32).at[0].set(2)
    x = jnp.asarray(rng.normal(size=(host.shape[1], 5)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(wanted, 5)), jnp.float32)

    def value(x, by_rows):
        table = matmul(sparse, x)
        rows = rows_of_product(sparse, x, table, ids) if by_rows else table[ids]
        return jnp.sum(weights * rows**2)

    expected = jax.value_and_grad(value)(x, False)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    for way in (jax.value_and_grad(value), jax.jit(jax.value_and_grad(value), static_argnums=1)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), way(x, True), expected)


def test_a_slice_of_a_product():
    host = matrix("random")
    sparse, x = operator(host), jnp.ones((host.shape[1], 2))
    rows = of_product(sparse, x, matmul(sparse, x))
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
