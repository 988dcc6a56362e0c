"""Compares 8 virtual CPU devices with one device; prints a line of JSON for each comparison.

    python tests/mesh_program.py

Run in a process of its own, since JAX decides once how many devices there are. `XLA_FLAGS` of the caller hold too, such
as those that compile quickly.
"""

import dataclasses
import json
import math
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import jax
import numpy as np

from slmrec_jax import Config, setup, transfers
from slmrec_jax.config import MMGCNConfig, MMSSLConfig, SLMRecConfig, with_system
from slmrec_jax.data import Dataset, demo
from slmrec_jax.encoding import vectors
from slmrec_jax.evaluation.ranking import plan_ranking, rank, ranking_program
from slmrec_jax.hardware.programs import NO_SPEED, program_cost
from slmrec_jax.meshes import Layout, choose_mesh, make_mesh
from slmrec_jax.training.setup import outline
from slmrec_jax.training.storage.arrays import load_arrays, save_arrays
from slmrec_jax.types import Embeddings, Interactions

NUM_USERS, NUM_ITEMS = 211, 151
"""Primes, so that arrays of a table's size are known by a factor, however they are laid out."""
vectors.WHOLE_BYTES, vectors._BLOCK_VALUES = 0, 24 * 50
transfers.BLOCK_BYTES = 1000
CASES = (
    ("fac", 16, 61, ("data=1,model=8",)),  # 61 does not divide by 8
    # With 61, a gradient and its decay cancel to rounding, which Adam's first step divides by its own size.
    ("fac, 3 micro-batches", 16, 59, ("data=2,model=4",)),
    ("fd+fm", 16, 64, ("data=2,model=4",)),
    ("lightgcn", 12, 64, ("data=8,model=1",)),  # nor does 12: every device has whole tables
    ("vbpr", 16, 64, ("data=1,model=8",)),
    ("mf", 16, 64, ("data=2,model=4",)),
    ("mmgcn", 16, 64, ("data=2,model=4",)),
    ("mmssl", 16, 64, ("data=1,model=8",)),
    ("ed", 16, 64, ("data=2,model=4",)),
    ("simgcl", 16, 64, ("data=2,model=4",)),
    ("lattice", 16, 64, ("data=2,model=4",)),
    ("item graph", 16, 64, ("data=2,model=4",)),
)
"""Systems, or tasks of SLMRec, with columns, batch sizes and meshes."""


RANKINGS = (
    (37, 53, 16, 53, 4000, 1),
    (37, 5, 12, 5, 400, 1),
    (13, 700, 16, 3, 7000, 1),
    (13, 700, 16, 30, 1000, 3),
)
"""Users, items, columns, k, the most bytes of scores, and which items are candidates: one of so many."""

TRANSFER = re.compile(r" (all-|reduce-scatter|collective-permute)")
ARRAY = re.compile(r"\w+\[([\d,]+)\]")


def is_of_nodes(line: str, columns: int = 1) -> bool:
    """Return whether a line has an array with the entries of a table of nodes, of so many columns or more."""
    head = line.partition("replica_groups")[0]
    sizes = [math.prod(map(int, found.split(","))) for found in ARRAY.findall(head)]
    return any(
        size % rows == 0 and size >= columns * rows
        for size in sizes
        for rows in (NUM_USERS, NUM_ITEMS, NUM_USERS + NUM_ITEMS)
    )


def small() -> Dataset:
    columns = {"visual": 24, "textual": 16}
    made = demo(num_users=NUM_USERS, num_items=NUM_ITEMS, num_scenes=8, exposures=60, columns=columns)
    # One modality of half precision, whose products with the whole table go by blocks of rows.
    visual = made.features["visual"]
    half = visual._replace(values=visual.values.astype(np.float16))
    return dataclasses.replace(made, features={**made.features, "visual": half})


def config_of(system: str, dim: int, batch_size: int) -> Config:
    """Return a small system; what a mesh does not change is left out, since compiling takes most of the time."""
    system, _, several = system.partition(", ")
    base = {"dim": dim, "batch_size": batch_size, "num_layers": 2, "micro_batches": int(several[:1] or 1)}
    if system == "mmgcn":
        return Config(model=system, modalities=("visual",), mmgcn=MMGCNConfig(latent_dim=32), **base)
    if system == "mmssl":
        return Config(model=system, mmssl=MMSSLConfig(heads=2, topk_rate=0.05, adversarial_weight=0.0), **base)
    if system == "item graph":
        return Config(task="none", slmrec=SLMRecConfig(fusion="mean", item_graph=0.5, graph_neighbours=4), **base)
    if system in ("lattice", "lightgcn", "simgcl", "vbpr"):
        return Config(model=system, **base)
    base["num_layers"] = 1
    return with_system(Config(**base), "mf:concat") if system == "mf" else Config(task=system, **base)


