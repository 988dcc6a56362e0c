"""Parity of the systems with graphs between items with values of the published implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilers import full_jit
from golden import assert_same_gradients, distance, files, problem, recorded

from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.methods.gradient import objective
from slmrec_jax.models.freedom import content_bpr, freedom
from slmrec_jax.models.lattice import lattice, learned_graph
from slmrec_jax.objectives import losses
from slmrec_jax.types import ALL, NO_AUGMENTATION, Augmentation, Batch, Interactions, Term

PREFIX = {"v": "image", "t": "text"}


def batch_of(arrays):
    """Return the recorded batch with a padded row, which must change nothing."""
    ids = (arrays[f"batch_{name}"] for name in ("user", "pos", "neg"))
    users, items, negatives = (jnp.asarray(np.append(x, x[0]), jnp.int32) for x in ids)
    mask = jnp.asarray(np.arange(len(users)) < len(users) - 1)
    return Batch(users, items, mask, negatives[:, None], jax.random.key(0))


def modality(arrays, kind, name):
    """Return the parameters of a modality, or their gradients; features are the given ones plus a change."""
    prefix = f"{kind}:{PREFIX[name]}"
    change = arrays[f"{prefix}_embedding.weight"] - (arrays[f"feature_{name}"] if kind == "param" else 0)
    return {
        "kernel": jnp.asarray(arrays[f"{prefix}_trs.weight"].T),
        "bias": jnp.asarray(arrays[f"{prefix}_trs.bias"]),
        "change": jnp.asarray(change),
    }


def freedom_tree(arrays, kind):
    return {
        "user": jnp.asarray(arrays[f"{kind}:user_embedding.weight"]),
        "item": jnp.asarray(arrays[f"{kind}:item_id_embedding.weight"]),
        "projection": {},
        "words": {},
        "modalities": {name: modality(arrays, kind, name) for name in ("v", "t")},
    }


@pytest.mark.parametrize("path", files("freedom*.npz"))
def test_freedom(path):
    """On the recorded pruned graph in training, and on the whole graph in ranking."""
    arrays = recorded(path)
    spec, inputs = problem(arrays, ("v", "t"))
    share = float(arrays["image_weight"])
    model = freedom(
        spec,
        num_layers=int(arrays["num_layers"]),
        item_layers=int(arrays["num_item_layers"]),
        neighbours=int(arrays["knn_k"]),
        weights={"v": share, "t": 1 - share},
    )
    kept = Interactions(*(arrays[f"edges_{side}"][arrays["kept_edges"]] for side in ("user", "item")))
    pruned = build_graph(kept, spec.num_users, spec.num_items)
    pruning = Augmentation(edges=lambda key, graph, num_layers: [pruned] * num_layers)
    terms = {"bpr": Term(1.0, losses.bpr()), "content": Term(float(arrays["reg_weight"]), content_bpr())}
    every = {"model": freedom_tree(arrays, "param"), "losses": {name: {} for name in terms}}
    inputs = jax.jit(model.prepare)(inputs)
    graph = np.zeros((spec.num_items, spec.num_items), np.float32)
    graph[arrays["item_graph_rows"], arrays["item_graph_columns"]] = arrays["item_graph_values"]
    assert distance(matmul(inputs.cache.graph.arrays, jnp.eye(spec.num_items)), graph) <= 1e-6

    @full_jit
    def everything(every, inputs, batch):
        encode = model.encode(every["model"], inputs)
        rows = [
            (view.users(ALL), view.items(ALL)) for view in (encode(a, batch.key) for a in (NO_AUGMENTATION, pruning))
        ]
        return jax.value_and_grad(objective(model, terms, pruning), has_aux=True)(every, inputs, batch), rows

    ((loss, _), gradients), (ranking, training) = everything(every, inputs, batch_of(arrays))
    assert distance(loss, arrays["loss"]) <= 1e-5
    for rows, prefix in ((ranking, ""), (training, "train_")):
        for side, ours in zip(("user", "item"), rows, strict=True):
            assert distance(ours, arrays[f"{prefix}{side}_embedding"]) <= 1e-5
    assert_same_gradients(gradients["model"], freedom_tree(arrays, "grad"))


def lattice_tree(arrays, kind):
    return {
        "user": jnp.asarray(arrays[f"{kind}:user_embedding.weight"]),
        "item": jnp.asarray(arrays[f"{kind}:item_id_embedding.weight"]),
        "weights": jnp.asarray(arrays[f"{kind}:modal_weight"]),
        "modalities": {name: modality(arrays, kind, name) for name in ("v", "t")},
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", files("lattice*.npz"))
def test_lattice(path):
    """In the first step of an epoch, where the learned graph has a gradient."""
    arrays = recorded(path)
    spec, inputs = problem(arrays, ("v", "t"))
    neighbours, original_share = int(arrays["knn_k"]), float(arrays["lambda_coeff"])
    model = lattice(
        spec,
        num_layers=int(arrays["num_layers"]),
        item_layers=int(arrays["num_item_layers"]),
        neighbours=neighbours,
        original_share=original_share,
    )
    l2 = Term(float(arrays["reg_weight"]), losses.embedding_l2("view"))
    terms = {"bpr": Term(1.0, losses.bpr()), "l2": l2}
    every = {"model": lattice_tree(arrays, "param"), "losses": {name: {} for name in terms}}
    inputs = jax.jit(model.prepare)(inputs)

    @full_jit
    def everything(every, inputs, batch):
        graph = learned_graph(spec, neighbours=neighbours, original_share=original_share)(every["model"], inputs.cache)
        view = model.encode(every["model"], inputs)(NO_AUGMENTATION, batch.key)
        gradients = jax.value_and_grad(objective(model, terms), has_aux=True)(every, inputs, batch)
        return gradients, matmul(graph, jnp.eye(spec.num_items)), view.users(ALL), view.items(ALL)

    ((loss, _), gradients), graph, user_rows, item_rows = everything(every, inputs, batch_of(arrays))
    assert distance(loss, arrays["loss"]) <= 1e-5
    assert distance(graph, arrays["item_graph"]) <= 1e-5
    assert distance(user_rows, arrays["user_embedding"]) <= 1e-5
    assert distance(item_rows, arrays["item_embedding"]) <= 1e-5
    assert_same_gradients(gradients["model"], lattice_tree(arrays, "grad"))
