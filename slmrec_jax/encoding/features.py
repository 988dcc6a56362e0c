"""Item features in the form that models read."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from slmrec_jax.encoding import layers, vectors
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.rows import memoized, projected
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.types import DenseFeature, Ids, Modality, Params, Rows, Spec

WORD_DIM = 128
"""The dimension of a word vector, as in SLMRec's published code."""

DeviceFeature: TypeAlias = DenseFeature | Operator
"""Feature vectors, or for word ids the matrix (items × vocabulary) that averages word vectors per item."""


def width(modality: Modality) -> int:
    """Return the number of columns of a modality's vectors."""
    return WORD_DIM if modality.words else modality.columns


def frozen(feature: DeviceFeature, modality: Modality, *, normalized: bool) -> DenseFeature:
    """Prepare a frozen modality for projection; `normalized` divides its rows by their norms.

    Word ids become means of random word vectors, as in SLMRec's published code, and are never normalised.
    Half-precision values stay unchanged and are normalised by separate row factors.
    """
    if isinstance(feature, Operator):
        # The key is fixed: these vectors belong to the data, and every seed must see the same ones.
        return word_means(feature, layers.xavier_normal(jax.random.key(0), modality.columns, WORD_DIM))
    if not normalized:
        return feature
    normal = feature._replace(scales=vectors.row_scales(feature.values))
    return normal if vectors.is_half(feature.values) else DenseFeature(vectors.scaled(normal), feature.present)


def frozen_features(
    features: Mapping[str, DeviceFeature], modalities: Mapping[str, Modality], *, normalized: bool
) -> dict[str, DenseFeature]:
    """Apply `frozen` to every modality."""
    return {name: frozen(features[name], modality, normalized=normalized) for name, modality in modalities.items()}


def word_means(means: Operator, table: Float[Array, "words columns"]) -> DenseFeature:
    """Compute each item's mean word vector. An item without words lacks the modality."""
    present = (jnp.diff(means.matrix.offsets) > 0).astype(jnp.float32)
    return DenseFeature(matmul(means, table), present)


def init_trained(keys: Sequence[Key[Array, ""]], spec: Spec) -> Params:
    """Initialise the parameters of `trained` for each modality: an affine layer, and feature changes, which start at 0.

    `keys` has one key per modality.
    """
    return {
        name: layers.linear(key, width(modality), spec.dim) | {"change": jnp.zeros((spec.num_items, width(modality)))}
        for key, (name, modality) in zip(keys, spec.modalities.items(), strict=True)
    }


def trained(given: Mapping[str, DenseFeature], params: Params, spec: Spec) -> dict[str, Rows]:
    """Compute the rows (F + Δ) W + b of trained features; 0 for items without the modality.

    In the published code of FREEDOM, LATTICE and others, the features are parameters that are initialised with the
    given features. Here the parameter is Δ, which starts at 0, since parameters are initialised without the data. The
    gradients with respect to Δ and to F + Δ are equal.

    Args:
        given: F of each modality.
        params: W, b and Δ, made by `init_trained`. Weight decay, if there is any, pulls F + Δ towards F.
        spec: The sizes of the data. The result follows the order of its modalities, since compiled code sorts the names
            of inputs.
    """

    def changed(feature: DenseFeature, params: Params) -> Rows:
        unchanged, kernel, change = projected(feature, params), params["kernel"], params["change"]

        def rows(ids: Ids) -> Array:
            total: Array = unchanged(ids) + take(feature.present, ids)[:, None] * (take(change, ids) @ kernel)
            return total

        return memoized(rows)

    return {name: changed(given[name], params[name]) for name in spec.modalities}
