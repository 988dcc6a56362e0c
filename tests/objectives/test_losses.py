"""Every loss equals its definition, and padding changes nothing."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from graphs import GRAPHS

from slmrec_jax.encoding import layers
from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.encoding.rows import distinct_ids, rows_of
from slmrec_jax.errors import UserError
from slmrec_jax.models.freedom import content_bpr
from slmrec_jax.objectives import losses
from slmrec_jax.types import NO_AUGMENTATION, Batch, Context, Inputs, Interactions, Modality, Spec, View

DIM, TAU = 6, 0.2
NUM_USERS, NUM_ITEMS, USERS, ITEMS = GRAPHS["random"]
GRAPH = build_graph(Interactions(USERS, ITEMS), NUM_USERS, NUM_ITEMS)
SPEC = Spec(
    NUM_USERS, NUM_ITEMS, len(USERS), DIM, {"visual": Modality(4), "acoustic": Modality(3), "text": Modality(2)}
)
VIEWS = (NO_AUGMENTATION, NO_AUGMENTATION._replace(layer=lambda key, layer, x: x))


def tables(seed):
    rng = np.random.default_rng(seed)
    shapes = {"users": (NUM_USERS, DIM), "items": (NUM_ITEMS, DIM)}
    names = ("id", *SPEC.modalities)
    return {
        side: {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name in ("fused", *names)}
        for side, shape in shapes.items()
    }


def view_of(tables):
    def rows(side):
        # In the order of the spec; jit sorts the keys of a dictionary.
        return {name: rows_of(tables[side][name]) for name in ("fused", "id", *SPEC.modalities)}

    users, items = rows("users"), rows("items")
    return View(users.pop("fused"), items.pop("fused"), users, items)


def batch_of(size, padding=0, negatives=2):
    rows = np.random.default_rng(7).choice(len(USERS), size, replace=False)
    rows = np.r_[rows, np.zeros(padding, int)]
    drawn = np.random.default_rng(8).integers(0, NUM_ITEMS, (len(rows), negatives))
    mask = np.arange(len(rows)) < size
    return Batch(*(jnp.asarray(x) for x in (USERS[rows], ITEMS[rows], mask, drawn.astype(np.int32))), jax.random.key(0))


def context_of(clean, other, batch):
    views = iter((view_of(other), view_of(clean)))
    model = {"user": clean["users"]["id"], "item": clean["items"]["id"]}
    of_batch = (
        distinct_ids(ids, batch.mask, count) for ids, count in ((batch.users, NUM_USERS), (batch.items, NUM_ITEMS))
    )

    def encode(augmentation, key):
        return next(views)

    drawn = batch.negatives.reshape(-1)
    return Context(view_of(clean), batch, *of_batch, encode, Inputs(GRAPH, {}), model, batch.key, drawn)


def value(loss, params, clean, other, batch):
    return loss.apply(params, context_of(clean, other, batch))[0]


LOSSES = {
    "info_nce": losses.info_nce(TAU),
    "info_nce masked": losses.info_nce(TAU, mask_false_negatives=True),
    "info_nce sampled": losses.info_nce(TAU, "sampled", 2),
    "info_nce corrected": losses.info_nce(TAU, popularity_correction=0.7),
    "info_nce corrected masked": losses.info_nce(TAU, mask_false_negatives=True, popularity_correction=-0.5),
    "info_nce corrected sampled": losses.info_nce(TAU, "sampled", 2, popularity_correction=1.0),
    "bpr": losses.bpr(num_negatives=2),
    "bpr cosine": losses.bpr("cosine", 2),
    "l2 layer0": losses.embedding_l2(),
    "l2 view": losses.embedding_l2("view"),
    "l2 layer0 frobenius": losses.embedding_l2("layer0", "frobenius"),
    "agreement": losses.view_agreement(VIEWS, TAU),
    "agreement of items": losses.view_agreement(VIEWS, TAU, "items"),
    "agreement of modalities": losses.view_agreement(VIEWS, TAU, contrast_on="modality"),
    "agreement distinct": losses.view_agreement(VIEWS, TAU, among="distinct"),
    "agreement among all": losses.view_agreement(VIEWS, TAU, among="all"),
    "fac": losses.fine_and_coarse(1.0),
    "fac cosine": losses.fine_and_coarse(TAU, "cosine"),
}


def expected(name, params, clean, other, batch):
    """Return the value of a loss, computed by loops in float64."""
    users, items, negatives = (np.asarray(x) for x in (batch.users, batch.items, batch.negatives))
    u, i = (np.asarray(clean[side]["fused"], np.float64) for side in ("users", "items"))

    def agreement(side, name, ids):
        a, b = (reference.unit(x[side][name])[ids] for x in (other, clean))
        return reference.cross_entropy(a @ b.T / TAU)

    if name.startswith("info_nce"):
        correction = {"corrected": 0.7, "corrected masked": -0.5, "corrected sampled": 1.0}.get(name[9:], 0.0)
        degrees = np.bincount(ITEMS, minlength=NUM_ITEMS)
        cosine = reference.unit(u)[users] @ reference.unit(i).T / TAU
        cosine -= correction * np.log(np.maximum(degrees, 1))
        if name.endswith("sampled"):
            rows = [np.r_[cosine[b, items[b]], cosine[b, negatives[b]]] for b in range(len(users))]
            return np.mean([np.log(np.exp(row).sum()) - row[0] for row in rows])
        known = set(zip(USERS.tolist(), ITEMS.tolist(), strict=True))
        allowed = [[(a, b) not in known for b in items.tolist()] for a in users.tolist()]
        return reference.cross_entropy(cosine[:, items], allowed if name.endswith("masked") else None)
    if name.startswith("bpr"):
        a, b = (reference.unit(u), reference.unit(i)) if name == "bpr cosine" else (u, i)
        rows = zip(users, items, negatives, strict=True)
        margins = [a[user] @ b[item] - a[user] @ b[other] for user, item, others in rows for other in others]
        return np.mean([np.log1p(np.exp(-margin)) for margin in margins])
    if name.startswith("l2"):
        e_u, e_i = ((np.asarray(clean[side]["id"], np.float64) ** 2).sum(1) for side in ("users", "items"))
        of_batch = e_u[users], e_i[items], e_i[negatives].mean(1)
        if name.endswith("frobenius"):
            return sum(np.sqrt(squares.sum()) for squares in of_batch) / len(users)
        return np.mean(sum(of_batch)) / 2
    if name in ("agreement distinct", "agreement among all"):
        total = 0.0
        for side, ids in (("users", np.unique(users)), ("items", np.unique(items))):
            a, b = (reference.unit(x[side]["fused"]) for x in (other, clean))
            scores, rows = a @ b.T / TAU, (range(len(a)) if name.endswith("all") else ids)
            total += np.mean([np.log(sum(np.exp(scores[n, m]) for m in rows)) - scores[n, n] for n in ids])
        return total
    if name == "agreement":
        return agreement("users", "fused", users) + agreement("items", "fused", items)
    if name == "agreement of items":
        return agreement("items", "fused", items)
    if name == "agreement of modalities":
        sides = (("users", users), ("items", items))
        return sum(agreement(side, channel, ids) for side, ids in sides for channel in ("id", *SPEC.modalities))
    total, x = 0.0, np.asarray(clean["items"]["id"], np.float64)[items]
    for modality in SPEC.modalities:
        head = jax.tree.map(lambda p: np.asarray(p, np.float64), params[modality])
        x = x @ head["id"]["kernel"] + head["id"]["bias"]
        y = np.asarray(clean["items"][modality], np.float64)[items]
        y = y @ head["modality"]["kernel"] + head["modality"]["bias"]
        a, b, tau = (reference.unit(x), reference.unit(y), TAU) if name.endswith("cosine") else (x, y, 1.0)
        total += reference.cross_entropy(a @ b.T / tau)
    return total


@cache
def value_and_gradients(name):
    """Return the compiled value and gradients of a loss, by its parameters and both tables of rows."""
    return jax.jit(jax.value_and_grad(partial(value, LOSSES[name]), (0, 1, 2)))


@pytest.mark.parametrize("name", LOSSES)
def test_value_is_the_definition(name):
    clean, other = tables(0), tables(1)
    params = LOSSES[name].init(jax.random.key(2), SPEC)
    ours, _ = value_and_gradients(name)(params, clean, other, batch_of(17, padding=11))
    np.testing.assert_allclose(ours, expected(name, params, clean, other, batch_of(17)), rtol=1e-5)


VARIANTS = (
    "info_nce corrected masked",
    "info_nce corrected sampled",
    "agreement distinct",
    "bpr cosine",
    "l2 layer0",
    "l2 view",
    "agreement of items",
    "agreement of modalities",
    "fac cosine",
)
"""Losses that pad like another one. The value of every loss is tested with padding above."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else []) for name in LOSSES]
)
def test_padded_rows_change_neither_value_nor_gradient(name):
    given = LOSSES[name].init(jax.random.key(2), SPEC), tables(0), tables(1)
    plain, padded = (value_and_gradients(name)(*given, batch_of(17, padding)) for padding in (0, 11))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, padded)


