"""Checks of a config: each field against its annotation, and rules that relate two fields."""

import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

from slmrec_jax.config.config import Config
from slmrec_jax.errors import UserError, check_type, setting, shown
from slmrec_jax.forms import fault, field_names, outside, words

GRAPH_TASKS = frozenset({"ed", "nd", "rw"})
"""The self-supervised tasks that augment the graph."""


def check_config(config: Config) -> None:
    """Reject values of a wrong type, out of range or in conflict. A `UserError` names the first one and the fix."""
    check_type("config", config, Config, "a slmrec_jax.Config")
    check_fields(config)
    _check_tasks(config)
    _check_layers(config)


def _check_tasks(config: Config) -> None:
    graph_tasks = config.tasks & GRAPH_TASKS
    if len(graph_tasks) > 1:
        raise UserError(
            f"{setting('task', config.task)} has {len(graph_tasks)} augmentations of the graph: keep one of "
            f"{', '.join(sorted(graph_tasks))}"
        )
    if config.tasks >= {"fd", "fm"} and config.slmrec.fd_mode == "input" and config.slmrec.fm_granularity == "item":
        raise UserError(
            f"{setting('task', config.task)} cannot both drop and mask the items' input: use "
            f"{setting('slmrec.fd_mode', 'layer')} or {setting('slmrec.fm_granularity', 'batch')}"
        )


def _check_layers(config: Config) -> None:
    """Reject zero layers for views that differ only in graphs or layers, since they would silently be equal."""
    by_layers = config.model in ("sgl", "simgcl")
    if config.model == "slmrec":
        by_layers = bool(config.tasks & GRAPH_TASKS) or ("fd" in config.tasks and config.slmrec.fd_mode == "layer")
    if by_layers and config.num_layers == 0:
        asking = setting("task", config.task) if config.model == "slmrec" else setting("model", config.model)
        raise UserError(
            f"{asking} augments what is propagated, but {setting('num_layers', 0)} propagates nothing: "
            f"give {setting('num_layers')} at least 1"
        )


def check_fields(part: Any, section: str = "") -> None:
    """Check the fields of a record, including nested records, against their annotations, like `check_config`."""
    for field, hint in get_type_hints(type(part), include_extras=True).items():
        value, name = getattr(part, field), f"{section}{field}"
        if field_names(hint):
            check_type(name, value, hint, f"a slmrec_jax.config.{hint.__name__}")
            check_fields(value, f"{name}.")
        else:
            _check_value(name, value, hint)


def _check_value(name: str, value: Any, hint: Any) -> None:
    kinds = {kind for kind in get_args(hint) or (hint,) if kind is not type(None)}
    literals = hint if get_origin(hint) is Literal else kinds.pop() if len(kinds) == 1 else None
    if get_origin(literals) is Literal and isinstance(value, str) and value not in get_args(literals):
        raise UserError(f"{setting(name)} is {value!r}: give one of {', '.join(map(str, get_args(literals)))}")
    if fault(value, hint) is not None:
        raise UserError(f"{setting(name)} is {shown(value)}: give {words(hint)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{setting(name)} is {value}: give a finite number")
    for found, limit in outside(value, hint):
        raise UserError(f"{setting(name)} is {'empty' if found == () else found}: give {limit.words}")
