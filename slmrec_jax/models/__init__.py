"""The systems by name: each an encoder and the losses it trains with, made from a config."""

from slmrec_jax.models.recipes import (
    RECIPES,
    Recipe,
    lightgcn_recipe,
    mf_recipe,
    mmgcn_recipe,
    slmrec_recipe,
    vbpr_recipe,
)

__all__ = [
    "RECIPES",
    "Recipe",
    "lightgcn_recipe",
    "mf_recipe",
    "mmgcn_recipe",
    "slmrec_recipe",
    "vbpr_recipe",
]
