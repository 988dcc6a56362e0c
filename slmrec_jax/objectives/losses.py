"""Losses: terms of the training objective as pure functions, each a mean over the batch's unmasked rows."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Scalar

from slmrec_jax.encoding import layers
from slmrec_jax.encoding.graph import interactions_among
from slmrec_jax.encoding.rows import rows_for_all, rows_of
from slmrec_jax.errors import UserError, check_choice, shown
from slmrec_jax.objectives.augmentations import Views
from slmrec_jax.objectives.softmax import cross_entropy, identification, inbatch_cross_entropy, self_cross_entropy
from slmrec_jax.types import ALL, ID, Context, Distinct, Loss, Metrics, Params, Rows, Spec, View


def info_nce(
    temperature: float,
    negatives: Literal["inbatch", "sampled"] = "inbatch",
    num_negatives: int = 64,
    mask_false_negatives: bool = False,
    popularity_correction: float = 0.0,
) -> Loss:
    """Make SLMRec's main loss, Eq. 12-13: the cross-entropy of a user's item among negatives, with logits cosine / τ.

    In-batch negatives occur in proportion to their popularity, so that the scores learn log p(i|u) - log p(i). The
    correction subtracts β log d_i from the logit of an item i with d_i training interactions; β = 1 corrects fully
    (Bengio and Senécal, 2008; Yi et al., RecSys 2019). It is subtracted only in training.

    Args:
        temperature: τ > 0.
        negatives: `"inbatch"` uses the other items of the batch, as in the published code. `"sampled"` draws items that
            the user has not interacted with, as in the paper (which does not give k). The denominator contains the
            positive item in both cases.
        num_negatives: k, for sampled negatives.
        mask_false_negatives: Whether to remove items that the user has interacted with from the in-batch negatives. The
            published code keeps them.
        popularity_correction: β. The published code has β = 0. A negative β unlearns popularity further.

    Raises:
        UserError: An argument is invalid; the message says what to give.
    """
    _check_temperature(temperature)
    check_choice("negatives", negatives, ("inbatch", "sampled"))
    if not _is_number(popularity_correction):
        raise UserError(f"popularity_correction is {shown(popularity_correction)}: give a number")
    if negatives == "sampled":
        _check_count(num_negatives)

    def offsets(context: Context, items: Int[Array, "..."]) -> Float[Array, "..."] | None:
        if popularity_correction == 0:
            return None
        degrees = jnp.maximum(context.inputs.graph.item_degrees(items), 1)
        return -popularity_correction * jnp.log(degrees.astype(jnp.float32))

    def inbatch(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        view, batch = context.view, context.batch
        if not mask_false_negatives:
            users = layers.normalize(view.users(context.users))
            items = layers.normalize(view.items(context.items))
            of_items = offsets(context, context.items.ids)
            return inbatch_cross_entropy(
                users / temperature, items, context.users, context.items, batch.mask, of_items
            ), {}
        users, items = layers.normalize(view.users(batch.users)), layers.normalize(view.items(batch.items))
        known = interactions_among(context.inputs.graph, batch.users, batch.items)
        scores, of_items = users @ items.T / temperature, offsets(context, batch.items)
        scores = scores if of_items is None else scores + of_items[None, :]
        return cross_entropy(scores, batch.mask, batch.mask[None, :] & ~known), {}

    def sampled(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        batch = context.batch
        scores = jnp.concatenate(_positive_and_negatives(context, "cosine", num_negatives), axis=1) / temperature
        of_items = offsets(context, jnp.concatenate([batch.items[:, None], batch.negatives[:, :num_negatives]], axis=1))
        scores = scores if of_items is None else scores + of_items
        return layers.mean(jax.nn.logsumexp(scores, axis=1) - scores[:, 0], batch.mask), {}

    if negatives == "sampled":
        return Loss(sampled, num_negatives=num_negatives)
    return Loss(inbatch, in_batch=True)


def bpr(score: Literal["dot", "cosine"] = "dot", num_negatives: int = 1) -> Loss:
    """Make Bayesian personalised ranking: the mean of softplus(y_uj - y_ui) over positives i and their negatives j.

    Args:
        score: The score y: the inner product, or the cosine (a variant in SLMRec's published code).
        num_negatives: The number of negatives per positive.

    Raises:
        UserError: An argument is invalid; the message says what to give.
    """
    check_choice("score", score, ("dot", "cosine"))
    _check_count(num_negatives)

    def apply(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        positive, negatives = _positive_and_negatives(context, score, num_negatives)
        return layers.mean(jnp.mean(jax.nn.softplus(negatives - positive), axis=1), context.batch.mask), {}

    return Loss(apply, num_negatives=num_negatives)


def embedding_l2(
    rows: Literal["layer0", "view", "fused"] = "layer0", norm: Literal["squared", "frobenius"] = "squared"
) -> Loss:
    """Make an L2 penalty on the rows of a batch's users u, positives i and negatives j (averaged per positive).

    Args:
        rows: `"layer0"`: rows of the parameter tables `user` and `item` (LightGCN). `"view"`: rows of the view's `id`
            modality, without biases (MF, VBPR). `"fused"`: the view's fused rows (MGCN, LATTICE).
        norm: `"squared"` is the mean over the batch of ½ (|e_u|² + |e_i|² + |e_j|²) (LightGCN's authors); `"frobenius"`
            is (‖E_u‖_F + ‖E_i‖_F + ‖E_j‖_F) / batch, unsquared (MMRec toolbox).

    Raises:
        UserError: An argument is invalid; the message says what to give.
    """
    check_choice("rows", rows, ("layer0", "view", "fused"))
    check_choice("norm", norm, ("squared", "frobenius"))

    def apply(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        view, batch = context.view, context.batch
        tables = context.model_params if isinstance(context.model_params, Mapping) else {}
        has = {"layer0": {"user", "item"} <= set(tables), "view": ID in view.user_modalities, "fused": True}
        if not has[rows]:
            raise UserError(f"embedding_l2 has rows {rows!r}, but the model has no such rows: give rows='fused'")
        if rows == "layer0":
            users, items = (rows_for_all(rows_of(tables[side])) for side in ("user", "item"))
        elif rows == "view":
            users, items = view.user_modalities[ID], view.item_modalities[ID]
        else:
            users, items = view.users, view.items
        touched = users(batch.users), items(batch.items), items(context.negatives)
        of_users, of_items, of_negatives = (jnp.sum(jnp.square(x), axis=1) for x in touched)
        squares = jnp.stack([of_users, of_items, jnp.mean(of_negatives.reshape(batch.negatives.shape), axis=1)])
        if norm == "squared":
            return layers.mean(0.5 * jnp.sum(squares, axis=0), batch.mask), {}
        of_tables = jnp.sum(jnp.where(batch.mask[None, :], squares, 0.0), axis=1)
        return jnp.sum(jnp.sqrt(of_tables)) / jnp.sum(batch.mask, dtype=squares.dtype), {}

    return Loss(apply, num_negatives=1)


def view_agreement(
    views: Views,
    temperature: float,
    entities: Literal["both", "items"] = "both",
    contrast_on: Literal["fused", "modality"] = "fused",
    among: Literal["batch", "distinct", "all"] = "batch",
) -> Loss:
    """Make InfoNCE between two views, SLMRec's Eq. 9: each node of the batch identifies itself in the other view.

    Args:
        views: The pair of augmentations.
        temperature: τ_ssl > 0, which divides cosines.
        entities: Users and items, summed (published code), or only items (the paper's equations).
        contrast_on: Fused rows (published code), or each modality's rows before fusion, summed (the paper's text).
        among: `"batch"` compares the rows of the batch, where a node is repeated for each of its interactions (SLMRec's
            published code). `"distinct"` compares each node of the batch once. `"all"` compares each node of the batch
            once with all users or items, as in the SGL paper.

    Raises:
        UserError: An argument is invalid; the message says what to give.
    """
    _check_temperature(temperature)
    check_choice("entities", entities, ("both", "items"))
    check_choice("contrast_on", contrast_on, ("fused", "modality"))
    check_choice("among", among, ("batch", "distinct", "all"))

    def apply(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        def tables(view: View) -> tuple[Mapping[str, Rows], Mapping[str, Rows]]:
            if contrast_on == "modality":
                return view.user_modalities, view.item_modalities
            return {"fused": view.users}, {"fused": view.items}

        def agreement(a: Mapping[str, Rows], b: Mapping[str, Rows], of: Distinct) -> Scalar:
            counts = of.counts if among == "batch" else jnp.where(of.counts > 0, 1.0, 0.0)
            terms = []
            for name in a:
                x, y = layers.normalize(a[name](of)), layers.normalize(b[name](of))
                if among == "all":
                    others = layers.normalize(b[name](ALL))
                    terms.append(identification(x / temperature, y, others, counts))
                else:
                    terms.append(self_cross_entropy(x / temperature, y, counts))
            return jnp.sum(jnp.stack(terms))

        first, second = (tables(context.encode(augmentation, context.key)) for augmentation in views)
        items = agreement(first[1], second[1], context.items)
        if entities == "items":
            return items, {}
        users = agreement(first[0], second[0], context.users)
        return users + items, {"users": users, "items": items}

    return Loss(apply, in_batch=among != "all")


def fine_and_coarse(temperature: float, similarity: Literal["dot", "cosine"] = "dot") -> Loss:
    """Make SLMRec's FAC task: contrast the batch's items with one modality after another, in ever coarser spaces.

    Level k applies one affine head without activation to the id rows from the previous level, and another to the rows
    of the k-th modality, and identifies each item across the two. Levels one and two have `dim` columns, later levels
    dim / 2 (as in the published code, which has at most three levels). Rows are compared by raw inner products
    (published code) or by cosines (the paper's definition of sim()), divided by the temperature τ_ssl > 0.

    Raises:
        UserError: An argument is invalid; the message says what to give.
    """
    _check_temperature(temperature)
    check_choice("similarity", similarity, ("dot", "cosine"))

    def init(key: Key[Array, ""], spec: Spec) -> Params:
        names = tuple(spec.modalities)
        widths = [spec.dim, *(spec.dim if level < 2 else spec.dim // 2 for level in range(len(names)))]
        keys = jax.random.split(key, (len(names), 2))
        return {
            name: {
                "id": layers.linear(keys[level, 0], widths[level], widths[level + 1]),
                "modality": layers.linear(keys[level, 1], spec.dim, widths[level + 1]),
            }
            for level, name in enumerate(names)
        }

    def apply(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        view, items = context.view, context.items
        names = [name for name in view.item_modalities if name in params]
        if not names or ID not in view.item_modalities:
            raise UserError(
                "fine_and_coarse needs item rows of ids and of content modalities, which the view lacks: take data "
                "with features, and a model whose view has their rows, such as SLMRec"
            )
        side = (lambda x: x) if similarity == "dot" else layers.normalize
        chained = view.item_modalities[ID](items)
        levels = {}
        for name in names:
            chained = layers.affine(params[name]["id"], chained)
            entering = layers.affine(params[name]["modality"], view.item_modalities[name](items))
            levels[name] = self_cross_entropy(side(chained) / temperature, side(entering), items.counts)
        return jnp.sum(jnp.stack(list(levels.values()))), levels

    return Loss(apply, init, in_batch=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | jax.Array | np.ndarray)


def _check_temperature(temperature: Any) -> None:
    is_array = isinstance(temperature, jax.Array | np.ndarray)  # it may be traced
    if not _is_number(temperature) or (not is_array and temperature <= 0):
        raise UserError(f"temperature is {shown(temperature)}: give a number above 0")


def _check_count(num_negatives: Any) -> None:
    if not hasattr(num_negatives, "__index__") or num_negatives < 1:
        raise UserError(f"num_negatives is {shown(num_negatives)}: give a whole number of at least 1")


def _positive_and_negatives(
    context: Context, score: Literal["dot", "cosine"], num_negatives: int
) -> tuple[Float[Array, "batch 1"], Float[Array, "batch negatives"]]:
    """Compute each user's scores of the positive item and of the first negatives; another term may have drawn more."""
    view, batch = context.view, context.batch
    negatives = batch.negatives[:, :num_negatives]
    side = (lambda x: x) if score == "dot" else layers.normalize
    users = side(view.users(batch.users))
    positive = jnp.sum(users * side(view.items(batch.items)), axis=-1, keepdims=True)
    # If all are read, from the array that other losses read too, their rows are gathered once.
    whole = negatives.shape == batch.negatives.shape
    ids = context.negatives if whole else negatives.reshape(-1)
    drawn = side(view.items(ids)).reshape(*negatives.shape, -1)
    return positive, jnp.einsum("bd,bkd->bk", users, drawn)
