"""Nothing in the package runs what a file or a string says, and every dependency's licence is known."""

import ast
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "slmrec_jax"

MODULES = {"_pickle", "cloudpickle", "code", "dill", "joblib", "marshal", "pickle", "runpy", "shelve", "torch"}
"""What reads objects by running code, or runs code."""

NAMES = {
    *("__import__", "compile", "eval", "exec"),
    *("importlib.__import__", "importlib.import_module", "importlib.reload"),
    *("os.execv", "os.execve", "os.execvp", "os.popen", "os.spawnv", "os.spawnvp", "os.startfile", "os.system"),
    *("pandas.read_pickle", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("yaml.full_load", "yaml.load", "yaml.unsafe_load"),
}
METHODS = {"exec_module", "load_module", "run_code"}
FLAGS = {"allow_pickle", "shell"}
"""Keywords that may only be the word False."""

ALLOWED = {
    "commands/settings.py: exec_module in _load_module",  # the file that --config names
    "__init__.py: importlib.import_module in __getattr__",  # of the package's own modules, by a table
}


def dangers(tree):
    """What in a module could run code that is not its own, as `name in function`."""
    names = dict(imported(tree))
    for function, node in nodes(tree, "the module"):
        match node:
            case ast.Import() | ast.ImportFrom():
                found = {name.split(".")[0] for _, name in imported(node)} & MODULES
            case ast.Name(id=name, ctx=ast.Load()):
                found = {names.get(name, name).removeprefix("builtins.")} & NAMES
            case ast.Attribute(attr=attribute):
                whole = dotted(node, names)
                found = {whole.removeprefix("builtins.")} & NAMES if whole else set()
                found |= {attribute} & METHODS
            case ast.keyword(arg=str(flag), value=value) if flag in FLAGS:
                found = set() if isinstance(value, ast.Constant) and value.value is False else {flag}
            case _:
                found = set()
        yield from (f"{name} in {function}" for name in sorted(found))


def imported(tree):
    """What an import binds, and the full name of what it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
                yield alias.name, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def nodes(tree, function):
    """Every node, with the function it stands in."""
    for node in ast.iter_child_nodes(tree):
        yield function, node
        inner = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from nodes(node, inner)


def dotted(node, names):
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=value, attr=attribute):
            before = dotted(value, names)
            return before and f"{before}.{attribute}"
    return None


def test_the_package_runs_nothing_but_its_own_code():
    found = {
        f"{path.relative_to(PACKAGE).as_posix()}: {danger}"
        for path in PACKAGE.rglob("*.py")
        for danger in dangers(ast.parse(path.read_text()))
    }
    assert found == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import torch.nn as nn",
        "from marshal import loads",
        "def f():\n    import dill",
        "eval(text)",
        "list(map(eval, texts))",
        "import builtins\nbuiltins.exec(text)",
        "compile(text, 'file', 'exec')",
        "__import__(name)",
        "from importlib import import_module as load\nload(name)",
        "import importlib.util\nimportlib.import_module(name)",
        "import os as system\nsystem.system(text)",
        "from os import popen\npopen(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import subprocess\nsubprocess.run(text, shell=chosen)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text)",
        "spec.loader.exec_module(module)",
    ],
)
def test_what_could_run_code_is_seen(source):
    assert list(dangers(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "import pickletools\npickletools.genops(data)",
        "import re\nre.compile(text)",
        "jax.jit(f).lower(x).compile()",
        "config.eval.split",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['git'], shell=False)",
        "import ast\nast.literal_eval(text)",
        "import yaml\nyaml.safe_load(text)",
    ],
)
def test_what_runs_no_code_is_let_be(source):
    assert not list(dangers(ast.parse(source)))


def test_every_pinned_package_stands_with_its_licence():
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    versions = {}
    for package in map(Requirement, filter(None, lines)):
        versions.setdefault(package.name, []).append(str(package.specifier).removeprefix("=="))
    page = (ROOT / "docs" / "licences.md").read_text()
    rows = re.findall(r"^\| (\S+) \| (\d\S*(?:, \d\S*)*) \| (\S.*) \|$", page, re.MULTILINE)
    assert {name: stated.split(", ") for name, stated, _ in rows} == versions
