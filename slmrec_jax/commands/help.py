"""The short help of training commands: the settings that the chosen model uses, on one screen."""

import ast
import dataclasses
import inspect
import shutil
import types
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import tyro

from slmrec_jax.commands.cluster import ClusterFlags
from slmrec_jax.commands.settings import SettingsFlags
from slmrec_jax.commands.sources import SourceFlags
from slmrec_jax.config import Config, ModelName
from slmrec_jax.config.source import Source
from slmrec_jax.forms import field_names

MOST_CHOICES = 8
"""The maximum number of choices that a flag shows instead of a value; more are listed in its text."""

_MODELS = get_args(ModelName)
_USED_BY: Mapping[str, tuple[ModelName, ...]] = {
    "task": ("slmrec",),
    "main_weight": ("slmrec",),
    "bpr_negatives": ("mf", "lightgcn", "vbpr", "mmgcn", "mmssl", "sgl", "simgcl", "freedom", "lattice", "mgcn"),
    "num_layers": ("slmrec", "lightgcn", "sgl", "simgcl", "freedom", "bm3", "lattice", "mgcn"),
    "propagation": ("slmrec", "lightgcn", "mmgcn", "sgl", "simgcl", "freedom", "bm3", "mgcn"),
    "frozen_rows": ("slmrec", "lightgcn"),
}
"""The general settings that only some models use."""
_MAIN = ("data", "split", "modalities", "model", "task", "seed", "epochs", "batch-size", "dim", "num-layers", "ks")
_OF_PROCESSES = tuple(field.name for field in dataclasses.fields(ClusterFlags))
_COLUMNS = ("user_column", "item_column", "time_column", "rating_column")
_WIDTHS, _INDENT = (60, 120), 4
(_POSITIONAL,) = get_args(tyro.conf.Positional[int])[1:]
_NAMES = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class Flag(NamedTuple):
    """A flag of a command."""

    name: str
    """The name with its section, such as `slmrec.fd-mode`."""
    values: str
    """The kind of its value, in capitals or as choices; empty for a switch."""
    default: str
    """The default as written on the command line; empty if there is none."""
    text: str
    """The description."""
    is_switch: bool = False
    is_positional: bool = False
    """Whether it is a positional argument; `name` then stands for it in the usage line."""
    aliases: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return self.text.split(". ")[0].rstrip(".")


def short_help(program: str, flags: type[SettingsFlags], config: Config) -> str:
    """Return the help of a command for a config's model, with the config's values as defaults."""
    columns = min(max(shutil.get_terminal_size((100, 24)).columns, _WIDTHS[0]), _WIDTHS[1])
    unused = [name for name, models in _USED_BY.items() if config.model not in models]
    own = list(flags_of(flags, None, skipped=("settings", *_OF_PROCESSES)))
    source = list(flags_of(SourceFlags, config, skipped=_COLUMNS))
    general = list(flags_of(Config, config, skipped=(*field_names(Source), *_MODELS, "optimizer", "eval", *unused)))
    main = [flag for flag in (*source, *general) if flag.name in _MAIN]
    further = ", ".join(f"--{flag.name} {flag.default or 'None'}" for flag in (*source, *general) if flag not in main)
    joining = ""
    if issubclass(flags, ClusterFlags):
        joining = f" {', '.join(f'--{_dashed(name)}' for name in _OF_PROCESSES)}: several processes (docs/scale.md)."
    sections = [
        f"usage: {program} [FLAGS]\n\n{inspect.getdoc(flags)}",
        _lines("Run", own, columns),
        _lines("Data, model and training", main, columns),
        f"More flags, with defaults: {further}",
        *(
            f"{title}, --{section}.*: {_values(getattr(config, section))}"
            for title, section in ((config.model, config.model), ("Optimizer", "optimizer"), ("Evaluation", "eval"))
        ),
        f"This is what --model {config.model} uses. --help-all describes every flag, including those of other models, "
        f"and {', '.join(f'--{_dashed(column)}' for column in _COLUMNS)}. --lr and --wd are --optimizer.learning-rate "
        f"and --optimizer.weight-decay.{joining}",
    ]
    return "\n\n".join(
        section if "\n" in section else fill(section, columns, subsequent_indent=" " * _INDENT, break_on_hyphens=False)
        for section in sections
    )


