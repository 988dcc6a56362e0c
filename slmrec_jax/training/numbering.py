"""Users and items numbered by falling degree while they train.

A product of the graph reads the rows of neighbours, most often those of nodes with many: side by side they share pages
and stay in the cache. A method sees such ids alone; what it ranks with is brought back into the data set's order.
"""

import jax.numpy as jnp
import numpy as np
from flax.training.train_state import TrainState
from jaxtyping import Int

from slmrec_jax.data.dataset import Dataset
from slmrec_jax.types import Batch, Embeddings, Inputs, Method, Numbering


def by_degree(dataset: Dataset) -> Numbering:
    """The nodes with the most training interactions first; of equal ones, the one with the smaller id."""
    sides = (dataset.train.users, dataset.num_users), (dataset.train.items, dataset.num_items)
    return Numbering(*(jnp.asarray(_ranks(*side)) for side in sides))


def prepared(method: Method, inputs: Inputs) -> Inputs:
    """What the method makes of its inputs; they are numbered as before, whatever it takes over."""
    return method.prepare(inputs)._replace(numbering=inputs.numbering)


def embed(method: Method, state: TrainState, inputs: Inputs) -> Embeddings:
    """What the method ranks with, rows by the ids of the data set."""
    found = method.embed(state, inputs)
    if inputs.numbering is None:
        return found
    return Embeddings(found.users[inputs.numbering.users], found.items[inputs.numbering.items])


def given(batch: Batch, numbering: Numbering | None) -> Batch:
    """The batch by the ids of the data set."""
    if numbering is None:
        return batch
    users, items = (jnp.argsort(places) for places in numbering)
    return batch._replace(users=users[batch.users], items=items[batch.items], negatives=items[batch.negatives])


def _ranks(ends: Int[np.ndarray, " interactions"], count: int) -> Int[np.ndarray, " nodes"]:
    order = np.argsort(-np.bincount(ends, minlength=count), kind="stable")
    ranks = np.empty(count, np.int32)
    ranks[order] = np.arange(count, dtype=np.int32)
    return ranks
