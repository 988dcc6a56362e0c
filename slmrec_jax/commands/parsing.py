"""Reading of a command's flags: each field of a dataclass is a flag, and a refusal is one line."""

import contextlib
import difflib
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

import tyro

from slmrec_jax.commands.help import short_help
from slmrec_jax.commands.settings import SettingsFlags, base_config, recorded
from slmrec_jax.config import with_defaults
from slmrec_jax.errors import UserError

Flags = TypeVar("Flags")

ALIASES = {"--lr": "--optimizer.learning-rate", "--wd": "--optimizer.weight-decay"}
"""Short names of flags of the commands that train."""


def parse(flags: type[Flags], program: str, arguments: list[str]) -> Flags:
    """Return a command's flags; the settings among them win over a preset, a protocol and a config file.

    Raises:
        UserError: A flag or its value is unknown, or the settings cannot be read.
        SystemExit: Help was asked for and is printed.
    """
    options: dict[str, Any] = {}
    if issubclass(flags, SettingsFlags):
        arguments = [_without_alias(argument) for argument in arguments]
        config = base_config(arguments)
        if set(arguments) & {"-h", "--help"}:
            print(short_help(program, flags, with_defaults(config)), flush=True)
            raise SystemExit(0)
        whole = "--help-all" in arguments
        arguments = ["--help"] if whole else arguments
        options["default"] = flags(with_defaults(config) if whole else config)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(flags, prog=program, args=arguments, return_unknown_args=True, **options)
    except SystemExit as stop:
        if not stop.code:  # help was asked for
            print(end="", flush=True)
            raise
        raise UserError(f"{_refusal_text(said.getvalue())}; see {program} --help") from None
    if unknown:
        hint = did_you_mean(unknown[0], _known_flags(flags, options))
        raise UserError(f"there is no flag {unknown[0]!r}{hint}; see {program} --help")
    if not isinstance(parsed, SettingsFlags):
        return cast("Flags", parsed)
    if parsed.settings.eval.name != options["default"].settings.eval.name:
        raise UserError("--eval.name names the protocol that --eval.* flags change: choose one by --protocol")
    return cast("Flags", recorded(parsed))


def _without_alias(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return f"{ALIASES.get(name, name)}{equals}{value}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint at the known word that is nearest, or an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _known_flags(flags: type, options: Mapping[str, Any]) -> set[str]:
    """Return the flags that the help lists."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        tyro.cli(flags, args=["--help"], **options)
    return set(re.findall(r"--[a-z][a-z0-9.-]*", said.getvalue()))


def _refusal_text(said: str) -> str:
    """Return the message in tyro's error text: what is between its title and the next rule, boxed or not."""
    paragraphs: list[list[str]] = [[]]
    for line in said.splitlines():
        if line.startswith(("╭", "╰")) or "────" in line or "----" in line:
            paragraphs.append([])
        else:
            paragraphs[-1].append(line.strip("│ "))
    message = " ".join(paragraphs[1]) if len(paragraphs) > 1 else ""
    return message.rstrip(".") or "the flags cannot be read"
