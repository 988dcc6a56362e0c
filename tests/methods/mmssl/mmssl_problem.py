"""A small problem for the tests of MMSSL: sizes, settings, rows and batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from slmrec_jax.config import Config, MMSSLConfig, with_preset
from slmrec_jax.methods.mmssl.recommender import Encoded
from slmrec_jax.types import Batch, Modality, Spec

NUM_USERS, NUM_ITEMS, DIM = 23, 31, 8
SPEC = Spec(NUM_USERS, NUM_ITEMS, 150, DIM, {"visual": Modality(5), "textual": Modality(3)})
SMALL = Config(model="mmssl", dim=DIM, batch_size=32, mmssl=MMSSLConfig(heads=2))
PUBLISHED = dataclasses.replace(with_preset(SMALL, "published"), batch_size=SMALL.batch_size)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def dense(graph):
    """Return the interactions as a matrix of zeros and ones."""
    rows = np.zeros((graph.num_users, graph.num_items))
    rows[tuple(np.asarray(x) for x in graph.interactions)] = 1.0
    return rows


def some_rows(seed=0):
    """Return a pass that has nothing but the rows that graphs are made of."""
    users, items = ({name: normal(seed + n, size, DIM) for n, name in enumerate(SPEC.modalities)} for size in (23, 31))
    return Encoded(jnp.zeros((23, DIM)), jnp.zeros((31, DIM)), users, items, {}, {})


def some_batch(size=6, real=6):
    users = jnp.asarray([0, 3, 5, 7, 11, 13][:size], jnp.int32)
    return Batch(users, users, jnp.asarray(np.arange(size) < real), users[:, None], jax.random.key(0))


def updated(updates, step, graphs, collected, interactions, batch, encoded):
    """Return the graphs and the collected data after a step; the pass with new parameters is the one before."""
    return jax.lax.cond(
        updates.due(step),
        lambda: updates.rebuild(collected, interactions, lambda: encoded),
        lambda: (graphs, updates.collect(collected, interactions, batch, encoded)),
    )


def edges_of(graphs):
    """Return the number of edges of each modality's graph."""
    return [int(np.sum(made.entries.matrix.values)) for made in graphs.values()]
