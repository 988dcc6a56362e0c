"""Several devices as one mesh: the part of each array that a device holds.

Propagation acts on each column of a table alone. Node tables are therefore divided by columns over the axis `model`:
each device propagates its own columns with the whole graph and sends nothing. The rows of a batch are divided over all
devices once they are read out. Code that is traced within `tracing_for(mesh)` finds the mesh here; without one, nothing
in this module has an effect.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, Shaped

from slmrec_jax.errors import UserError, setting
from slmrec_jax.transfers import to_devices
from slmrec_jax.types import Whole

DATA, MODEL = AXES = ("data", "model")
"""The axes of a mesh: `model` divides the columns of tables, both divide the rows of a batch."""

AUTO = "auto"
"""All devices, in place of sizes."""

LEAST_COLUMNS = 8
"""The columns that `auto` leaves to each device at least: 32 bytes, the least that a GPU reads of a row."""


def part(*axes: str | tuple[str, ...] | None) -> PartitionSpec:
    """Return the axes of a mesh that divide each axis of an array."""
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]


class Layout(NamedTuple):
    """The place of every array of a run on a mesh."""

    mesh: Mesh
    num_rows: frozenset[int]
    """Arrays of two axes with so many rows are tables of nodes. A wrong guess costs transfers, never results."""

    def shardings(self, tree: PyTree) -> PyTree:
        """Return the sharding of each array, or shape: tables by columns where these divide evenly, all else whole."""

        def place(node: Any) -> Any:
            if isinstance(node, Whole):
                return jax.tree.map(lambda leaf: NamedSharding(self.mesh, part()), node)
            is_table = len(node.shape) == 2 and node.shape[0] in self.num_rows
            by_columns = is_table and node.shape[1] % self.mesh.shape[MODEL] == 0
            return NamedSharding(self.mesh, part(None, MODEL) if by_columns else part())

        return jax.tree.map(place, tree, is_leaf=lambda node: isinstance(node, Whole))

    def shapes(self, tree: PyTree) -> PyTree:
        """Return the shapes of arrays with their shardings."""

        def shape(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # type: ignore[no-untyped-call]

        return jax.tree.map(shape, tree, self.shardings(tree))

    def placed(self, function: Callable[..., PyTree]) -> Callable[..., Any]:
        """Return the function, compiled when it is called, with results that have their place."""
        return jax.jit(lambda *arguments: _constrained(function(*arguments), self))

    def put(self, tree: PyTree) -> PyTree:
        """Put arrays in their place. With several processes, each has all of them and puts its own part."""
        return jax.tree.map(_put, tree, self.shardings(tree))

    def bytes_of(self, tree: PyTree) -> int:
        """Return the bytes of arrays, or shapes, that one device holds."""

        def own_bytes(leaf: Any, sharding: NamedSharding) -> int:
            return math.prod(sharding.shard_shape(leaf.shape)) * int(leaf.dtype.itemsize)

        return sum(jax.tree.leaves(jax.tree.map(own_bytes, tree, self.shardings(tree))))


def on_host(table: Shaped[Array, "rows ..."], block_bytes: int = 2**26) -> Iterator[np.ndarray]:
    """Yield the rows of a table on the host, in order: all at once, or by blocks if several processes hold parts.

    All of these processes must call it, in the thread that computes.
    """
    if table.is_fully_addressable:
        yield np.asarray(table)
        return
    num_rows, row_bytes = table.shape[0], table.nbytes // max(1, table.shape[0])
    rows = min(num_rows, max(1, block_bytes // max(1, row_bytes)))
    whole = NamedSharding(cast("Mesh", mesh_of(table)), part())
    block = jax.jit(lambda table, start: jax.lax.dynamic_slice_in_dim(table, start, rows), out_shardings=whole)
    for start in range(0, num_rows, rows):
        first = min(start, num_rows - rows)
        yield np.asarray(block(table, np.int32(first)))[start - first :]


def make_mesh(data: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh of data × model devices, by default JAX's first ones.

    Args:
        data: The number of groups that each hold all columns.
        model: The number of devices of a group, among which columns are divided.
        devices: As many devices.
    """
    chosen = jax.devices()[: data * model] if devices is None else list(devices)
    return jax.make_mesh((data, model), AXES, (AxisType.Auto, AxisType.Auto), devices=chosen)


