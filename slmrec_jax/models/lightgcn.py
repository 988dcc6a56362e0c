"""LightGCN (He et al., SIGIR 2020), on ids alone or with modalities."""

from typing import Literal

import jax
from jaxtyping import Array, Key

from slmrec_jax.models.slmrec import slmrec
from slmrec_jax.types import Model, Params, Spec


def lightgcn(
    spec: Spec, *, num_layers: int = 3, init: Literal["normal", "xavier"] = "normal", definition: bool = False
) -> Model:
    """Return Z = M_L [E_u; E_i], SLMRec's encoder without modalities; those of the spec are not used.

    `init` is normal with standard deviation 0.1, which the authors' PyTorch code finds better than the paper's
    Xavier-uniform tables. `definition` propagates by segment sum over the whole graph, for comparison.
    """
    encoder = slmrec(spec._replace(modalities={}), num_layers=num_layers, fusion="sum", definition=definition)
    if init == "xavier":
        return encoder

    def normal(key: Key[Array, ""]) -> Params:
        user_key, item_key = jax.random.split(key)
        tables = {
            "user": 0.1 * jax.random.normal(user_key, (spec.num_users, spec.dim)),
            "item": 0.1 * jax.random.normal(item_key, (spec.num_items, spec.dim)),
        }
        return encoder.init(key) | tables

    return encoder._replace(init=normal)
