"""The recorded problems of SLMRec, as our model, losses, parameters and batch."""

import jax
import jax.numpy as jnp
from golden import problem, recorded

from slmrec_jax.models.slmrec import slmrec
from slmrec_jax.objectives import augmentations, losses
from slmrec_jax.types import Augmentation, Batch, Term

HEADS = {"v": ("g_i_iv", "g_v_iv"), "a": ("g_iv_iva", "g_a_iva"), "t": ("g_iva_ivat", "g_t_ivat")}
DRAWN = ("v", "a", "t", "id")
"""The channels that the published code's mask indices select."""


class Golden:
    """A recorded problem, with its arrays in our shapes."""

    def __init__(self, path):
        self.arrays = arrays = recorded(path)
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
        """Return the two views of the published run, with its masked modalities and its dropout masks."""
        arrays = self.arrays
        masks = [self.channels.index(DRAWN[int(arrays[name])]) for name in ("masked_1", "masked_2") if name in arrays]

        def view(place):
            # The published code takes layer 0 of a view from its own chain and all other layers from the other chain.
            modality = layer = None
            if masks:
                own, other = jnp.int32(masks[place]), jnp.int32(masks[1 - place])
                modality = lambda key, names: augmentations.masked(names, propagated=other, layer0=own)  # noqa: E731
            if "dropout_masks" in arrays:
                nodes = self.num_users + self.num_items
                shape = (len(self.channels), self.num_layers, 2, nodes, self.dim)
                of_view = jnp.asarray(arrays["dropout_masks"].reshape(shape)[:, :, 1 - place])
                share = 1.0 - float(arrays["dropout_rate"])

                def layer(key, site, x):
                    kept = of_view[self.channels.index(site.modality), site.layer - 1]
                    halves = {"users": kept[: self.num_users], "items": kept[self.num_users :]}
                    return jnp.where(halves[site.side], x / share, 0.0)

            return Augmentation(modality=modality, layer=layer)

        return view(0), view(1)

    def problem(self):
        arrays = self.arrays
        spec, inputs = problem(self.arrays, self.names)
        model = slmrec(spec, num_layers=self.num_layers, cached=self.names)
        temperature = float(arrays["ssl_temp"])
        ssl = losses.fine_and_coarse(temperature) if self.is_fac else losses.view_agreement(self.views(), temperature)
        terms = {
            "main": Term(1.0, losses.info_nce(float(arrays["temp"]))),
            "ssl": Term(float(arrays["ssl_alpha"]), ssl),
        }
        return model, terms, model.prepare(inputs)

    def batch(self):
        users, items = jnp.asarray(self.arrays["batch_user"]), jnp.asarray(self.arrays["batch_item"])
        size = users.shape[0]
        return Batch(users, items, jnp.ones(size, bool), jnp.zeros((size, 0), jnp.int32), jax.random.key(0))
