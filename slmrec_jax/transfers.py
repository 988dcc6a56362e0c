"""Copy large arrays from the host to devices in blocks of rows, so that the host never holds a second copy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Shaped

BLOCK_BYTES = 2**26
"""The bytes of rows that are in flight at a time."""


def to_device(host: Shaped[np.ndarray, "..."], device: jax.Device | None = None) -> Array:
    """Copy an array to a device; by default JAX's default device.

    The result never shares memory with `host`, which may be a memory-mapped file. On CPU, `jax.device_put` shares
    aligned memory, such as that of a `.npy` file, even if told not to; changing the file would then change the training
    data.

    Args:
        host: An array with any strides. At most one block of it is copied on the host.
        device: The device to copy to.
    """
    if host.nbytes <= BLOCK_BYTES or len(host) == 1:
        # Unlike jnp.array, this compiles no program for the array's shape.
        sent: Array = jax.device_put(np.array(host, order="C"), device)
        return sent
    count = len(host)
    rows = max(1, BLOCK_BYTES * count // host.nbytes)
    table = jnp.zeros(host.shape, host.dtype, device=device)
    for start in range(0, count, rows):
        first = min(start, count - rows)  # blocks of equal size need only one program
        block = jax.device_put(np.ascontiguousarray(host[first : first + rows]), device)
        table = _with_rows(table, block, np.int32(first))
        table.block_until_ready()  # bounds the bytes in flight
    return table


def to_devices(host: Shaped[np.ndarray, "..."], sharding: Sharding) -> Array:
    """Copy the shards of an array to the devices of a sharding; each process copies to its own devices."""
    places: dict[jax.Device, Any] = dict(sharding.addressable_devices_indices_map(host.shape))
    parts = [to_device(np.asarray(host[index]), device) for device, index in places.items()]
    return jax.make_array_from_single_device_arrays(host.shape, sharding, parts)


@partial(jax.jit, donate_argnums=0)
def _with_rows(table: Array, block: Array, first: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(table, block, first, 0)
