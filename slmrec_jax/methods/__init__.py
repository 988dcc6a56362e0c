"""Training methods of the systems: gradient descent on the losses of a recipe, or a custom method (LATTICE, MMSSL)."""

from collections.abc import Callable, Mapping
from functools import partial

from slmrec_jax.config import Config, with_defaults
from slmrec_jax.errors import check_choice
from slmrec_jax.methods.gradient import gradient_method
from slmrec_jax.methods.lattice import lattice_method
from slmrec_jax.methods.mmssl.method import mmssl_method
from slmrec_jax.methods.optimizers import make_optimizer
from slmrec_jax.models import RECIPES, Recipe
from slmrec_jax.types import Method, Spec

__all__ = ["METHODS", "gradient_method", "make_method", "make_optimizer"]


def make_method(config: Config, spec: Spec) -> Method:
    """Make the training method that a config specifies.

    Args:
        config: The complete configuration; `config.model` names the system.
        spec: The sizes of the data.

    Raises:
        UserError: There is no such model, or the config does not fit the data.
    """
    check_choice("model", config.model, METHODS)
    return METHODS[config.model](with_defaults(config), spec)


def descend(make_recipe: Callable[[Config, Spec], Recipe], config: Config, spec: Spec) -> Method:
    """Make the method that minimises a recipe's losses with the config's optimizer."""
    recipe = make_recipe(config, spec)
    optimizer = make_optimizer(config.optimizer)
    method = gradient_method(recipe.model, recipe.terms, optimizer, spec, recipe.augmentation)
    return method._replace(notes=recipe.notes, work=recipe.work)


METHODS: Mapping[str, Callable[[Config, Spec], Method]] = {
    **{name: partial(descend, recipe) for name, recipe in RECIPES.items()},
    "lattice": lattice_method,
    "mmssl": mmssl_method,
}
"""The methods by model name."""
