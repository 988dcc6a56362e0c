"""From a data set on the host to what training reads on the device."""

from collections.abc import Mapping
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Int

from slmrec_jax.config import Config, Missing
from slmrec_jax.data.dataset import Dataset, Feature, Words
from slmrec_jax.encoding.features import Given
from slmrec_jax.encoding.graph import build_graph, graph_shapes
from slmrec_jax.encoding.sparse import Operator, operator, operator_shapes
from slmrec_jax.types import DenseFeature, Inputs, Interactions, Modality, Numbering, Spec


def make_spec(config: Config, dataset: Dataset) -> Spec:
    """The sizes of a run."""
    modalities = {
        name: Modality(feature.num_words, words=True)
        if isinstance(feature, Words)
        else Modality(feature.values.shape[1])
        for name, feature in dataset.features.items()
    }
    return Spec(dataset.num_users, dataset.num_items, len(dataset.train.users), config.dim, modalities)


def make_inputs(dataset: Dataset, missing: Missing = "masked", numbering: Numbering | None = None) -> Inputs:
    """The graph of the training interactions, and the features, as device arrays.

    Args:
        dataset: the data.
        missing: what an item has in a modality of vectors that it lacks: nothing (`"masked"`), zeros that count as
            features, or the mean of the rows that are there. Word ids are always masked.
        numbering: which row of the tables belongs to whom; by default the data set's ids are the rows.
    """
    train, features = dataset.train, dataset.features
    if numbering is not None:
        users, items = (np.asarray(places) for places in numbering)
        train = Interactions(users[train.users], items[train.items])
        features = {name: _renumbered(feature, items) for name, feature in features.items()}
    graph = build_graph(train, dataset.num_users, dataset.num_items)
    given = given_features(features, dataset.num_items, missing, features)
    return Inputs(graph, given, numbering=numbering)


def input_shapes(dataset: Dataset) -> Inputs:
    """As `make_inputs` makes them with a numbering, without values: what memory and programs depend on."""
    graph = graph_shapes(dataset.num_users, dataset.num_items, len(dataset.train.users))
    features = {name: _shapes(feature, dataset.num_items) for name, feature in dataset.features.items()}
    ends = (dataset.num_users, dataset.num_items)
    numbering = jax.eval_shape(lambda: Numbering(*(jnp.zeros(count, jnp.int32) for count in ends)))
    return Inputs(graph, features, numbering=numbering)


def given_features(
    features: Mapping[str, Feature | Words],
    num_items: int,
    missing: Missing,
    known: Mapping[str, Feature | Words],
) -> dict[str, Given]:
    """Return the features of items, as models take them.

    Args:
        features: by modality.
        num_items: how many items there are.
        missing: as for `make_inputs`.
        known: the features of training, whose means fill in.
    """
    return {
        name: _word_means(feature, num_items)
        if isinstance(feature, Words)
        else _dense(_filled(feature, missing, cast("Feature", known[name])))
        for name, feature in features.items()
    }


def _renumbered(feature: Feature | Words, places: Int[np.ndarray, " items"]) -> Feature | Words:
    if isinstance(feature, Words):
        return feature._replace(items=places[feature.items])
    order = np.argsort(places)
    return feature._replace(values=feature.values[order], present=feature.present[order])


def _filled(feature: Feature, missing: Missing, known: Feature) -> Feature:
    if missing == "masked" or feature.present.all():
        return feature
    values = feature.values
    if missing == "mean" and known.present.any():
        mean = known.values[known.present].mean(axis=0, dtype=np.float64)
        values = np.where(feature.present[:, None], values, mean.astype(np.float32))
    return Feature(values, np.ones_like(feature.present))


def _dense(feature: Feature) -> DenseFeature:
    return DenseFeature(jnp.asarray(feature.values), jnp.asarray(feature.present, jnp.float32))


def _shapes(feature: Feature | Words, num_items: int) -> Given:
    if isinstance(feature, Words):
        pairs = np.unique(feature.items.astype(np.int64) * feature.num_words + feature.words)
        return operator_shapes(num_items, feature.num_words, len(pairs))
    values = feature.values.shape
    shapes: DenseFeature = jax.eval_shape(lambda: DenseFeature(jnp.zeros(values), jnp.zeros(num_items)))
    return shapes


def _word_means(words: Words, num_items: int) -> Operator:
    """The matrix (items × vocabulary) that takes word vectors to each item's mean, repeated words counted."""
    counts = np.bincount(words.items, minlength=num_items)
    shares = (1.0 / counts[words.items]).astype(np.float32)
    return operator(scipy.sparse.csr_array((shares, (words.items, words.words)), shape=(num_items, words.num_words)))
