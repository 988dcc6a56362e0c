"""Several devices as one mesh: the part of each array that a device holds.

Propagation acts on each column of a table alone. Node tables are therefore divided by columns over the axis `model`:
each device propagates its own columns with the whole graph and sends nothing. The rows of a batch are divided over all
devices once they are read out. Code that is traced under `jax.set_mesh(mesh)` finds the mesh here; without one, nothing
in this module has an effect.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, Shaped

DATA, MODEL = AXES = ("data", "model")
"""The axes of a mesh: `model` divides the columns of tables, both divide the rows of a batch."""


def make_mesh(data: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh of data × model devices, by default JAX's first ones.

    Args:
        data: The number of groups that each hold all columns.
        model: The number of devices of a group, among which columns are divided.
        devices: As many devices.
    """
    chosen = jax.devices()[: data * model] if devices is None else list(devices)
    return jax.make_mesh((data, model), AXES, (AxisType.Auto, AxisType.Auto), devices=chosen)


def num_shares() -> int:
    """Return the number of devices of the mesh that programs are traced for; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else int(mesh.size)


def on_own_columns(function: Callable[..., Array], table: Shaped[Array, "..."]) -> Callable[..., Array]:
    """Return the function of some whole arguments and a table, which each device calls for its own columns.

    Args:
        function: `(whole arguments, table) -> table`, which acts on each column alone.
        table: Its columns are not divided if their number does not allow it, or if it has only rows.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or table.ndim != 2 or table.shape[1] % mesh.shape[MODEL]:
        return function
    columns = _spec(None, MODEL)
    divided: Callable[..., Array] = jax.shard_map(
        function, in_specs=(_spec(), columns), out_specs=columns, check_vma=False
    )
    return divided


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
    rows, whole = _spec(AXES), _spec()
    places = tuple(rows if divided else whole for divided in outputs)
    divided: Callable[..., Any] = jax.shard_map(
        function, in_specs=(rows,) * num_divided + (whole,) * num_whole, out_specs=places, check_vma=False
    )
    return divided


def sum_over_shares(x: Array) -> Array:
    """Return the sum over all devices, within a function of `on_own_rows`."""
    total: Array = jax.lax.psum(x, AXES)  # type: ignore[no-untyped-call]
    return total


def divide_rows(x: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """Divide the rows of a batch over all devices, each with all of its columns."""
    if jax.sharding.get_abstract_mesh().empty or x.ndim != 2:
        return x
    divided: Array = jax.lax.with_sharding_constraint(x, _spec(AXES))  # type: ignore[no-untyped-call]
    return divided


def shardings(tree: PyTree, mesh: Mesh, num_rows: Collection[int]) -> PyTree:
    """Return the sharding of each array, or shape: tables by columns, where these divide evenly, and all else whole.

    A wrong guess costs transfers, never results.

    Args:
        tree: Arrays or shapes.
        mesh: The mesh.
        num_rows: Arrays of two axes with so many rows are tables of nodes.
    """

    def place(leaf: Any) -> NamedSharding:
        table = len(leaf.shape) == 2 and leaf.shape[0] in num_rows and leaf.shape[1] % mesh.shape[MODEL] == 0
        return NamedSharding(mesh, _spec(None, MODEL) if table else _spec())

    return jax.tree.map(place, tree)


def _spec(*axes: str | tuple[str, ...] | None) -> PartitionSpec:
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]
