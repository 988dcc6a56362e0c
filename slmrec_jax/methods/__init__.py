"""How systems train. A system descends the losses of its recipe unless it has a method of its own here."""

from slmrec_jax.config import Config
from slmrec_jax.methods.gradient import gradient_method
from slmrec_jax.methods.optimizers import make_optimizer
from slmrec_jax.models import MODELS
from slmrec_jax.types import Method, Spec

__all__ = ["gradient_method", "make_method", "make_optimizer"]


def make_method(config: Config, spec: Spec) -> Method:
    """The method that a config asks for.

    Raises:
        UserError: the config and the data do not go together.
    """
    recipe = MODELS[config.model](config, spec)
    method = gradient_method(recipe.model, recipe.terms, make_optimizer(config.optimizer, recipe.weight_decay), spec)
    return method._replace(notes=recipe.notes)
