"""The reference page of all commands and settings, generated from the flags."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from slmrec_jax.commands.help import Flag, flags_of
from slmrec_jax.commands.settings import SettingsFlags
from slmrec_jax.commands.sources import SourceFlags
from slmrec_jax.config import BASE, Config, Source, with_defaults
from slmrec_jax.forms import field_names

_TITLE = """# Command reference

The build of this documentation makes this page from the flags of the program. `slmrec-jax COMMAND --help` shows the
same in a terminal; where a command trains, `--help` shows what the chosen `--model` uses and `--help-all` every flag.
`slmrec-jax --version` prints the versions of this program and of jax."""
_SETTINGS = """## Settings

Flags of `train`, `compare`, `tune`, `plan` and `bench step`, and fields of [`slmrec_jax.Config`](api.md):
`--slmrec.fd-mode layer` is
`Config(slmrec=SLMRecConfig(fd_mode="layer"))`. `--lr` and `--wd` are short for `--optimizer.learning-rate` and
`--optimizer.weight-decay`. `no-` before the name turns off a switch that is on, as `--eval.no-first-epoch-counts`. A
run reads only the section of its `--model`. [Settings](settings.md) has presets and protocols."""
_HEAD = "| flag | value | default | meaning |\n| --- | --- | --- | --- |"


def command_reference(commands: Mapping[str, type]) -> str:
    """Return the page in Markdown: each command with its arguments, then the settings shared by training commands.

    Args:
        commands: The dataclass of each command's flags, by command name.
    """
    parts = [_TITLE, *(_command(name, flags) for name, flags in commands.items()), _SETTINGS]
    config = with_defaults(Config())
    sections = [*BASE, "optimizer", "eval"]
    skipped = (*field_names(Source), *sections)
    parts += ["### Data", _table(flags_of(SourceFlags, config))]
    parts += ["### Model and training", _table(flags_of(Config, config, skipped=skipped))]
    for section in sections:
        values = getattr(config, section)
        parts += [f"### `--{section}.*`", _table(_in_section(section, values))]
    return "\n\n".join(parts) + "\n"


def _command(name: str, kind: type) -> str:
    trains = issubclass(kind, SettingsFlags)
    own = list(flags_of(kind, None, skipped=("settings",) if trains else ()))
    positional, flags = ([flag for flag in own if flag.is_positional is wanted] for wanted in (True, False))
    usage = " ".join(("slmrec-jax", name, *(flag.name for flag in positional), *(["[FLAGS]"] if flags else [])))
    text = f"## slmrec-jax {name}\n\n{kind.__doc__}\n\n```text\n{usage}\n```"
    if own:
        text += f"\n\n{_table((*positional, *flags))}"
    return text + ("\n\nAnd all [settings](#settings)." if trains else "")


def _in_section(section: str, values: Any) -> Iterator[Flag]:
    for flag in flags_of(type(values), values, skipped=("name",) if section == "eval" else ()):
        yield flag._replace(name=f"{section}.{flag.name}")


def _table(flags: Iterable[Flag]) -> str:
    return "\n".join((_HEAD, *map(_row, flags)))


def _row(flag: Flag) -> str:
    name = flag.name if flag.is_positional else ", ".join((*flag.aliases, f"--{flag.name}"))
    default = {"True": "on", "False": "off"}.get(flag.default, flag.default) if flag.is_switch else flag.default
    values = " or ".join(map(_code, flag.values.split("|")))  # a code span in a table cannot contain a bar
    return f"| {_code(name)} | {values} | {_code(default)} | {flag.text.replace('|', '&#124;')} |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
