"""The commands of docs/content.md, with small models in place of those that it names."""

import jax
import pytest
from small_models import HALF, picture_model, text_model
from test_docs import Page

from slmrec_jax import data

for module in ("onnxruntime", "onnx", "tokenizers"):
    pytest.importorskip(module, reason="needs the packages of the extra embed, and onnx to make models")

pytestmark = pytest.mark.slow


def test_the_page_works_as_it_is_written(tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    text_model(tmp_path / "models" / "minilm"), picture_model(tmp_path / "models" / "clip-vision.onnx", **HALF)
    shop = tmp_path / "shop"
    (shop / "images").mkdir(parents=True)
    for item in range(20):
        Image.new("RGB", (9, 9), (12 * item, 100, 255 - 12 * item)).save(shop / "images" / f"dress-{item}.png")
    rows = [f"dress-{item},{('red', 'blue')[item % 2]} dress,summer" for item in range(20)]
    (shop / "items.csv").write_text("\n".join(["item,title,description", *rows]))
    pairs = [f"user-{user},dress-{(3 * user + 2 * place) % 20}" for user in range(30) for place in range(6)]
    (shop / "interactions.csv").write_text("\n".join(["user,item", *pairs]))
    with jax.numpy_dtype_promotion("standard"):
        said = Page("content.md", capsys).run().said
    assert list(data.load(shop, split="leave-one-out").features) == ["visual", "textual"]
    for model in ("minilm", "clip-vision"):
        assert any(f"by {model} (SHA-256 " in text for text in said.values()), model
