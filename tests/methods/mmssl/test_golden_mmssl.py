"""Parity with values of the published MMSSL, in its evaluation mode: no dropout, running batch statistics."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilers import full_jit
from golden import distance, files, problem, recorded

from slmrec_jax.config import Config, with_settings, with_system
from slmrec_jax.methods.mmssl.discriminator import discriminator, gradient_penalty
from slmrec_jax.methods.mmssl.game import suggested_rows
from slmrec_jax.methods.mmssl.graphs import Edges, bipartite, interaction_rows
from slmrec_jax.methods.mmssl.method import recommendation_terms, weighted
from slmrec_jax.methods.mmssl.recommender import Encoded, mmssl, no_dropout
from slmrec_jax.types import Batch

pytestmark = pytest.mark.slow

NAMES = ("image", "text")


class Golden:
    """A recorded problem, with its arrays in our shapes."""

    def __init__(self, path):
        self.arrays = arrays = recorded(path)
        self.num_users, self.num_items = int(arrays["num_users"]), int(arrays["num_items"])
        self.dim = arrays["user_embedding"].shape[1]
        self.heads = int(arrays["head_num"])
        settings = {
            "mmssl.heads": self.heads,
            "mmssl.view_weight": float(arrays["id_cat_rate"]),
            "mmssl.feature_weight": float(arrays["model_cat_rate"]),
            "mmssl.contrast_weight": float(arrays["cl_rate"]),
            "mmssl.contrast_temperature": float(arrays["tau"]),
            "mmssl.adversarial_weight": float(arrays["G_rate"]),
            "mmssl.l2": float(arrays["decay"]),
            "mmssl.feature_l2": float(arrays["feat_reg_decay"]),
        }
        self.options = with_settings(with_system(Config(), "mmssl:published"), settings).mmssl

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

    def batch(self):
        users, items, negatives = (jnp.asarray(self.arrays[f"batch_{n}"], jnp.int32) for n in ("user", "pos", "neg"))
        return Batch(users, items, jnp.ones(users.shape, bool), negatives[:, None], jax.random.key(0))

    def score(self):
        """Return D with the running statistics and without dropout."""
        arrays, hidden, running = self.arrays, [], []
        for linear, norm in ((0, 2), (4, 6)):
            # Without an activation, batch norm cancels this bias in training, and its gradient is always 0.
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


class Case(NamedTuple):
    """A recorded problem, and everything that one compiled program computes of it."""

    golden: Golden
    encoded: Encoded
    loss: jax.Array
    terms: dict
    rows: jax.Array
    """The suggested rows, that is similarity rows, of both modalities."""
    scores: jax.Array
    gradients: dict
    penalty: jax.Array


@pytest.fixture(scope="module", params=files("mmssl*.npz"))
def case(request):
    golden = Golden(request.param)
    spec, given = problem(golden.arrays, NAMES)
    model, batch, score = mmssl(spec, golden.options), golden.batch(), golden.score()

    @full_jit
    def everything(params, given, share, real_rows):
        inputs, graphs = model.prepare(given), {name: golden.graph_of(name) for name in NAMES}
        unseen = 1.0 - interaction_rows(inputs.graph, batch.users)

        def objective(params):
            encoded = model.encode(params, inputs, graphs, no_dropout)
            rows = suggested_rows(encoded, batch.users, unseen, "dot")
            scores = score(rows)
            terms = recommendation_terms(encoded, batch, golden.options.contrast_temperature)
            terms |= {"generator": -jnp.mean(scores)}
            return weighted(terms, golden.options), (encoded, terms, rows, scores)

        (loss, (encoded, terms, rows, scores)), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        mixed = share * real_rows + (1.0 - share) * rows
        penalty = gradient_penalty(score, mixed, jnp.ones(mixed.shape[0], bool))
        return encoded, loss, terms, rows, scores, gradients, penalty

    found = everything(golden.tree("param:"), given, golden.arrays["penalty_alpha"], golden.arrays["penalty_real"])
    return Case(golden, *found)


def test_the_pass(case):
    encoded, golden = case.encoded, case.golden
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


def test_losses_and_gradients(case):
    arrays, options, terms = case.golden.arrays, case.golden.options, case.terms
    for name, ours in (
        ("mf_loss", terms["bpr"]),
        ("emb_loss", options.l2 * terms["l2"]),
        ("feat_reg_loss", options.feature_l2 * terms["feature_l2"]),
        ("contrastive_loss", terms["contrast"]),
        ("generator_loss", terms["generator"]),
        ("loss", case.loss),
    ):
        assert distance(ours, arrays[name]) <= 1e-5, name
    for name, ours in zip(NAMES, np.split(np.asarray(case.rows), 2), strict=True):
        assert distance(ours, arrays[f"{name}_user_similarity"]) <= 1e-5, name
    assert distance(case.scores, arrays["discriminator_score"]) <= 1e-5

    ours, theirs = (jax.tree_util.tree_leaves_with_path(of) for of in (case.gradients, case.golden.tree("grad:")))
    for (place, found), (_, reference) in zip(ours, theirs, strict=True):
        assert distance(found, reference) <= 1e-4, place


def test_the_gradient_penalty(case):
    arrays = case.golden.arrays
    assert distance(float(arrays["gp_lambda"]) * case.penalty, arrays["gradient_penalty"]) <= 1e-5
