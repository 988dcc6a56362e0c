"""Conversion of a data set on the host to the device arrays that training reads."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from slmrec_jax.config import Config, Missing
from slmrec_jax.data.dataset import Dataset, Feature, Words
from slmrec_jax.data.vectors import mean_row
from slmrec_jax.encoding.features import DeviceFeature
from slmrec_jax.encoding.graph import build_graph, graph_shapes
from slmrec_jax.encoding.matrices import Operator, operator, operator_shapes
from slmrec_jax.transfers import to_device
from slmrec_jax.types import DenseFeature, Inputs, Modality, Spec


def make_spec(config: Config, dataset: Dataset, column_shares: int = 1) -> Spec:
    """Return the sizes of a run whose mesh, if any, splits the columns of tables over `column_shares` devices."""
    modalities = {
        name: Modality(feature.num_words, words=True)
        if isinstance(feature, Words)
        else Modality(feature.values.shape[1])
        for name, feature in dataset.features.items()
    }
    sizes = dataset.num_users, dataset.num_items, len(dataset.train.users), config.dim
    return Spec(*sizes, modalities, column_shares, dataset.popularity_hit_rate)


def make_inputs(dataset: Dataset, missing: Missing = "masked", *, on_host: bool = False) -> Inputs:
    """Return the graph of the training interactions and the features as device arrays.

    Args:
        dataset: The data.
        on_host: Whether the arrays stay in host memory, so that no device of a mesh has to hold all of them.
        missing: How to fill a missing vector of an item: not at all (`"masked"`), with zeros that count as features, or
            with the mean of the other items' rows in the dtype of the values. Missing word ids are always masked.
    """
    with _in_host_memory() if on_host else nullcontext():
        graph = build_graph(dataset.train, dataset.num_users, dataset.num_items)
        features = given_features(dataset.features, dataset.num_items, missing, dataset.features, on_host=on_host)
    return Inputs(graph, features)


def _in_host_memory() -> AbstractContextManager[Any]:
    """Make arrays in host memory, if JAX has a CPU backend."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS excludes the CPU
        return nullcontext()
    beside: AbstractContextManager[Any] = jax.default_device(host)
    return beside


def input_shapes(dataset: Dataset) -> Inputs:
    """Return the shapes of the inputs that `make_inputs` makes."""
    users, items = dataset.train
    graph = graph_shapes(
        np.bincount(users, minlength=dataset.num_users), np.bincount(items, minlength=dataset.num_items)
    )
    features = {name: _shapes(feature, dataset.num_items) for name, feature in dataset.features.items()}
    return Inputs(graph, features)


def given_features(
    features: Mapping[str, Feature | Words],
    num_items: int,
    missing: Missing,
    known: Mapping[str, Feature | Words],
    *,
    on_host: bool = False,
) -> dict[str, DeviceFeature]:
    """Convert item features to the form that models read.

    Args:
        features: Features by modality.
        num_items: The number of items.
        missing: As for `make_inputs`.
        known: The features that were trained with; their means fill gaps.
        on_host: As for `make_inputs`.
    """
    dense = DenseFeature if on_host else _on_device
    return {
        name: _word_mean_operator(feature, num_items)
        if isinstance(feature, Words)
        else dense(*_vectors(_fill_missing(feature, missing, cast("Feature", known[name]))))
        for name, feature in features.items()
    }


def _fill_missing(feature: Feature, missing: Missing, known: Feature) -> Feature:
    if missing == "masked" or feature.present.all():
        return feature
    values = feature.values
    if missing == "mean" and known.present.any():
        mean = mean_row(known.values, known.present)
        values = np.array(values, values.dtype if values.dtype == known.values.dtype else np.float32)
        values[~feature.present] = mean.astype(values.dtype)
    return Feature(values, np.ones_like(feature.present))


def _vectors(feature: Feature) -> tuple[Any, Any]:
    return feature.values, feature.present.astype(np.float32)


def _on_device(values: Any, present: Any) -> DenseFeature:
    return DenseFeature(to_device(values), jnp.asarray(present))


def _shapes(feature: Feature | Words, num_items: int) -> DeviceFeature:
    if isinstance(feature, Words):
        pairs = np.unique(feature.items.astype(np.int64) * feature.num_words + feature.words)
        items, words = np.divmod(pairs, feature.num_words)
        return operator_shapes(np.bincount(items, minlength=num_items), np.bincount(words, minlength=feature.num_words))
    values = feature.values
    shapes: DenseFeature = jax.eval_shape(
        lambda: DenseFeature(jnp.zeros(values.shape, values.dtype), jnp.zeros(num_items))
    )
    return shapes


def _word_mean_operator(words: Words, num_items: int) -> Operator:
    """Return the matrix (items × vocabulary) that maps word vectors to each item's mean, counting repeated words."""
    counts = np.bincount(words.items, minlength=num_items)
    shares = (1.0 / counts[words.items]).astype(np.float32)
    return operator(scipy.sparse.csr_array((shares, (words.items, words.words)), shape=(num_items, words.num_words)))
