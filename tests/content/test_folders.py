"""Of a Hugging Face folder nothing is run but what the library itself brings."""

import json
import re

import pytest

from slmrec_jax.content import models, sentence_models
from slmrec_jax.errors import UserError

PARTS = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]


@pytest.fixture
def folder(tmp_path):
    """A folder that looks like a model, with no weights."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "modules.json").write_text(json.dumps(PARTS))
    return tmp_path


@pytest.mark.parametrize("place", ["", "1_Dense"])
def test_pickled_weights_are_refused(folder, place):
    (folder / place).mkdir(exist_ok=True)
    (folder / place / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="its weights are pickled, which could run code; save"):
        sentence_models.open_folder(folder, None)


@pytest.mark.parametrize("kind", ["own.Transformer", "os.system", "sentence_transformersx.y", 3, None])
def test_code_that_is_not_the_librarys_is_refused(folder, kind):
    (folder / "modules.json").write_text(json.dumps([*PARTS, {**PARTS[0], "type": kind}]))
    with pytest.raises(UserError, match=re.escape(f"a part has the type {str(kind)!r}, whose code is not from")):
        sentence_models.open_folder(folder, None)


def test_settings_of_onnx_models_and_pictures_are_refused(folder, monkeypatch):
    monkeypatch.setattr(models, "need", lambda *modules: None)
    with pytest.raises(UserError, match=r"pooling is for ONNX models, and .* has none: leave it out"):
        models.open_encoder("text", folder, models.Options(pooling="first"))
    with pytest.raises(UserError, match="works only for texts; export a model of pictures to ONNX"):
        models.open_encoder("image", folder, models.Options())


def test_the_extra_of_the_library_is_named(folder, monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'slmrec-jax\[embed-torch\]'"):
        models.open_encoder("text", folder, models.Options())


@pytest.mark.slow
def test_a_folder_without_weights_is_refused(folder):
    pytest.importorskip("sentence_transformers", reason="needs the extra embed-torch")
    with pytest.raises(UserError, match="not a readable model"):
        sentence_models.open_folder(folder, None)
