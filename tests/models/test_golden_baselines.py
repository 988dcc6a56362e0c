"""Parity of the baselines with values of the published implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilers import full_jit
from golden import assert_same_gradients, distance, files, problem, recorded, routes

from slmrec_jax.methods.gradient import objective
from slmrec_jax.models.lightgcn import lightgcn
from slmrec_jax.models.mmgcn import mmgcn, table_l2
from slmrec_jax.models.vbpr import vbpr
from slmrec_jax.objectives import losses
from slmrec_jax.types import ALL, NO_AUGMENTATION, Batch, Term


def linear(arrays, name):
    return {"kernel": jnp.asarray(arrays[f"{name}.weight"].T), "bias": jnp.asarray(arrays[f"{name}.bias"])}


def lightgcn_tree(arrays, prefix):
    user, item = (arrays[f"{prefix}embedding_dict.{side}_emb"] for side in ("user", "item"))
    return {"user": jnp.asarray(user), "item": jnp.asarray(item), "projection": {}, "words": {}}


def vbpr_tree(arrays, prefix):
    user, item = (jnp.asarray(arrays[f"{prefix}{side}_embedding"]) for side in ("u", "i"))
    return {"user": user, "item": item, "content": linear(arrays, f"{prefix}item_linear")}


def mmgcn_tree(arrays, prefix):
    def layer(channel, place):
        return {
            "aggregate": jnp.asarray(arrays[f"{channel}.conv_embed_{place}.weight"]),
            "own": linear(arrays, f"{channel}.linear_layer{place}"),
            "combine": linear(arrays, f"{channel}.g_layer{place}"),
        }

    return {
        "projection": {"v": linear(arrays, f"{prefix}v_gcn.MLP")},
        "layers": {name: [layer(f"{prefix}{name}_gcn", place) for place in (1, 2, 3)] for name in ("v", "t")},
        "identity": jnp.asarray(arrays[f"{prefix}id_embedding"]),
        "preference": {name: jnp.asarray(arrays[f"{prefix}{name}_preference"]) for name in ("v", "t")},
    }


def check(arrays, model, terms, inputs, tree):
    inputs, params = model.prepare(inputs), tree(arrays, "param:")
    ids = (arrays[f"batch_{name}"] for name in ("user", "pos", "neg"))
    # A padded row, which must change nothing.
    users, items, negatives = (jnp.asarray(np.append(x, x[0]), jnp.int32) for x in ids)
    mask = jnp.asarray(np.arange(len(users)) < len(users) - 1)
    batch = Batch(users, items, mask, negatives[:, None], jax.random.key(0))
    every = {"model": params, "losses": {name: {} for name in terms}}

    @full_jit
    def everything(every, inputs, batch):
        view = model.encode(every["model"], inputs)(NO_AUGMENTATION, batch.key)
        gradients = jax.value_and_grad(objective(model, terms), has_aux=True)(every, inputs, batch)
        return gradients, view.users(ALL), view.items(ALL)

    ((loss, _), gradients), user_rows, item_rows = everything(every, inputs, batch)
    assert distance(loss, arrays["loss"]) <= 1e-5
    assert distance(user_rows, arrays["user_embedding"]) <= 1e-5
    assert distance(item_rows, arrays["item_embedding"]) <= 1e-5
    assert_same_gradients(gradients["model"], tree(arrays, "grad:"))


@pytest.mark.parametrize("definition", routes("chains"))
@pytest.mark.parametrize("path", files("lightgcn*.npz"))
def test_lightgcn(path, definition):
    arrays = recorded(path)
    spec, inputs = problem(arrays, ())
    l2 = Term(float(arrays["reg_weight"]), losses.embedding_l2("layer0", "frobenius"))
    check(
        arrays, lightgcn(spec, definition=definition), {"bpr": Term(1.0, losses.bpr()), "l2": l2}, inputs, lightgcn_tree
    )


@pytest.mark.parametrize("path", files("vbpr*.npz"))
def test_vbpr(path):
    arrays = recorded(path)
    spec, inputs = problem(arrays, ("t", "v"))
    l2 = Term(float(arrays["reg_weight"]), losses.embedding_l2("view", "frobenius"))
    check(arrays, vbpr(spec), {"bpr": Term(1.0, losses.bpr()), "l2": l2}, inputs, vbpr_tree)


@pytest.mark.parametrize("definition", routes("halves"))
@pytest.mark.parametrize("path", files("mmgcn*.npz"))
def test_mmgcn(path, definition):
    arrays = recorded(path)
    spec, inputs = problem(arrays, ("v", "t"))
    latent_dim = arrays["param:v_preference"].shape[1]
    model = mmgcn(spec, projected=("v",), latent_dim=latent_dim, definition=definition)
    terms = {"bpr": Term(1.0, losses.bpr()), "l2": Term(float(arrays["reg_weight"]), table_l2(("v",)))}
    check(arrays, model, terms, inputs, mmgcn_tree)


@pytest.mark.parametrize("path", files("mmgcn*.npz"))
def test_mmgcn_with_frozen_tables(path):
    """The published code's tables are held beside the parameters: the rows are equal, and only weights are trained."""
    arrays = recorded(path)
    spec, inputs = problem(arrays, ("v", "t"))
    model = mmgcn(spec, tables="frozen", projected=("v",), latent_dim=arrays["param:v_preference"].shape[1])
    params = mmgcn_tree(arrays, "param:")
    tables = {name: params.pop(name) for name in ("identity", "preference")}
    assert jax.tree.structure(jax.eval_shape(model.init, jax.random.key(0))) == jax.tree.structure(params)
    inputs = jax.jit(model.prepare)(inputs)
    taken, drawn = inputs.cache
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, tables)
    inputs = inputs._replace(cache=(taken, tables))
    item_rows = full_jit(
        lambda params, inputs: model.encode(params, inputs)(NO_AUGMENTATION, jax.random.key(0)).items(ALL)
    )(params, inputs)
    assert distance(item_rows, arrays["item_embedding"]) <= 1e-5
