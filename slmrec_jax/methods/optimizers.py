"""Optimizers from a config: Adam with coupled weight decay, or a chain of optax transformations given as text."""

import ast
from typing import Any

import jax
import jax.numpy as jnp
import optax

from slmrec_jax.config import OptimizerConfig
from slmrec_jax.errors import UserError, one_line, setting


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Make the optimizer that a config specifies.

    Without a chain, it is Adam with PyTorch's weight decay, as in the published code: unlike in AdamW, the decay term
    of every parameter is added to the gradient *before* the moments are updated. The default learning rate is 1e-3, the
    default decay 0.

    Args:
        config: The `optimizer` section of a config.

    Raises:
        UserError: The chain cannot be parsed, uses something other than optax, or needs more than gradients and
            parameters.
    """
    if not config.chain:
        rate = 1e-3 if config.learning_rate is None else config.learning_rate
        return optax.chain(optax.add_decayed_weights(config.weight_decay or 0.0), optax.adam(rate))
    optimizer = optax.chain(*(_transformation(text) for text in config.chain))
    try:
        jax.eval_shape(lambda x: optimizer.update(x, optimizer.init(x), x), jnp.zeros(1))
    except Exception as error:
        raise UserError(
            f"{setting('optimizer.chain')} {' '.join(config.chain)!r} cannot take a step: {one_line(error)}"
        ) from None
    return optimizer


def _transformation(text: str) -> optax.GradientTransformation:
    where = f"{setting('optimizer.chain')} {text!r}"
    try:
        made = _literal_or_call(ast.parse(text, mode="eval").body)
    except SyntaxError:
        raise UserError(f"{where} is not readable: write it like 'adam(1e-3)'") from None
    except Exception as error:  # a function of optax may raise anything
        raise UserError(f"{where}: {one_line(error)}") from None
    if not isinstance(made, optax.GradientTransformation):
        raise UserError(f"{where} is not a gradient transformation of optax")
    return made


def _literal_or_call(node: ast.expr) -> Any:
    """Evaluate a literal, or a call of a public optax function with such arguments. Nothing else is ever called.

    Raises:
        ValueError: The expression is anything else.
    """
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise ValueError(f"{ast.unparse(node)!r} is not a literal or a call: write it like 'adam(1e-3)'") from None
    function = getattr(optax, node.func.id, None) if isinstance(node.func, ast.Name) else None
    if not callable(function) or node.func.id.startswith("_"):  # type: ignore[attr-defined]
        raise ValueError(f"optax has no function {ast.unparse(node.func)!r}")
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("write each argument out")
    return function(
        *map(_literal_or_call, node.args),
        **{str(keyword.arg): _literal_or_call(keyword.value) for keyword in node.keywords},
    )
