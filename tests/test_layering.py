"""A folder imports only from the rooms listed for it, and what one module alone may know only that module imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "slmrec_jax"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__").replace("__init__", ""): path
    for path in PACKAGE.rglob("*.py")
}
LEAVES = {
    *("errors", "types", "forms", "devices", "meshes", "durable", "figures", "program_cache", "signals", "top_k"),
    "transfers",
}
"""Single modules at the top that every room may import."""

ROOMS = {
    "config": set(),
    "hardware": set(),
    "data": {"config"},
    "content": {"data"},
    "evaluation": {"config", "data"},
    "encoding": set(),
    "objectives": {"encoding"},
    "models": {"config", "encoding", "objectives"},
    "methods": {"config", "encoding", "objectives", "models"},
    "serving": {"config", "data", "evaluation"},
    "training": {"config", "hardware", "data", "evaluation", "encoding", "objectives", "methods", "serving"},
    "studies": {"config", "data", "evaluation", "encoding", "objectives", "methods", "serving", "training"},
    "reporting": {"config", "data", "evaluation", "encoding", "methods", "serving", "training", "studies"},
    "exploring": {"config", "data", "evaluation", "training", "reporting"},
    "commands": {
        *("config", "data", "content", "evaluation", "methods", "serving", "training", "studies", "reporting"),
        "exploring",
    },
}
"""Which rooms each folder may import from. Every one stands above those it names, so that there is no circle."""


DOORS = {("training", "run.py"): {"reporting"}}
"""Modules that import from above within one function: `Run.report` writes the page of one run."""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_of(path):
    names = (name.removeprefix("slmrec_jax").lstrip(".") for name in imports(path) if name.startswith("slmrec_jax"))
    return {name.split(".")[0] for name in names} & (ROOMS.keys() | LEAVES)


def test_every_folder_has_its_line_and_there_is_no_circle():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == ROOMS.keys()
    seen = set()
    for room, below in ROOMS.items():
        assert below <= seen, room
        seen.add(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_folder_imports_from_below(room):
    found = {path.name: rooms_of(path) - LEAVES - ROOMS[room] - {room} for path in (PACKAGE / room).rglob("*.py")}
    assert {(room, name): above for name, above in found.items() if above} == {
        place: above for place, above in DOORS.items() if place[0] == room
    }


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_a_leaf_imports_leaves_alone(leaf):
    assert rooms_of(PACKAGE / f"{leaf}.py") <= LEAVES


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("jraph", {"encoding.graph", "encoding.propagation"}),
        ("orbax", {"training.storage.arrays"}),
        ("jax.experimental.sparse", {"encoding.sparse"}),
        ("tyro", {name for name in MODULES if name.startswith("commands.")}),
        ("optuna", {"studies.tuning.trials"}),
        ("faiss", {"serving.exports"}),
        ("onnx", {"serving.onnx_models"}),
        ("onnxruntime", {"content.onnx_models"}),
        ("tokenizers", {"content.onnx_models"}),
        ("PIL", {"content.pictures"}),
        ("sentence_transformers", {"content.sentence_models"}),
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
    for path in (PACKAGE / "training").rglob("*.py"):
        assert not {"slmrec_jax.models", "slmrec_jax.objectives.losses"} & set(imports(path)), path
