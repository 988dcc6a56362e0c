"""Parity of BM3 and MGCN, whose features are trained, with values of the published implementations."""

import jax.numpy as jnp
import pytest
from golden import files, problem, recorded
from test_golden_baselines import check, linear

from slmrec_jax.models.bm3 import bm3, bootstrap_agreement, table_norms
from slmrec_jax.models.mgcn import mgcn, side_agreement
from slmrec_jax.objectives import losses
from slmrec_jax.types import Term

RECORDED = {"v": ("visual", "image"), "t": ("text", "text")}
"""Our names of modalities, and the two names of each in the recorded values."""


def modalities(arrays, prefix):
    """Return the projections, and the trained features as differences from the given ones, or the gradients."""
    made = {}
    for name, (_, own) in RECORDED.items():
        trained = arrays[f"{prefix}{own}_embedding.weight"]
        change = trained - arrays[f"feature_{name}"] if prefix == "param:" else trained
        made[name] = {**linear(arrays, f"{prefix}{own}_trs"), "change": jnp.asarray(change)}
    return made


def bm3_tree(arrays, prefix):
    return {
        "user": jnp.asarray(arrays[f"{prefix}user_embedding.weight"]),
        "item": jnp.asarray(arrays[f"{prefix}item_id_embedding.weight"]),
        "predictor": linear(arrays, f"{prefix}predictor"),
        "modalities": modalities(arrays, prefix),
    }


@pytest.mark.parametrize("path", files("bm3*.npz"))
def test_bm3(path):
    arrays = recorded(path)
    spec, inputs = problem(arrays, tuple(RECORDED))
    masks = {"user": "user", "id": "item", **{name: own for name, (own, _) in RECORDED.items()}}

    def factors(key, name, shape):
        kept = arrays[f"dropout_{masks[name]}"]
        assert kept.shape == shape
        return jnp.where(kept, 1.0 / (1.0 - float(arrays["dropout"])), 0.0)

    terms = {
        "main": Term(1.0, bootstrap_agreement(float(arrays["cl_weight"]), factors=factors)),
        "norms": Term(float(arrays["reg_weight"]), table_norms()),
    }
    model = bm3(spec, num_layers=int(arrays["num_layers"]))
    check(arrays, model, terms, inputs, bm3_tree)


def mgcn_tree(arrays, prefix):
    gates = {"v": ("gate_v", "gate_image_prefer"), "t": ("gate_t", "gate_text_prefer")}
    return {
        "user": jnp.asarray(arrays[f"{prefix}user_embedding.weight"]),
        "item": jnp.asarray(arrays[f"{prefix}item_id_embedding.weight"]),
        "modalities": modalities(arrays, prefix),
        "gate": {name: linear(arrays, f"{prefix}{gate}.0") for name, (gate, _) in gates.items()},
        "prefer": {name: linear(arrays, f"{prefix}{prefer}.0") for name, (_, prefer) in gates.items()},
        "query": {
            "hidden": linear(arrays, f"{prefix}query_common.0"),
            "out": jnp.asarray(arrays[f"{prefix}query_common.2.weight"].T),
        },
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", files("mgcn*.npz"))
def test_mgcn(path):
    """The item graphs are ours, made from the recorded features."""
    arrays = recorded(path)
    spec, inputs = problem(arrays, tuple(RECORDED))
    model = mgcn(
        spec,
        num_layers=int(arrays["num_layers"]),
        item_layers=int(arrays["num_item_layers"]),
        neighbours=int(arrays["knn_k"]),
    )
    terms = {
        "bpr": Term(1.0, losses.bpr()),
        "contrast": Term(float(arrays["cl_weight"]), side_agreement(temperature=0.2)),
        "l2": Term(float(arrays["reg_weight"]), losses.embedding_l2("fused")),
    }
    check(arrays, model, terms, inputs, mgcn_tree)
