"""A step on a mesh of several devices is that of one device, and sends no table of nodes."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from slmrec_jax import meshes

TESTS = Path(__file__).parents[1]
SENDS_NO_TABLE = ("fac", "lightgcn", "vbpr")
"""MMGCN gathers tables, and so do MMSSL and tasks that project features in each step (`mesh_program.py` has them)."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "dim", "batch_size"),
    [
        ("fac", 16, 61),  # 61 does not divide by 8
        ("lightgcn", 16, 64),
        ("vbpr", 12, 64),  # nor does 12
        ("mmgcn", 16, 64),
    ],
)
def test_a_step_on_a_mesh_is_that_of_one_device(system, dim, batch_size, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    command = [sys.executable, str(TESTS / "mesh_program.py"), system, str(dim), str(batch_size)]
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent))
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    reports = [json.loads(line) for line in lines]
    assert [report["mesh"] for report in reports] == [[1, 8], [2, 4], [8, 1]]
    for report in reports:
        assert report["error"] < 1e-5, report
        assert report["collectives"] or report["mesh"] == [8, 1], report
        if system in SENDS_NO_TABLE and dim % 8 == 0:
            assert report["of_tables"] == 0, report


def test_without_a_mesh_nothing_is_divided():
    x = jnp.ones((6, 4))
    assert meshes.num_shares() == 1
    assert meshes.divide_rows(x) is x
    assert meshes.on_own_columns(jnp.sin, x) is jnp.sin


def test_a_mesh_of_one_device_changes_no_bit():
    x = jnp.linspace(0, 1, 24).reshape(6, 4)
    with jax.set_mesh(meshes.make_mesh()):
        function = meshes.on_own_columns(lambda scale, x: scale * jnp.sin(x), x)
        on_mesh = jax.jit(lambda scale, x: meshes.divide_rows(function(scale, x)))(jnp.float32(3), x)
    assert (on_mesh == jax.jit(lambda scale, x: scale * jnp.sin(x))(jnp.float32(3), x)).all()


def test_tables_of_nodes_are_divided_by_columns():
    mesh = meshes.make_mesh()
    tree = {"table": jnp.ones((6, 4)), "kernel": jnp.ones((5, 4)), "bias": jnp.ones(4), "rows": jnp.ones(6)}
    specs = {name: sharding.spec for name, sharding in meshes.shardings(tree, mesh, {6}).items()}
    assert specs["table"] == jax.sharding.PartitionSpec(None, meshes.MODEL)
    assert {specs[name] for name in ("kernel", "bias", "rows")} == {jax.sharding.PartitionSpec()}
