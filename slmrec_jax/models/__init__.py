"""The systems by name: each is an encoder and the losses it is trained with, made from a config."""

from collections.abc import Callable, Mapping

from slmrec_jax.config import BASE, Config
from slmrec_jax.errors import UserError, check_choice, setting
from slmrec_jax.models.bm3 import bm3_recipe
from slmrec_jax.models.freedom import freedom_recipe
from slmrec_jax.models.lightgcn import lightgcn_recipe
from slmrec_jax.models.mf import mf_recipe
from slmrec_jax.models.mgcn import mgcn_recipe
from slmrec_jax.models.mmgcn import mmgcn_recipe
from slmrec_jax.models.recipe import Recipe
from slmrec_jax.models.sgl import sgl_recipe
from slmrec_jax.models.simgcl import simgcl_recipe
from slmrec_jax.models.slmrec_recipe import slmrec_recipe
from slmrec_jax.models.vbpr import vbpr_recipe
from slmrec_jax.types import Spec

__all__ = ["RECIPES", "Recipe", "make_recipe", "slmrec_recipe"]

RECIPES: Mapping[str, Callable[[Config, Spec], Recipe]] = {
    # Only its own terms are trained, and all tasks except FAC make augmented views.
    "slmrec": lambda config, spec: slmrec_recipe(config, spec, augmented=bool(config.tasks - {"fac"})),
    "bm3": bm3_recipe,
    "freedom": freedom_recipe,
    "mf": mf_recipe,
    "lightgcn": lightgcn_recipe,
    "vbpr": vbpr_recipe,
    "mgcn": mgcn_recipe,
    "mmgcn": mmgcn_recipe,
    "sgl": sgl_recipe,
    "simgcl": simgcl_recipe,
}
"""The recipes of the systems that are trained by gradient descent on their losses."""


def make_recipe(config: Config, spec: Spec) -> Recipe:
    """Return the model, the weighted losses and the augmentation of the system that the config names.

    For a method of your own, pass on all of them: `gradient_method(recipe.model, recipe.terms, optimizer, spec,
    recipe.augmentation)`. Without its augmentation, FREEDOM trains on the whole graph.

    Args:
        config: Every choice; `config.model` names the system.
        spec: The sizes of the data.

    Raises:
        UserError: A step of the system does not minimise one function (LATTICE, MMSSL), or the data lack what it needs.
    """
    check_choice("model", config.model, BASE)
    if config.model not in RECIPES:
        raise UserError(
            f"{setting('model', config.model)} does not minimise one function, so it has no recipe; choose one of "
            f"{', '.join(RECIPES)}"
        )
    return RECIPES[config.model](config, spec)
