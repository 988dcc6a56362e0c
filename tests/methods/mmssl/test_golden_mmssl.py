"""Parity with values of the published MMSSL, in its evaluation mode: no dropout, running batch statistics."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilers import full_jit

from slmrec_jax.config import Config, with_settings, with_system
from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.methods.mmssl.discriminator import discriminator, gradient_penalty
from slmrec_jax.methods.mmssl.game import suggested_rows
from slmrec_jax.methods.mmssl.graphs import Edges, bipartite, interaction_rows
from slmrec_jax.methods.mmssl.method import recommendation_terms, weighted
from slmrec_jax.methods.mmssl.recommender import mmssl, no_dropout
from slmrec_jax.types import Batch, DenseFeature, Inputs, Interactions, Modality, Spec

GOLDEN = Path(os.environ.get("SLMREC_GOLDEN", Path(__file__).parents[4] / "shared" / "golden"))
NAMES = ("image", "text")


def files(pattern):
    found = sorted(GOLDEN.glob(pattern))
    missing = pytest.param(None, marks=pytest.mark.skip(reason=f"no {pattern} in {GOLDEN} (SLMREC_GOLDEN)"))
    return [pytest.param(path, id=path.stem) for path in found] or [missing]


class Golden:
    """One file, with its arrays in our shapes."""

    def __init__(self, path):
        self.arrays = arrays = dict(np.load(path, allow_pickle=False))
        self.num_users, self.num_items = int(arrays["num_users"]), int(arrays["num_items"])
        self.dim = arrays["user_embedding"].shape[1]
        self.heads = int(arrays["head_num"])
        recorded = {
            "mmssl.heads": self.heads,
            "mmssl.view_weight": float(arrays["id_cat_rate"]),
            "mmssl.feature_weight": float(arrays["model_cat_rate"]),
            "mmssl.contrast_weight": float(arrays["cl_rate"]),
            "mmssl.contrast_temperature": float(arrays["tau"]),
            "mmssl.adversarial_weight": float(arrays["G_rate"]),
            "mmssl.l2": float(arrays["decay"]),
            "mmssl.feature_l2": float(arrays["feat_reg_decay"]),
        }
        self.options = with_settings(with_system(Config(), "mmssl:published"), recorded).mmssl

    def tree(self, prefix):
        def of(name):
            return jnp.asarray(self.arrays[prefix + name])

        return {
            "user": of("user_id_embedding.weight"),
            "item": of("item_id_embedding.weight"),
            "projection": {n: {"kernel": of(f"{n}_trans.weight").T, "bias": of(f"{n}_trans.bias")} for n in NAMES},
            "attention": {
                "heads": of("weight_dict.w_self_attention_cat").reshape(self.heads, self.dim, self.dim),
            },
        }

    def graph_of(self, name):
        users, items = (jnp.asarray(self.arrays[f"{name}_graph_{side}"]) for side in ("user", "item"))
        edges = Edges(users.astype(jnp.int32), items.astype(jnp.int32), jnp.ones(users.shape))
        return bipartite(edges, self.num_users, self.num_items)

    def problem(self):
        arrays = self.arrays
        features = {n: DenseFeature(jnp.asarray(arrays[f"feature_{n}"]), jnp.ones(self.num_items)) for n in NAMES}
        modalities = {name: Modality(feature.values.shape[1]) for name, feature in features.items()}
        spec = Spec(self.num_users, self.num_items, len(arrays["edges_user"]), self.dim, modalities)
        train = Interactions(*(arrays[f"edges_{side}"].astype(np.int32) for side in ("user", "item")))
        model = mmssl(spec, self.options)
        inputs = Inputs(build_graph(train, self.num_users, self.num_items), features)
        return model, model.prepare(inputs)

    def batch(self):
        users, items, negatives = (jnp.asarray(self.arrays[f"batch_{n}"], jnp.int32) for n in ("user", "pos", "neg"))
        return Batch(users, items, jnp.ones(users.shape, bool), negatives[:, None], jax.random.key(0))

    def score(self):
        """D with the running statistics and without dropout."""
        arrays, hidden, running = self.arrays, [], []
        for linear, norm in ((0, 2), (4, 6)):
            # Without activation the batch statistics swallow this bias in training, and no gradient ever moves it.
            assert not np.any(arrays[f"disc:net.{linear}.bias"])
            scale, shift, mean, variance = (
                jnp.asarray(arrays[f"disc:net.{norm}.{name}"])
                for name in ("weight", "bias", "running_mean", "running_var")
            )
            kernel = jnp.asarray(arrays[f"disc:net.{linear}.weight"]).T
            hidden.append({"kernel": kernel, "scale": scale, "shift": shift})
            running.append((mean, variance))
        output = {"kernel": jnp.asarray(arrays["disc:net.8.weight"]).T, "bias": jnp.asarray(arrays["disc:net.8.bias"])}
        widths = tuple(layer["kernel"].shape[1] for layer in hidden)
        assert widths == (self.num_items // 4, self.num_items // 8)
        net = discriminator(self.num_items, widths, activation="identity", output="sigmoid")

        def standardize(layer, x):
            mean, variance = running[layer]
            return (x - mean[None, :]) * jax.lax.rsqrt(variance[None, :] + 1e-5)

        params = {"hidden": hidden, "output": output}
        return lambda rows: net.apply(params, rows, standardize, lambda layer, x: x)


def distance(ours, theirs):
    return np.max(np.abs(np.asarray(ours) - theirs)) / np.max(np.abs(theirs))


@pytest.fixture(params=files("mmssl*.npz"))
def golden(request):
    return Golden(request.param)


def test_the_pass(golden):
    model, inputs = golden.problem()
    encoded = model.encode(golden.tree("param:"), inputs, {name: golden.graph_of(name) for name in NAMES}, no_dropout)
    found = {"user_embedding": encoded.users, "item_embedding": encoded.items}
    for name in NAMES:
        found |= {
            f"{name}_user_feats": encoded.user_features[name],
            f"{name}_item_feats": encoded.item_features[name],
            f"{name}_user_id": encoded.user_views[name],
            f"{name}_item_id": encoded.item_views[name],
        }
    for name, ours in found.items():
        assert distance(ours, golden.arrays[name]) <= 1e-5, name


def test_losses_and_gradients(golden):
    (model, inputs), arrays, options = golden.problem(), golden.arrays, golden.options
    graphs, batch, score = {name: golden.graph_of(name) for name in NAMES}, golden.batch(), golden.score()
    unseen = 1.0 - interaction_rows(inputs.graph, batch.users)

    def objective(params):
        encoded = model.encode(params, inputs, graphs, no_dropout)
        rows = suggested_rows(encoded, batch.users, unseen, "dot")
        scores = score(rows)
        terms = recommendation_terms(encoded, batch, options.contrast_temperature) | {"generator": -jnp.mean(scores)}
        return weighted(terms, options), (terms, rows, scores)

    (loss, (terms, rows, scores)), gradients = full_jit(jax.value_and_grad(objective, has_aux=True))(
        golden.tree("param:")
    )
    for name, ours in (
        ("mf_loss", terms["bpr"]),
        ("emb_loss", options.l2 * terms["l2"]),
        ("feat_reg_loss", options.feature_l2 * terms["feature_l2"]),
        ("contrastive_loss", terms["contrast"]),
        ("generator_loss", terms["generator"]),
        ("loss", loss),
    ):
        assert distance(ours, arrays[name]) <= 1e-5, name
    for name, ours in zip(NAMES, jnp.split(rows, 2), strict=True):
        assert distance(ours, arrays[f"{name}_user_similarity"]) <= 1e-5, name
    assert distance(scores, arrays["discriminator_score"]) <= 1e-5

    theirs = jax.tree_util.tree_leaves_with_path(golden.tree("grad:"))
    for (place, ours), (_, reference) in zip(jax.tree_util.tree_leaves_with_path(gradients), theirs, strict=True):
        assert distance(ours, reference) <= 1e-4, place


def test_the_gradient_penalty(golden):
    (model, inputs), arrays, batch = golden.problem(), golden.arrays, golden.batch()
    encoded = model.encode(golden.tree("param:"), inputs, {name: golden.graph_of(name) for name in NAMES}, no_dropout)
    suggested = suggested_rows(encoded, batch.users, 1.0 - interaction_rows(inputs.graph, batch.users), "dot")
    mixed = arrays["penalty_alpha"] * arrays["penalty_real"] + (1.0 - arrays["penalty_alpha"]) * suggested
    penalty = full_jit(lambda rows: gradient_penalty(golden.score(), rows, jnp.ones(rows.shape[0], bool)))(mixed)
    assert distance(float(arrays["gp_lambda"]) * penalty, arrays["gradient_penalty"]) <= 1e-5
