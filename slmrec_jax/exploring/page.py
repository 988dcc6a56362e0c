"""The page: HTML, style and scripts of the package in one text, which loads nothing else."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

_SCRIPTS = ("map.js", "lists.js", "explore.js")


@cache
def page() -> str:
    """Return the page for the server."""
    return _part("explore.html").replace("/*STYLE*/", _style()).replace("/*SCRIPT*/", _script())


def page_with(answers: str) -> str:
    """Return the page with embedded answers, as JSON. It needs no server."""
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy(embedded=True)}">'
    held = answers.replace("<", "\\u003c")  # so that no text of the data can end the element
    element = f'<script id="answers" type="application/json">{held}</script>'
    start, end = page().replace("<!--POLICY-->", meta).split("<!--ANSWERS-->")
    return f"{start}{element}{end}"


def policy(*, embedded: bool) -> str:
    """Return the page's Content-Security-Policy: it runs only its own script and contacts only its own server.

    Args:
        embedded: Whether the page has embedded answers and contacts no server.
    """
    sources = "img-src data:" if embedded else "connect-src 'self'; img-src 'self' data:"
    frames = "" if embedded else "; frame-ancestors 'none'"  # browsers ignore it in a meta element
    return (
        f"default-src 'none'; script-src {_hash(_script())}; style-src {_hash(_style())}; {sources}; "
        f"base-uri 'none'; form-action 'none'{frames}"
    )


@cache
def _part(name: str) -> str:
    return (files("slmrec_jax.exploring") / "page" / name).read_text(encoding="utf-8")


def _style() -> str:
    return _part("explore.css")


def _script() -> str:
    return "\n".join(_part(name) for name in _SCRIPTS)


def _hash(text: str) -> str:
    """Return the hash with which a policy allows an inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
