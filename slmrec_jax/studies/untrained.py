"""Rankings without training: baselines that every trained system should beat."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from slmrec_jax.config import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.encoding import features, layers, vectors
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.errors import UserError
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.types import ALL, Embeddings


def popularity(config: Config, dataset: Dataset) -> Embeddings:
    """Rank items by their number of training interactions, in the same order for every user."""
    counts = np.bincount(dataset.train.items, minlength=dataset.num_items)
    # Shares are at most 1, whereas sigmoids of large counts would tie under a protocol that ranks by sigmoids.
    shares = jnp.asarray(counts / counts.max(), jnp.float32)
    return Embeddings(jnp.ones((dataset.num_users, 1)), shares[:, None])


def item_knn(config: Config, dataset: Dataset) -> Embeddings:
    """Rank items by the weighted sum of their cosines with the user's items, over all modalities and neighbours.

    The weights are LightGCN's, 1 / sqrt(user degree · item degree), so that popular items count less.

    Raises:
        UserError: The data set has no features.
    """
    if not dataset.features:
        raise UserError(f"itemknn ranks by content, but {dataset.name} has no features: leave it out")
    spec, inputs = make_spec(config, dataset), make_inputs(dataset, config.missing)
    tables = [
        # `frozen` does not normalise means of word vectors.
        layers.normalize(vectors.rows(features.frozen(inputs.features[name], modality, normalized=True), ALL))
        for name, modality in spec.modalities.items()
    ]
    items = jnp.concatenate(tables, axis=1)
    return Embeddings(matmul(inputs.graph.adjacency, items), items)


UNTRAINED: Mapping[str, Callable[[Config, Dataset], Embeddings]] = {"popularity": popularity, "itemknn": item_knn}
"""The rankings by the names that `compare` accepts."""