@pytest.mark.parametrize("name", LOSSES)
def test_a_padded_row_may_hold_anything(name):
    given, batch = (LOSSES[name].init(jax.random.key(2), SPEC), tables(0), tables(1)), batch_of(17, padding=11)
    users, items, negatives = (np.array(ids) for ids in (batch.users, batch.items, batch.negatives))
    users[-1], items[-1], negatives[-1] = 3, 4, 5
    changed = batch._replace(users=users, items=items, negatives=negatives)
    one, other = (value_and_gradients(name)(*given, rows) for rows in (batch, changed))
    assert one[0] == other[0]


def test_fac_halves_the_third_level_as_the_published_heads_do():
    widths = [head["id"]["kernel"].shape for head in losses.fine_and_coarse(1.0).init(jax.random.key(0), SPEC).values()]
    assert widths == [(DIM, DIM), (DIM, DIM), (DIM, DIM // 2)]


def test_normalize_keeps_zero_rows_finite():
    x = jnp.asarray([[4.0] * 3, [0.0] * 3])
    np.testing.assert_allclose(layers.normalize(x), [[3**-0.5] * 3, [0] * 3], rtol=1e-6)
    assert np.isfinite(jax.jit(jax.grad(lambda x: jnp.sum(layers.normalize(x))))(x)).all()


@pytest.mark.parametrize("name", ["info_nce sampled", "info_nce corrected sampled", "bpr", "bpr cosine"])
def test_negatives_that_another_term_needs_change_nothing(name):
    """A batch holds as many negatives as the term that needs most."""
    batch = batch_of(17, negatives=5)
    own = batch._replace(negatives=batch.negatives[:, :2])
    found, alone = (value_and_gradients(name)({}, tables(0), tables(1), rows) for rows in (batch, own))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, alone)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (losses.fine_and_coarse(TAU), "fine_and_coarse needs item rows of ids and of content modalities"),
        (content_bpr(), "content_bpr needs item rows of content modalities"),
        (losses.embedding_l2("layer0"), "embedding_l2 has rows 'layer0'"),
        (losses.embedding_l2("view"), "embedding_l2 has rows 'view'"),
    ],
)
def test_a_loss_names_the_rows_that_a_model_lacks(loss, said):
    context = context_of(tables(0), tables(1), batch_of(5))
    bare = context.view._replace(user_modalities={}, item_modalities={})
    with pytest.raises(UserError, match=said):
        loss.apply({}, context._replace(view=bare, model_params={"table": jnp.zeros(1)}))


def test_losses_ask_for_the_rows_of_the_negatives_by_one_array():
    """So that they are gathered, and their gradients scattered, once."""
    context, asked = context_of(tables(0), tables(1), batch_of(5)), []

    def items(ids):
        asked.append(ids)
        return rows_of(tables(0)["items"]["fused"])(ids)

    view = context.view._replace(items=items)
    for loss in (losses.bpr(num_negatives=2), losses.embedding_l2("fused")):
        loss.apply({}, context._replace(view=view))
    drawn = [ids for ids in asked if ids.shape == (10,)]
    assert len(drawn) == 2
    assert drawn[0] is drawn[1]
