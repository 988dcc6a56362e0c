"""Training on a mesh of several devices is that on one device, and sends no table of nodes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from slmrec_jax import UserError, meshes
from slmrec_jax.meshes import Layout, choose_mesh, make_mesh
from slmrec_jax.types import Whole

TESTS = Path(__file__).parents[1]
MESHES = {(1, 8), (2, 4), (8, 1)}


@pytest.fixture(scope="module")
def reports():
    """The comparisons of 8 virtual devices with one, by a process of its own."""
    environment = {"PYTHONPATH": str(TESTS.parent), "PATH": "", "HOME": str(Path.home())}
    environment["XLA_FLAGS"] = os.environ["XLA_FLAGS"]
    command = [sys.executable, str(TESTS / "mesh_program.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_steps_of_all_systems_equal_one_device(reports):
    steps = [report for report in reports if "system" in report]
    assert {report["mesh"] for report in steps} == {f"data={data},model={model}" for data, model in MESHES}
    assert {report["system"] for report in steps} == {
        "fac",
        "fac, 3 micro-batches",
        "fd+fm",
        "lightgcn",
        "vbpr",
        "mf",
        "mmgcn",
        "mmssl",
        "ed",
        "simgcl",
        "lattice",
        "item graph",
    }
    for report in steps:
        assert report["loss"] < 1e-6, report
        assert report["params"] < 1e-5, report
        assert report["state"] < 1e-5, report


@pytest.mark.slow
def test_no_table_of_nodes_is_sent(reports):
    for report in (report for report in reports if "system" in report):
        assert report["transfers"] > 0, report
        assert report["of_tables"] == [], report


@pytest.mark.slow
def test_rankings_equal_one_device_with_ties(reports):
    ranked = [report for report in reports if "ranking" in report]
    assert {tuple(report["mesh"]) for report in ranked} == MESHES
    assert all(report["equal"] for report in ranked)


@pytest.mark.slow
def test_a_checkpoint_is_restored_on_any_number_of_devices(reports):
    (report,) = (report for report in reports if "checkpoints" in report)
    assert report["checkpoints"] == [8, 2, 1]
    assert report["equal"]


def test_without_a_mesh_nothing_is_divided():
    x = jnp.ones((6, 4))
    assert meshes.num_shares() == meshes.num_column_shares() == 1
    assert meshes.divide_rows(x) is x
    assert meshes.held_whole(Whole(x)) is x
    assert meshes.on_own_columns(jnp.sin, x) is jnp.sin
    assert choose_mesh(None, 64) is None
    assert choose_mesh("data=1", 64) is None
    assert choose_mesh("auto", 64, jax.devices()[:1]) is None


def test_a_mesh_of_one_device_changes_no_bit():
    def function(scale, x):
        return meshes.divide_rows(meshes.on_own_columns(lambda scale, x: scale * jnp.sin(x), x)(scale, x))

    x = jnp.linspace(0, 1, 24).reshape(6, 4)
    with meshes.tracing_for(make_mesh()):
        on_mesh = jax.jit(lambda scale, x: function(scale, x))(jnp.float32(3), x)
    assert (on_mesh == jax.jit(lambda scale, x: scale * jnp.sin(x))(jnp.float32(3), x)).all()


def test_tables_of_nodes_are_divided_by_columns_unless_they_are_held_whole():
    layout = Layout(make_mesh(), frozenset({6}))
    table = jnp.ones((6, 4))
    tree = {"table": table, "whole": Whole({"table": table}), "kernel": jnp.ones((5, 4)), "rows": jnp.ones(6)}
    places = layout.shardings(tree)
    assert places["table"].spec == PartitionSpec(None, meshes.MODEL)
    others = {leaf.spec for name in ("whole", "kernel", "rows") for leaf in jax.tree.leaves(places[name])}
    assert others == {PartitionSpec()}
    assert layout.bytes_of(tree) == 4 * (24 + 24 + 20 + 6)
    key = jax.random.key(3)
    put = layout.put({"key": key, "host": np.arange(6.0).reshape(3, 2)})
    assert jax.random.bits(put["key"]) == jax.random.bits(key)
    assert (put["host"] == np.arange(6.0).reshape(3, 2)).all()


@pytest.mark.parametrize(
    ("asked", "dim", "count", "sizes"),
    [
        ("auto", 64, 8, (1, 8)),
        ("auto", 64, 16, (2, 8)),  # eight columns are the least of a device
        ("auto", 64, 6, (3, 2)),  # three do not divide 64
        ("auto", 7, 8, (8, 1)),
        ("data=2,model=4", 64, 8, (2, 4)),
        ("model=2", 64, 8, (1, 2)),
        ("model=4,data=1", 64, 8, (1, 4)),
    ],
)
def test_the_sizes_of_a_mesh(asked, dim, count, sizes):
    chosen = choose_mesh(asked, dim, jax.devices() * count)
    assert (chosen.shape["data"], chosen.shape["model"]) == sizes


def test_a_mesh_of_jax_may_have_one_axis_and_any_axis_types():
    devices = np.array(jax.devices() * 4)
    given = Mesh(devices.reshape(4), ("model",), axis_types=(AxisType.Explicit,))
    chosen = choose_mesh(given, 64)
    assert dict(chosen.shape) == {"data": 1, "model": 4}
    assert set(chosen.axis_types) == {AxisType.Auto}
    turned = choose_mesh(Mesh(devices.reshape(4, 1), ("model", "data")), 64)
    assert dict(turned.shape) == {"data": 1, "model": 4}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("data=3", "needs 3 devices, but there are 2: give sizes whose product is at most 2"),
        ("rows=2", "mesh is 'rows=2': give sizes such as data=2,model=4"),
        ("model=2,model=1", "give sizes"),
        ("model=0", "give sizes"),
        ("model=two", "give sizes"),
        ("", "give sizes"),
    ],
)
def test_what_is_no_mesh_is_refused(asked, message):
    with pytest.raises(UserError, match=message):
        choose_mesh(asked, 64, jax.devices() * 2)


def test_a_mesh_of_other_axes_is_refused():
    with pytest.raises(UserError, match=r"has the axes \('x',\): give data and model"):
        choose_mesh(Mesh(np.array(jax.devices()), ("x",)), 64)
