"""Imports run downward, and what only one module may know only that module imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "slmrec_jax"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__").replace("__init__", ""): path
    for path in PACKAGE.rglob("*.py")
}
LAYERS = [
    {"errors", "forms", "types", "durable"},
    {"sparse", "layers", "evaluation", "data"},
    {"graph", "config", "recommendations", "figures", "analysis", "exports", "canary"},
    {"propagation", "augmentations", "sampling", "rows", "features", "softmax"},
    {"losses", "models"},
    {"methods"},
    {"training"},
    {"runs"},
    {"comparison", "results", "tuning"},
    {"reporting"},
    {"", "cli", "cli_data", "cli_runs", "cli_tune", "__main__"},
]
"""From the bottom; within one, modules may import one another."""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path):
    names = (name.removeprefix("slmrec_jax").lstrip(".") for name in imports(path) if name.startswith("slmrec_jax"))
    return {name.split(".")[0] for name in names if name}


def level(name):
    return next(number for number, layer in enumerate(LAYERS) if name.split(".")[0] in layer)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_from_below(name):
    package = name.split(".")[0]
    names = {module.split(".")[0] for module in MODULES}
    above = {other for other in ours(MODULES[name]) & names if other != package and level(other) > level(name)}
    assert not above


@pytest.mark.parametrize("package", ["data", "evaluation"])
def test_data_and_evaluation_know_types_errors_and_files_alone(package):
    names = [name for name in MODULES if name.split(".")[0] == package]
    below = {"types", "errors", "forms", "durable"}
    assert {other for name in names for other in ours(MODULES[name])} <= {package, *below}


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("jraph", {"graph", "propagation"}),
        ("orbax", {"training.checkpoint"}),
        ("jax.experimental.sparse", {"sparse"}),
        ("tyro", {"cli", "cli_data", "cli_runs", "cli_tune"}),
        ("optuna", {"tuning.study"}),
        ("faiss", {"exports"}),
        ("pickle", set()),
        ("torch", set()),
    ],
)
def test_a_library_is_known_where_it_belongs(library, allowed):
    users = {
        name
        for name, path in MODULES.items()
        if any(found == library or found.startswith(f"{library}.") for found in imports(path))
    }
    assert users <= allowed


def test_the_trainer_names_no_model():
    for path in (PACKAGE / "training").glob("*.py"):
        assert not {"slmrec_jax.models", "slmrec_jax.losses"} & set(imports(path)), path
