"""Steps of the documentation's build: pages that are made from the package, and files from outside of docs/.

mkdocs.yml names this file; `make docs` runs it. The package must be importable.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import slmrec_jax

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"(?<=\]\()\.\./(?=[\w/.-]+\))")
"""The start of a link from a page to a file outside of docs/, such as a picture of a benchmark."""
COPIED = ("benchmarks/results", "experiments/results")
"""Folders to which such links lead."""


def on_pre_build(config: Any) -> None:
    """Stop if a part of the public API has no docstring."""
    from mkdocs.exceptions import Abort

    missing = [line for name in slmrec_jax.__all__ for line in undocumented(name, getattr(slmrec_jax, name))]
    if missing:
        raise Abort("the public API has parts without a docstring:\n" + "\n".join(missing))


def on_files(files: Any, config: Any) -> Any:
    """Add the page of commands, and the files to which pages link outside of docs/."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "commands.md", content=commands_page()))
    for folder in COPIED:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix != ".md":
                files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Let links to such files lead to their copies in the site."""
    return OUTSIDE.sub("", markdown)


def commands_page() -> str:
    """Return the reference of all commands in Markdown."""
    from slmrec_jax.commands.main import COMMANDS
    from slmrec_jax.commands.reference import command_reference

    return command_reference({name: flags for name, (flags, _) in COMMANDS.items()})


def undocumented(name: str, value: Any) -> Iterator[str]:
    """Yield a line for each part of a function or class without a docstring, or argument that its docstring omits."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(value))).body
    if isinstance(node, ast.FunctionDef):
        yield from _in_function(name, node)
    elif isinstance(node, ast.ClassDef):
        yield from _in_class(name, node)


def _in_class(name: str, node: ast.ClassDef) -> Iterator[str]:
    if ast.get_docstring(node) is None:
        yield name
    followers = [*node.body[1:], None]
    for part, follower in zip(node.body, followers, strict=True):
        if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
            yield from _in_function(f"{name}.{part.name}", part)
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not _is_text(follower):
            yield f"{name}.{part.target.id}"


def _in_function(name: str, node: ast.FunctionDef) -> Iterator[str]:
    text = ast.get_docstring(node)
    if text is None:
        yield name
        return
    arguments = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    described = re.findall(r"^    (\w+): ", text, re.MULTILINE)
    for argument in arguments:
        if argument not in ("self", *described):
            yield f"{name}({argument})"


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