def farthest(found, expected) -> float:
    """Return the largest difference of arrays, as a share of values above 1."""
    leaves = ([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)] for tree in (found, expected))
    return max(
        float(np.max(np.abs(one - other) / np.maximum(1, np.abs(other)), initial=0.0))
        for one, other in zip(*leaves, strict=True)
    )


def compare_steps() -> None:
    """Take a step on one device and on meshes, and read what the compiled steps transfer."""
    data = small()
    for system, dim, batch_size, meshes in CASES:
        config = config_of(system, dim, batch_size)
        alone = setup(config, data)
        given = alone.init(), alone.inputs, alone.batch(0)
        expected, metrics = jax.jit(alone.step)(*given)
        for sizes in meshes:
            made = outline(config, data, mesh=choose_mesh(sizes, dim))
            placed = made.put(given)
            program = jax.jit(made.step).lower(*placed).compile()
            after, found = program(*placed)
            text = program.as_text()
            lines = [line.strip() for line in text.splitlines() if TRANSFER.search(line)]
            transfers = program_cost(text, NO_SPEED)[0].collectives
            report = {
                "system": system,
                "mesh": sizes,
                "loss": abs(float(found["loss"]) / float(metrics["loss"]) - 1),
                "params": farthest(after.params, expected.params),
                "state": farthest(after, expected),
                # The noise of SimGCL is as long for each node, which takes a sum over its columns.
                "of_tables": [line[:100] for line in lines if is_of_nodes(line, 2 if system == "simgcl" else 1)],
                "transfers": len(transfers),
                "sent_bytes": round(sum(each.sent_bytes for each in transfers)),
                "largest_bytes": max((each.num_bytes for each in transfers), default=0),
            }
            print(json.dumps(report), flush=True)


def compare_rankings() -> None:
    """Rank with many ties on meshes, with users, items and dimensions that do not divide."""
    draw = np.random.default_rng(0)
    for num_users, num_items, dim, k, max_bytes, step in RANKINGS:
        tables = Embeddings(*(draw.integers(-2, 3, (rows, dim)).astype(np.float32) for rows in (num_users, num_items)))
        pairs = (draw.integers(0, most, 3 * num_users).astype(np.int32) for most in (num_users, num_items))
        candidates = np.arange(0, num_items, step) if step > 1 else None
        users, known = draw.permutation(num_users), [Interactions(*pairs)]
        plan = plan_ranking(users, known, num_items, k, max_bytes=max_bytes, candidates=candidates)
        expected = rank(plan, tables)
        for sizes in ((1, 8), (2, 4), (8, 1)):
            placed = Layout(make_mesh(*sizes), frozenset({num_users, num_items})).put(tables)
            found = rank(plan, placed)
            if candidates is not None:
                ranking_program(plan, placed)  # as the forecast of memory compiles it, of all items
            equal = bool((found.items == expected.items).all() and (found.scores == expected.scores).all())
            print(json.dumps({"ranking": [num_users, num_items, k], "mesh": sizes, "equal": equal}), flush=True)


def compare_checkpoints() -> None:
    """Save on 1, 8, 2 and 1 devices in turn, each time what the last one restored."""
    draw = np.random.default_rng(0)
    tree = {"table": draw.normal(size=(30, 16)).astype(np.float32), "bias": np.arange(5, dtype=np.float32)}
    held, found = jax.tree.map(jax.numpy.asarray, tree), []
    with tempfile.TemporaryDirectory() as folder:
        for place, sizes in enumerate(((1, 8), (1, 2), (1, 1))):
            save_arrays(Path(folder) / str(place), held)
            held = load_arrays(Path(folder) / str(place), Layout(make_mesh(*sizes), frozenset({30})).shapes(tree))
            found.append(len(held["table"].sharding.device_set))
    equal = all(bool((held[name] == tree[name]).all()) for name in tree)
    print(json.dumps({"checkpoints": found, "equal": equal}), flush=True)


COMPARISONS = {
    "steps": compare_steps,
    "rankings": compare_rankings,
    "checkpoints": compare_checkpoints,
}

if __name__ == "__main__":
    chosen = sys.argv[1:] or COMPARISONS
    for name in chosen:
        COMPARISONS[name]()
