"""Device meshes and the sharding of arrays over them.

Propagation acts on each column of a table independently. Node tables are therefore sharded by columns over the axis
`model`: each device propagates its own columns with the whole graph, without communication. The rows of a batch are
sharded over all devices after they are read out. Code that is traced within `tracing_for(mesh)` finds the mesh here.
Without a mesh, the functions for traced code have no effect.
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
"""The axes of a mesh: `model` shards the columns of tables; both together shard the rows of a batch."""

AUTO = "auto"
"""Used instead of sizes: all devices."""

LEAST_COLUMNS_PER_DEVICE = 8
"""The minimum number of columns per device under `auto`: 32 bytes, the smallest part of a row that a GPU reads."""


def part(*axes: str | tuple[str, ...] | None) -> PartitionSpec:
    """Return a `PartitionSpec`: the mesh axes that shard each axis of an array."""
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]


class Layout(NamedTuple):
    """The sharding of all arrays of a run on a mesh."""

    mesh: Mesh
    num_rows: frozenset[int]
    """The row counts by which two-dimensional arrays are recognised as node tables. A wrong guess costs transfers but
    never changes results."""

    def shardings(self, tree: PyTree) -> PyTree:
        """Return the sharding of each array or shape: tables by columns if these divide evenly, all else replicated."""

        def place(node: Any) -> Any:
            if isinstance(node, Whole):
                return jax.tree.map(lambda leaf: NamedSharding(self.mesh, part()), node)
            is_table = len(node.shape) == 2 and node.shape[0] in self.num_rows
            by_columns = is_table and node.shape[1] % self.mesh.shape[MODEL] == 0
            return NamedSharding(self.mesh, part(None, MODEL) if by_columns else part())

        return jax.tree.map(place, tree, is_leaf=lambda node: isinstance(node, Whole))

    def shapes(self, tree: PyTree) -> PyTree:
        """Return the shapes of arrays, with shardings."""

        def shape(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # type: ignore[no-untyped-call]

        return jax.tree.map(shape, tree, self.shardings(tree))

    def placed(self, function: Callable[..., PyTree]) -> Callable[..., Any]:
        """Return the jitted function with its results sharded by this layout."""
        return jax.jit(lambda *arguments: _constrained(function(*arguments), self))

    def put(self, tree: PyTree) -> PyTree:
        """Put arrays on the mesh. With several processes, each has the whole arrays and puts its own shards."""
        return jax.tree.map(_put, tree, self.shardings(tree))

    def bytes_of(self, tree: PyTree) -> int:
        """Return the bytes that one device holds of the arrays or shapes."""

        def own_bytes(leaf: Any, sharding: NamedSharding) -> int:
            return math.prod(sharding.shard_shape(leaf.shape)) * int(leaf.dtype.itemsize)

        return sum(jax.tree.leaves(jax.tree.map(own_bytes, tree, self.shardings(tree))))


def on_host(table: Shaped[Array, "rows ..."], block_bytes: int = 2**26) -> Iterator[np.ndarray]:
    """Yield the rows of a table on the host, in order: all at once, or in blocks if several processes hold shards.

    All of these processes must call this function, in the thread that runs computations.
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
    """Make a mesh of data × model devices; by default of JAX's first devices.

    Args:
        data: The number of groups, each of which holds all columns.
        model: The number of devices per group, over which columns are sharded.
        devices: The devices, exactly data × model of them.
    """
    chosen = jax.devices()[: data * model] if devices is None else list(devices)
    return jax.make_mesh((data, model), AXES, (AxisType.Auto, AxisType.Auto), devices=chosen)


