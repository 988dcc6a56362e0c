"""Parse a command's flags: each field of a dataclass is a flag, and each error is one line."""

import contextlib
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import tyro

from slmrec_jax.commands.help import short_help
from slmrec_jax.commands.settings import SettingsFlags, base_config, recorded
from slmrec_jax.commands.sources import as_flags
from slmrec_jax.config import with_defaults
from slmrec_jax.errors import UserError

Flags = TypeVar("Flags")

ALIASES = {"--lr": "--optimizer.learning-rate", "--wd": "--optimizer.weight-decay"}
"""Short names for flags of the training commands."""

_NUMBERS = (
    (r"\S*FLOAT", "float", "a number"),
    (r"\S*INT", "int", "a whole number"),
    (r"INT\|{auto}", "int", "a whole number or auto"),
)
_WRONG_VALUES = [
    (rf"Error parsing (?P<flag>--\S+): {cause}", expected)
    for shown, kind, expected in _NUMBERS
    for cause in (
        rf"no type matching {shown} could be instantiated from \['(?P<value>.*?)'\]",
        rf"(?:could not convert string to|invalid literal for) {kind}\b.*?: '(?P<value>.*?)'",
    )
]
"""Patterns of tyro's messages for values that are not numbers, and the expected values."""

_MISSING = r"Missing from .*?: (?P<name>[A-Z]+|-\S+)\b.*\(required\)"
_WRONG_CHOICE = r"invalid choice (?P<value>'.*?') for argument '(?P<flag>\S+)'. Expected one of \((?P<choices>.*?),?\)"
"""Patterns of tyro's messages for an argument that is missing and a value that is none of the choices."""


def parse(flags: type[Flags], program: str, arguments: list[str]) -> Flags:
    """Parse a command's flags. Settings given as flags win over a preset, a protocol and a config file.

    Raises:
        UserError: A flag or its value is unknown, or the settings cannot be read.
        SystemExit: Help was requested and printed.
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
        options["default"] = flags(as_flags(with_defaults(config) if whole else config))
    arguments = ["--help" if argument == "--help-all" else argument for argument in arguments]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(flags, prog=program, args=arguments, return_unknown_args=True, **options)
    except SystemExit as stop:
        if not stop.code:  # help was requested
            print(end="", flush=True)
            raise
        _check_flags(flags, options, program, [each for each in arguments if re.match("--?[a-z]", each)])
        raise UserError(f"{_refusal_text(said.getvalue())}; see {program} --help") from None
    if unknown:
        raise _unknown_argument(unknown[0], _known_flags(flags, options), program)
    if not isinstance(parsed, SettingsFlags):
        return cast("Flags", parsed)
    if parsed.settings.eval.name != options["default"].settings.eval.name:
        raise UserError("--eval.name names the protocol that --eval.* flags change: choose one with --protocol")
    return cast("Flags", recorded(parsed))


def _without_alias(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return f"{ALIASES.get(name, name)}{equals}{value}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest known word; return an empty string if there is none."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _check_flags(flags: type, options: Mapping[str, Any], program: str, given: Sequence[str]) -> None:
    """Reject the first argument that the help does not mention."""
    known = _known_flags(flags, options) if given else set()
    for each in given:
        if each.partition("=")[0].replace("_", "-") not in known:
            raise _unknown_argument(each, known, program)


def _unknown_argument(argument: str, known: Iterable[str], program: str) -> UserError:
    if not argument.startswith("-"):
        return UserError(f"unexpected argument {argument!r}; see {program} --help")
    name = argument.partition("=")[0]
    suggested = "" if name in known else did_you_mean(name, known)
    return UserError(f"there is no flag {name!r}{suggested}; see {program} --help")


def _known_flags(flags: type, options: Mapping[str, Any]) -> set[str]:
    """Return the flags that the help mentions, some of which belong to other commands."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        tyro.cli(flags, args=["--help"], **options)
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9.-]*", said.getvalue()))


def _refusal_text(said: str) -> str:
    """Extract the message from tyro's error text: the part between its title and the next rule, boxed or not."""
    paragraphs: list[list[str]] = [[]]
    for line in said.splitlines():
        if line.startswith(("╭", "╰")) or "────" in line or "----" in line:
            paragraphs.append([])
        else:
            paragraphs[-1].append(line.strip("│ "))
    message = " ".join(paragraphs[1]) if len(paragraphs) > 1 else ""
    for pattern, expected in _WRONG_VALUES:
        found = re.search(pattern, message)
        if found:
            return f"{found['flag']} is {found['value']!r}; expected {expected}"
    if found := re.fullmatch(_MISSING, message):
        return f"{found['name']} is missing"
    if found := re.match(_WRONG_CHOICE, message):
        choices = [each for each in re.findall(r"'(.*?)'", found["choices"]) if each != "None"]
        return f"{found['flag']} is {found['value']}: give {', '.join(choices)}"
    return message.rstrip(".") or "the flags cannot be read"
