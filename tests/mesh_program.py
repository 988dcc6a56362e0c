"""Compares a step on meshes of 8 virtual CPU devices with one device; prints a line of JSON for each mesh.

    python tests/mesh_program.py SYSTEM DIM BATCH

Run in a process of its own, since JAX decides once how many devices there are.
"""

import json
import os
import re
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"

import jax
import numpy as np

from slmrec_jax import Config, meshes, setup
from slmrec_jax.config import MMGCNConfig, MMSSLConfig, with_system
from slmrec_jax.data import demo

MESHES = ((1, 8), (2, 4), (8, 1))
COLLECTIVE = re.compile(r"= (.*?) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
SIZES = {"num_users": 200, "num_items": 150}


def config_of(system: str, dim: int, batch_size: int) -> Config:
    """Return a small system, by its name or, for SLMRec, by its task."""
    base = {"dim": dim, "batch_size": batch_size, "num_layers": 2}
    if system == "mmgcn":
        return Config(model=system, mmgcn=MMGCNConfig(latent_dim=32), **base)
    if system == "mmssl":
        return Config(model=system, mmssl=MMSSLConfig(heads=2, topk_rate=0.05), **base)
    if system in ("lightgcn", "vbpr"):
        return Config(model=system, **base)
    return with_system(Config(**base), "mf:concat") if system == "mf" else Config(task=system, **base)


def main(system: str, dim: str, batch_size: str) -> None:
    made = setup(config_of(system, int(dim), int(batch_size)), demo(num_scenes=8, exposures=60, **SIZES))
    state, batch = made.init(), made.batch(0)

    def computed(params, inputs, batch):
        if made.method.loss is None:
            return made.step(state.replace(params=params), inputs, batch)[1]
        return jax.value_and_grad(made.loss, has_aux=True)(params, inputs, batch)

    arguments = state.params, made.inputs, batch
    expected = jax.tree.leaves(jax.jit(computed)(*arguments))
    largest = max(float(np.abs(each).max(initial=0.0)) for each in expected)
    tables = {*SIZES.values(), sum(SIZES.values())}
    for axes in MESHES:
        mesh = meshes.make_mesh(*axes)
        with jax.set_mesh(mesh):
            divided = jax.device_put(arguments, meshes.shardings(arguments, mesh, tables))
            # A function of its own, since jit remembers what it traced without a mesh.
            program = jax.jit(lambda *given: computed(*given)).lower(*divided).compile()
            found = jax.tree.leaves(program(*divided))
        errors = (
            float(np.abs(np.asarray(one) - np.asarray(other)).max(initial=0.0))
            for one, other in zip(found, expected, strict=True)
        )
        shapes = [match[1] for match in map(COLLECTIVE.search, program.as_text().splitlines()) if match]
        of_tables = [shape for shape in shapes if any(f"[{rows}," in shape for rows in tables)]
        report = {"mesh": axes, "error": max(errors) / largest, "collectives": len(shapes), "of_tables": len(of_tables)}
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
