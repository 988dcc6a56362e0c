"""The page: HTML, style and scripts of the package in one text, which runs nothing else."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

_SCRIPTS = ("map.js", "lists.js", "explore.js")


@cache
def page() -> str:
    """Return the page for the server."""
    return _part("explore.html").replace("/*STYLE*/", _style()).replace("/*SCRIPT*/", _script())


def policy(*, embedded: bool) -> str:
    """Return the page's Content-Security-Policy: it runs its own script alone, and asks its own server alone.

    Args:
        embedded: Whether the page has its answers in itself, and asks no server.
    """
    sources = "img-src data:" if embedded else "connect-src 'self'; img-src 'self' data:"
    return (
        f"default-src 'none'; script-src {_hash(_script())}; style-src {_hash(_style())}; {sources}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@cache
def _part(name: str) -> str:
    return (files("slmrec_jax.exploring") / "page" / name).read_text(encoding="utf-8")


def _style() -> str:
    return _part("explore.css")


def _script() -> str:
    return "\n".join(_part(name) for name in _SCRIPTS)


def _hash(text: str) -> str:
    """Return what a policy allows an inline text by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
