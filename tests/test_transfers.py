"""Large arrays go to devices by blocks of rows, and never share memory with the host's."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding

from slmrec_jax import transfers
from slmrec_jax.meshes import Layout, make_mesh, part

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.int32]


def table(dtype, rows=37, columns=6):
    return np.arange(rows * columns).reshape(rows, columns).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("block_bytes", [1, 100, 2**20])
@pytest.mark.parametrize("change", [lambda x: x, lambda x: x[:, 1:4], lambda x: x[::-1], lambda x: x[:1]])
def test_what_arrives_is_what_was_sent(dtype, block_bytes, change, monkeypatch):
    monkeypatch.setattr(transfers, "BLOCK_BYTES", block_bytes)
    host = change(table(dtype))
    sent = transfers.to_device(host)
    assert sent.dtype == host.dtype
    np.testing.assert_array_equal(np.asarray(sent), host)


@pytest.mark.parametrize("block_bytes", [100, 2**20])
def test_a_change_of_the_host_is_not_seen(block_bytes, monkeypatch):
    """JAX shares aligned memory on CPU, as that of a mapped `.npy` file is."""
    monkeypatch.setattr(transfers, "BLOCK_BYTES", block_bytes)
    buffer = np.zeros(2**13, np.uint8)
    start = -buffer.ctypes.data % 64
    host = buffer[start : start + 4096].view(np.float32).reshape(64, 16)
    sharding = NamedSharding(make_mesh(1, 1), part())
    number = host[0, :1].reshape(())
    sent = transfers.to_device(host), *(transfers.to_devices(each, sharding) for each in (host, number))
    host[:] = 7
    assert not any(np.asarray(each).any() for each in sent)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_mesh_gets_its_parts(dtype, monkeypatch):
    monkeypatch.setattr(transfers, "BLOCK_BYTES", 100)
    mesh = make_mesh(1, 1)
    for sharding in (NamedSharding(mesh, part(None, "model")), NamedSharding(mesh, part())):
        sent = transfers.to_devices(table(dtype), sharding)
        assert sent.sharding == sharding
        np.testing.assert_array_equal(np.asarray(sent), table(dtype))
    placed = Layout(mesh, frozenset({37})).put({"x": table(dtype), "y": jnp.ones(3)})
    np.testing.assert_array_equal(np.asarray(placed["x"]), table(dtype))
    assert isinstance(placed["y"], jax.Array)
