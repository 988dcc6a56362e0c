"""Parity with values of the published implementations, on every file of the folder that matches."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax import augmentations, losses
from slmrec_jax.graph import build_graph
from slmrec_jax.methods.gradient import objective
from slmrec_jax.models.slmrec import slmrec
from slmrec_jax.types import (
    ALL,
    NO_AUGMENTATION,
    Augmentation,
    Batch,
    DenseFeature,
    Inputs,
    Interactions,
    Modality,
    Spec,
    Term,
)

GOLDEN = Path(os.environ.get("SLMREC_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
HEADS = {"v": ("g_i_iv", "g_v_iv"), "a": ("g_iv_iva", "g_a_iva"), "t": ("g_iva_ivat", "g_t_ivat")}
DRAWN = ("v", "a", "t", "id")
"""What the published code's mask indices mean."""


def files(pattern):
    found = sorted(GOLDEN.glob(pattern))
    missing = pytest.param(None, marks=pytest.mark.skip(reason=f"no {pattern} in {GOLDEN} (SLMREC_GOLDEN)"))
    return [pytest.param(path, id=path.stem) for path in found] or [missing]


class Golden:
    """One file, with its arrays in our shapes."""

    def __init__(self, path):
        self.arrays = arrays = np.load(path, allow_pickle=False)
        self.names = tuple(name for name in HEADS if f"feature_{name}" in arrays)
        self.channels = ("id", *self.names)
        self.is_fac = "masked_1" not in arrays and "dropout_masks" not in arrays
        self.num_users, self.num_items, self.dim, self.num_layers = (
            int(arrays[name]) for name in ("num_users", "num_items", "dim", "num_layers")
        )

    def tree(self, prefix):
        def linear(name):
            arrays = self.arrays[f"{prefix}{name}.weight"], self.arrays[f"{prefix}{name}.bias"]
            return {"kernel": jnp.asarray(arrays[0].T), "bias": jnp.asarray(arrays[1])}

        heads = {}
        if self.is_fac:
            heads = {n: {"id": linear(HEADS[n][0]), "modality": linear(HEADS[n][1])} for n in self.names}
        model = {
            "user": jnp.asarray(self.arrays[prefix + "embedding_user.weight"]),
            "item": jnp.asarray(self.arrays[prefix + "embedding_item.weight"]),
            "projection": {name: linear(f"{name}_dense") for name in self.names},
            "words": {},
            "fusion_user": linear("embedding_user_after_GCN"),
            "fusion_item": linear("embedding_item_after_GCN"),
        }
        return {"model": model, "losses": {"main": {}, "ssl": heads}}

    def views(self):
        """The two views of the published run: its masked modalities and its dropout masks."""
        arrays = self.arrays
        masks = [self.channels.index(DRAWN[int(arrays[name])]) for name in ("masked_1", "masked_2") if name in arrays]

        def view(place):
            # That code takes layer 0 of a view from its own chain, and all other layers from the other chain.
            modality = layer = None
            if masks:
                own, other = jnp.int32(masks[place]), jnp.int32(masks[1 - place])
                modality = lambda key, names: augmentations.masked(names, propagated=other, layer0=own)  # noqa: E731
            if "dropout_masks" in arrays:
                nodes = self.num_users + self.num_items
                shape = (len(self.channels), self.num_layers, 2, nodes, self.dim)
                kept = jnp.asarray(arrays["dropout_masks"].reshape(shape)[:, :, 1 - place].transpose(1, 2, 0, 3))
                share = 1.0 - float(arrays["dropout_rate"])
                layer = lambda key, index, x: jnp.where(kept[index - 1], x / share, 0.0)  # noqa: E731
            return Augmentation(modality=modality, layer=layer)

        return view(0), view(1)

    def problem(self, definition):
        arrays = self.arrays
        features = {
            name: DenseFeature(jnp.asarray(arrays[f"feature_{name}"]), jnp.ones(self.num_items)) for name in self.names
        }
        modalities = {name: Modality(feature.values.shape[1]) for name, feature in features.items()}
        spec = Spec(self.num_users, self.num_items, len(arrays["edges_user"]), self.dim, modalities)
        graph = build_graph(Interactions(arrays["edges_user"], arrays["edges_item"]), self.num_users, self.num_items)
        cached = () if definition else self.names
        model = slmrec(spec, num_layers=self.num_layers, cached=cached, definition=definition)
        temperature = float(arrays["ssl_temp"])
        ssl = losses.fine_and_coarse(temperature) if self.is_fac else losses.view_agreement(self.views(), temperature)
        terms = {
            "main": Term(1.0, losses.info_nce(float(arrays["temp"]))),
            "ssl": Term(float(arrays["ssl_alpha"]), ssl),
        }
        return model, terms, model.prepare(Inputs(graph, features))

    def batch(self):
        users, items = jnp.asarray(self.arrays["batch_user"]), jnp.asarray(self.arrays["batch_item"])
        size = users.shape[0]
        return Batch(users, items, jnp.ones(size, bool), jnp.zeros((size, 0), jnp.int32), jax.random.key(0))


def distance(ours, theirs):
    return np.max(np.abs(np.asarray(ours) - theirs)) / np.max(np.abs(theirs))


@pytest.mark.parametrize("path", files("slmrec_*.npz"))
@pytest.mark.parametrize("definition", [False, True], ids=["chains", "definition"])
def test_slmrec(path, definition):
    golden = Golden(path)
    model, terms, inputs = golden.problem(definition)
    params, batch = golden.tree("param:"), golden.batch()
    (loss, metrics), gradients = jax.jit(jax.value_and_grad(objective(model, terms), has_aux=True))(
        params, inputs, batch
    )
    for name, ours in (("loss", loss), ("main_loss", metrics["main"]), ("ssl_loss", metrics["ssl"])):
        assert distance(ours, golden.arrays[name]) <= 1e-5, name

    view = model.encode(params["model"], inputs)(NO_AUGMENTATION, batch.key)
    embeddings = {"user_embedding": view.users(ALL), "item_embedding": view.items(ALL)}
    for channel in golden.channels:
        halves = view.user_modalities[channel](ALL), view.item_modalities[channel](ALL)
        embeddings[f"propagated_{channel[0]}"] = np.concatenate(halves)
    for name, ours in embeddings.items():
        assert distance(ours, golden.arrays[name]) <= 1e-5, name

    theirs = golden.tree("grad:")
    largest = max(np.abs(x).max() for x in jax.tree.leaves(theirs))
    for (place, ours), (_, reference) in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree_util.tree_leaves_with_path(theirs), strict=True
    ):
        # The bias of a FAC head on the modality's side moves all scores of a row alike: its gradient is 0 but for
        # rounding, here and there, and has no scale of its own.
        scale = max(np.abs(reference).max(), 1e-6 * largest)
        assert np.abs(ours - reference).max() / scale <= (1e-4 if scale > 1e-6 * largest else 1.0), place
