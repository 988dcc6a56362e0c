"""The recipes of docs/extend.md, as they are written."""

import json
import re
from pathlib import Path

import pytest

from slmrec_jax import data
from slmrec_jax.commands.main import main
from slmrec_jax.data.synthetic import demo

ROOT = Path(__file__).parents[1]
RECIPES = re.findall(
    r"## (Add an? [\w ]+)\n.*?```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.DOTALL
)

TERMS = {
    "Add a loss": "alignment",
    "Add an augmentation": "noise",
    "Add a model": "bpr",
    "Add a weight to each interaction": "edges",
}
"""A term of the loss that each recipe adds."""

pytestmark = pytest.mark.usefixtures("optax_promotion", "small_demo")


@pytest.fixture
def small_demo(monkeypatch):
    """Demo data with one modality: an encoder with more takes longer to compile."""
    small = demo(num_users=60, num_items=80, num_scenes=6, exposures=40, columns={"visual": 8})
    monkeypatch.setattr(data, "demo", lambda: small)


def test_every_recipe_is_found():
    assert [name for name, _ in RECIPES] == list(TERMS)


CASES = [
    pytest.param(name, code, id=name, marks=[] if name == "Add a model" else pytest.mark.slow) for name, code in RECIPES
]


@pytest.mark.parametrize(("name", "code"), CASES)
def test_a_recipe_trains(tmp_path, name, code):
    (tmp_path / "mine.py").write_text(code)
    flags = ["--dim", "8", "--num-layers", "1", "--batch-size", "128", "--epochs", "2"]
    flags += ["--optimizer.learning-rate", "1e-2", "--propagation", "chains"]  # as on data of some size
    out = tmp_path / "run"
    assert main(["train", "--config", str(tmp_path / "mine.py"), *flags, "--out", str(out)]) == 0
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert TERMS[name] in records[0]["losses"]
    assert records[1]["losses"]["loss"] < records[0]["losses"]["loss"]
    assert main(["recommend", str(out), "--users", "user-0003", "-k", "2"]) == 0
