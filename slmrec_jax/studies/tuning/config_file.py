"""A config as a Python file with get_config(), which `slmrec-jax train --config` takes."""

import dataclasses
from typing import Any

from slmrec_jax.config import PROTOCOLS, Config, Protocol


def config_source(config: Config, lines: list[str]) -> str:
    """The text of the file: what differs from the default config, by name.

    Args:
        config: what get_config() is to return.
        lines: what its head says. They become comments, and values become literals: whatever they hold, nothing of
            it is run.
    """
    used: set[str] = set()
    body = _written(config, Config(), used, indent=1)
    names = f"from slmrec_jax.config import {', '.join(sorted(used))}"
    head = [f"# {part}".rstrip() for line in lines for part in line.splitlines() or [""]]
    return "\n".join([*head, "", names, "", "", "def get_config() -> Config:", f"    return {body}", ""])


def _written(value: Any, default: Any, used: set[str], indent: int) -> str:
    """A literal; of a dataclass, the call that makes it."""
    if isinstance(value, Protocol):
        used.add("PROTOCOLS")
        changed = {name: each for name, each in value._asdict().items() if each != getattr(PROTOCOLS[value.name], name)}
        said = f"PROTOCOLS[{value.name!r}]"
        return said + (
            f"._replace({', '.join(f'{name}={each!r}' for name, each in changed.items())})" if changed else ""
        )
    if not dataclasses.is_dataclass(value):
        return repr(value)
    kind = type(value).__name__
    used.add(kind)
    fields = [(each.name, getattr(value, each.name), getattr(default, each.name)) for each in dataclasses.fields(value)]
    written = [
        f"{'    ' * (indent + 1)}{name}={_written(now, before, used, indent + 1)},\n"
        for name, now, before in fields
        if now != before
    ]
    return f"{kind}(\n{''.join(written)}{'    ' * indent})" if written else f"{kind}()"
