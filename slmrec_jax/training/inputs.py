"""From a data set on the host to what training reads on the device."""

import jax.numpy as jnp
import numpy as np
import scipy.sparse

from slmrec_jax.config import Config
from slmrec_jax.data.dataset import Dataset, Words
from slmrec_jax.graph import build_graph
from slmrec_jax.sparse import Operator, operator
from slmrec_jax.types import DenseFeature, Inputs, Modality, Spec


def make_spec(config: Config, dataset: Dataset) -> Spec:
    """The sizes of a run."""
    modalities = {
        name: Modality(feature.num_words, words=True)
        if isinstance(feature, Words)
        else Modality(feature.values.shape[1])
        for name, feature in dataset.features.items()
    }
    return Spec(dataset.num_users, dataset.num_items, len(dataset.train.users), config.dim, modalities)


def make_inputs(dataset: Dataset) -> Inputs:
    """The graph of the training interactions, and the features, as device arrays."""
    graph = build_graph(dataset.train, dataset.num_users, dataset.num_items)
    features = {
        name: _word_means(feature, dataset.num_items)
        if isinstance(feature, Words)
        else DenseFeature(jnp.asarray(feature.values), jnp.asarray(feature.present, jnp.float32))
        for name, feature in dataset.features.items()
    }
    return Inputs(graph, features)


def _word_means(words: Words, num_items: int) -> Operator:
    """The matrix (items × vocabulary) that takes word vectors to each item's mean, repeated words counted."""
    counts = np.bincount(words.items, minlength=num_items)
    shares = (1.0 / counts[words.items]).astype(np.float32)
    return operator(scipy.sparse.csr_array((shares, (words.items, words.words)), shape=(num_items, words.num_words)))