def choose_mesh(asked: Mesh | str | None, dim: int, devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """Return the mesh to train on; `None` for a single device.

    Args:
        asked: A mesh with axes `data` and `model`, or one of them; sizes such as `data=2,model=4`; or `auto`. The
            default is one device, or `auto` with several processes.
        dim: The number of columns of a table. `auto` shards them over the largest number of devices that divides both
            it and the number of devices and leaves at least `LEAST_COLUMNS_PER_DEVICE` per device.
        devices: The devices to choose from; by default all of JAX's.

    Raises:
        UserError: The mesh is not valid, or there are not enough devices.
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
        product = f"{'' if several else 'at most '}{len(devices)}"
        raise UserError(
            f"{setting('mesh', f'data={data},model={model}')} needs {data * model} devices, but there are "
            f"{len(devices)}: give sizes whose product is {product}"
        )
    return make_mesh(data, model, devices[: data * model]) if data * model > 1 else None


def _as_auto(given: Mesh) -> Mesh | None:
    """Return a given mesh with both axes, in the mode in which the compiler chooses shardings."""
    if not given.axis_names or not set(given.axis_names) <= set(AXES):
        raise UserError(f"{setting('mesh')} has the axes {given.axis_names}: give {DATA} and {MODEL}")
    if jax.process_count() > 1 and given.size < jax.device_count():
        raise UserError(f"{setting('mesh')} has {given.size} devices: several processes use all {jax.device_count()}")
    devices = given.devices.T if given.axis_names == (MODEL, DATA) else given.devices
    devices = devices.reshape(given.shape.get(DATA, 1), given.shape.get(MODEL, 1))
    return Mesh(devices, AXES, axis_types=(AxisType.Auto, AxisType.Auto)) if given.size > 1 else None


def _divides_well(model: int, num_devices: int, dim: int) -> bool:
    return model == 1 or (num_devices % model == 0 and dim % model == 0 and dim // model >= LEAST_COLUMNS_PER_DEVICE)


def mesh_sizes(text: str) -> dict[str, int]:
    """Parse sizes such as `data=2,model=4`.

    Raises:
        UserError: The text is something else.
    """
    sizes: dict[str, int] = {}
    for pair in text.split(","):
        name, _, size = pair.partition("=")
        if name not in AXES or name in sizes or not (size.isascii() and size.isdigit() and 0 < int(size) < 10**6):
            raise UserError(
                f"{setting('mesh')} is {text!r}: give sizes such as data=2,model=4; training also takes auto"
            )
        sizes[name] = int(size)
    return sizes


@contextmanager
def tracing_for(mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """Trace for a mesh within the block."""
    with jax.sharding.use_abstract_mesh(mesh if isinstance(mesh, AbstractMesh) else mesh.abstract_mesh):
        yield


def mesh_of(array: Shaped[Array, "..."]) -> Mesh | None:
    """Return the mesh of an array or shape; `None` if it is not on a mesh."""
    mesh = getattr(array.sharding, "mesh", None)
    return mesh if isinstance(mesh, Mesh) else None


def num_shares() -> int:
    """Return the number of devices of the mesh that is traced for; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else int(mesh.size)


def num_column_shares() -> int:
    """Return the number of devices over which that mesh shards columns; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else int(mesh.shape[MODEL])


def on_own_columns(function: Callable[..., Array], table: Shaped[Array, "..."]) -> Callable[..., Array]:
    """Wrap a function of replicated arguments and a table, so that each device calls it for its own columns.

    Args:
        function: `(replicated, table) -> table`, which acts on each column independently.
        table: The table. If its columns do not divide evenly, or it is not two-dimensional, each device calls the
            function for the whole table.
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
    """Wrap a function of row-sharded and replicated arrays, so that each device calls it for its own rows.

    Args:
        function: A function of `num_divided` row-sharded arrays and `num_whole` replicated ones. Replicated results
            must be the same on every device, such as sums with `sum_over_shares`.
        num_divided: The number of arguments with sharded rows, which come first. Their row counts must divide evenly.
        num_whole: The number of replicated arguments.
        outputs: For each result, whether its rows are sharded.
    """
    rows, whole = part(AXES), part()
    places = tuple(rows if divided else whole for divided in outputs)
    divided: Callable[..., Any] = jax.shard_map(
        function, in_specs=(rows,) * num_divided + (whole,) * num_whole, out_specs=places, check_vma=False
    )
    return divided


def sum_over_shares(x: Array) -> Array:
    """Sum over all devices, within a function wrapped by `on_own_rows`."""
    total: Array = jax.lax.psum(x, AXES)  # type: ignore[no-untyped-call]
    return total


def held_whole(arrays: Whole) -> PyTree:
    """Return the arrays, constrained to stay replicated even where only a part of them is used."""
    if jax.sharding.get_abstract_mesh().empty:
        return arrays.arrays
    return jax.lax.with_sharding_constraint(arrays.arrays, part())  # type: ignore[no-untyped-call]


def divide_rows(x: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """Shard the rows of a batch over all devices, with all columns of a row on one device."""
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