def _lines(title: str, flags: list[Flag], columns: int) -> str:
    heads = [f"  --{flag.name} {flag.values}".rstrip() for flag in flags]
    width = min(34, max(map(len, heads)))
    text = [title]
    for head, flag in zip(heads, flags, strict=True):
        default = f" [{flag.default}]" if flag.default and not flag.is_switch else ""
        about = fill(f"{flag.summary}{default}".strip(), columns - width - 2, break_on_hyphens=False).split("\n")
        if len(head) > width:
            text.append(head)
            head = ""
        text += [f"{head if not row else '':<{width}}  {line}" for row, line in enumerate(about)]
    return "\n".join(text)


def flags_of(kind: type, values: Any, *, skipped: tuple[str, ...] = ()) -> Iterator[Flag]:
    """Yield the flags of a dataclass or named tuple.

    The defaults are those of `values`, or of the fields if it is `None`.
    """
    texts, hints = descriptions(kind), get_type_hints(kind, include_extras=True)
    defaults: Mapping[str, Any] = (
        getattr(kind, "_field_defaults", None) or {field.name: field.default for field in dataclasses.fields(kind)}
        if values is None
        else {name: getattr(values, name) for name in field_names(kind)}
    )
    for name in field_names(kind):
        if name in skipped:
            continue
        marks = getattr(hints[name], "__metadata__", ())
        given = next((mark for mark in marks if hasattr(mark, "aliases")), None)  # the result of tyro.conf.arg
        is_positional, is_switch = _POSITIONAL in marks, _is_switch(hints[name])
        shown_name = (given and ((is_positional and given.metavar) or given.name)) or _dashed(name)
        yield Flag(
            shown_name.upper() if is_positional else shown_name,
            "" if is_switch else _kind(hints[name]),
            _as_typed(defaults[name]),
            (texts.get(name, "").rstrip(".") + _choices(hints[name])) if _choices(hints[name]) else texts.get(name, ""),
            is_switch,
            is_positional,
            tuple((given and given.aliases) or ()),
        )


def descriptions(kind: type) -> dict[str, str]:
    """Return the docstring of each field of a class and its base classes."""
    found: dict[str, str] = {}
    for each in reversed([each for each in kind.__mro__ if each.__module__.startswith("slmrec_jax")]):
        body = ast.parse(inspect.getsource(each)).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _is_switch(hint: Any) -> bool:
    return hint is bool or (get_origin(hint) is Annotated and get_args(hint)[0] is bool)


def _kind(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return "|".join(map(str, arguments)) if len(arguments) <= MOST_CHOICES else "NAME"
    if origin in (Union, types.UnionType):
        return "|".join(_kind(each) for each in arguments if each is not type(None))
    if origin is tuple:
        return f"{_kind(arguments[0])} …"
    return _NAMES.get(hint, "VALUE")


def _choices(hint: Any) -> str:
    """Return the choices if there are too many to show instead of the value."""
    names = get_args(hint) if get_origin(hint) is Literal else ()
    return f": {', '.join(map(str, names))}" if len(names) > MOST_CHOICES else ""


def _values(section: Any) -> str:
    """Return the settings of a section with their values, on one line."""
    pairs: Mapping[str, Any] = section._asdict() if hasattr(section, "_asdict") else vars(section)
    shown = {name: value for name, value in pairs.items() if name != "name" and value != ()}
    return ", ".join(f"{_dashed(name)} {_as_typed(value) or 'None'}" for name, value in shown.items())


def _as_typed(value: Any) -> str:
    if value is None or value == () or value is dataclasses.MISSING:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
