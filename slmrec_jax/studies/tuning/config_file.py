"""Write a config as a Python file with get_config(), for `slmrec-jax train --config`."""

import dataclasses
from typing import Any

from slmrec_jax.config import PROTOCOLS, Config, Protocol


def config_source(config: Config, lines: list[str]) -> str:
    """Return the text of a file whose get_config() returns the config, with only the settings that are not defaults.

    The lines become comments at the top, and settings become literals, so nothing in them is executed.
    """
    used: set[str] = set()
    body = _literal(config, Config(), used, indent=1)
    names = f"from slmrec_jax.config import {', '.join(sorted(used))}"
    head = [f"# {part}".rstrip() for line in lines for part in line.splitlines() or [""]]
    return "\n".join([*head, "", names, "", "", "def get_config() -> Config:", f"    return {body}", ""])


def _literal(value: Any, default: Any, used: set[str], indent: int) -> str:
    """Return the source code of a value, a literal or a dataclass call, and add the names it needs to `used`."""
    if isinstance(value, Protocol):
        used.add("PROTOCOLS")
        named = PROTOCOLS[value.name]
        changed = [f"{name}={each!r}" for name, each in value._asdict().items() if each != getattr(named, name)]
        return f"PROTOCOLS[{value.name!r}]" + (f"._replace({', '.join(changed)})" if changed else "")
    if not dataclasses.is_dataclass(value):
        return repr(value)
    kind = type(value).__name__
    used.add(kind)
    fields = [(each.name, getattr(value, each.name), getattr(default, each.name)) for each in dataclasses.fields(value)]
    written = [
        f"{'    ' * (indent + 1)}{name}={_literal(now, before, used, indent + 1)},\n"
        for name, now, before in fields
        if now != before
    ]
    return f"{kind}(\n{''.join(written)}{'    ' * indent})" if written else f"{kind}()"