def choose_mesh(asked: Mesh | str | None, dim: int, devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """Return the mesh to train on; `None` for one device alone.

    Args:
        asked: A mesh with axes `data` and `model`, or one of them; sizes such as `data=2,model=4`; or `auto`. By
            default, one device, or with several processes `auto`.
        dim: The columns of a table. `auto` divides them among as many devices as divide their number and leave at least
            `LEAST_COLUMNS` to each.
        devices: The devices to choose from, by default all of JAX's.

    Raises:
        UserError: It is no such mesh, or there are not as many devices.
    """
    several = devices is None and jax.process_count() > 1
    if asked is None and not several:
        return None
    if isinstance(asked, Mesh):
        return _as_auto(asked)
    devices = jax.devices() if devices is None else devices
    if asked is None or asked == AUTO:
        model = max(each for each in range(1, len(devices) + 1) if _divides_well(each, len(devices), dim))
        sizes = {DATA: len(devices) // model, MODEL: model}
    else:
        sizes = mesh_sizes(asked)
    data, model = sizes.get(DATA, 1), sizes.get(MODEL, 1)
    if data * model > len(devices) or (several and data * model < len(devices)):
        raise UserError(
            f"{setting('mesh', f'data={data},model={model}')} is of {data * model} devices, and there are "
            f"{len(devices)}: give sizes of as many"
        )
    return make_mesh(data, model, devices[: data * model]) if data * model > 1 else None


def _as_auto(given: Mesh) -> Mesh | None:
    """Return a mesh that was given with both axes, whose arrays the compiler places."""
    if not given.axis_names or not set(given.axis_names) <= set(AXES):
        raise UserError(f"{setting('mesh')} has the axes {given.axis_names}: give {DATA} and {MODEL}")
    if jax.process_count() > 1 and given.size < jax.device_count():
        raise UserError(f"{setting('mesh')} is of {given.size} devices: several processes use all {jax.device_count()}")
    devices = given.devices.T if given.axis_names == (MODEL, DATA) else given.devices
    devices = devices.reshape(given.shape.get(DATA, 1), given.shape.get(MODEL, 1))
    return Mesh(devices, AXES, axis_types=(AxisType.Auto, AxisType.Auto)) if given.size > 1 else None


def _divides_well(model: int, num_devices: int, dim: int) -> bool:
    return model == 1 or (num_devices % model == 0 and dim % model == 0 and dim // model >= LEAST_COLUMNS)


def mesh_sizes(text: str) -> dict[str, int]:
    """Return the sizes in a text such as `data=2,model=4`.

    Raises:
        UserError: The text is something else.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in AXES or name in sizes or not (size.isascii() and size.isdigit() and 0 < int(size) < 10**6):
            raise UserError(f"{setting('mesh')} is {text!r}: give auto, or sizes such as data=2,model=4")
        sizes[name] = int(size)
    return sizes


@contextmanager
def tracing_for(mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """Trace for a mesh within the block."""
    with jax.sharding.use_abstract_mesh(mesh if isinstance(mesh, AbstractMesh) else mesh.abstract_mesh):
        yield


def mesh_of(array: Shaped[Array, "..."]) -> Mesh | None:
    """Return the mesh that an array, or a shape, is placed on; `None` if it is on no mesh."""
    mesh = getattr(array.sharding, "mesh", None)
    return mesh if isinstance(mesh, Mesh) else None


def num_shares() -> int:
    """Return the number of devices of the mesh that programs are traced for; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else int(mesh.size)


def num_column_shares() -> int:
    """Return the number of devices among which that mesh divides columns; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else int(mesh.shape[MODEL])


def on_own_columns(function: Callable[..., Array], table: Shaped[Array, "..."]) -> Callable[..., Array]:
    """Return the function of some whole arguments and a table, which each device calls for its own columns.

    Args:
        function: `(whole arguments, table) -> table`, which acts on each column alone.
        table: If its columns do not divide evenly, or it has only rows, each device calls the function for all of it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function
    divided = table.ndim == 2 and table.shape[1] % mesh.shape[MODEL] == 0
    columns = part(None, MODEL) if divided else part()
    called: Callable[..., Array] = jax.shard_map(
        function, in_specs=(part(), columns), out_specs=columns, check_vma=False
    )
    return called


def on_own_rows(
    function: Callable[..., Any], num_divided: int, num_whole: int, outputs: Sequence[bool]
) -> Callable[..., Any]:
    """Return the function of arrays whose rows are divided over all devices, and of whole arrays.

    Args:
        function: Of `num_divided` arrays and `num_whole` others. Whole results must be the same on every device, such
            as sums by `sum_over_shares`.
        num_divided: The number of arguments with divided rows, which come first; their number divides evenly.
        num_whole: The number of whole arguments.
        outputs: Whether the rows of each result are divided.
    """
    rows, whole = part(AXES), part()
    places = tuple(rows if divided else whole for divided in outputs)
    divided: Callable[..., Any] = jax.shard_map(
        function, in_specs=(rows,) * num_divided + (whole,) * num_whole, out_specs=places, check_vma=False
    )
    return divided


def sum_over_shares(x: Array) -> Array:
    """Return the sum over all devices, within a function of `on_own_rows`."""
    total: Array = jax.lax.psum(x, AXES)  # type: ignore[no-untyped-call]
    return total


def held_whole(arrays: Whole) -> PyTree:
    """Return the arrays, which stay whole on every device even where a use needs a part of them."""
    if jax.sharding.get_abstract_mesh().empty:
        return arrays.arrays
    return jax.lax.with_sharding_constraint(arrays.arrays, part())  # type: ignore[no-untyped-call]


def divide_rows(x: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """Divide the rows of a batch over all devices, each with all of its columns."""
    if jax.sharding.get_abstract_mesh().empty or x.ndim != 2:
        return x
    divided: Array = jax.lax.with_sharding_constraint(x, part(AXES))  # type: ignore[no-untyped-call]
    return divided


def _put(leaf: Any, sharding: NamedSharding) -> Array:
    if isinstance(leaf, jax.Array) and leaf.sharding.device_set == sharding.device_set:
        moved: Array = jax.device_put(leaf, sharding)
        return moved
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        keys: Array = jax.random.wrap_key_data(
            _put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf)
        )
        return keys
    return to_devices(np.asarray(leaf), sharding)


def _constrained(tree: PyTree, layout: Layout) -> PyTree:
    return jax.lax.with_sharding_constraint(tree, layout.shardings(tree))  # type: ignore[no-untyped-call]
