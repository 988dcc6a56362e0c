"""Text models in Hugging Face folders, run with sentence-transformers. No other module imports it."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from slmrec_jax.data.readers.json_lists import read_json_file
from slmrec_jax.errors import UserError, one_line

WEIGHTS = "model.safetensors"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
_OWN = "sentence_transformers."


def open_folder(folder: Path, max_tokens: int | None) -> Any:
    """Open the model of a local folder on the CPU, without downloading anything or running code from the folder."""
    _check_folder(folder)
    from sentence_transformers import SentenceTransformer

    try:
        with warnings.catch_warnings(action="ignore"):
            model = SentenceTransformer(
                str(folder),
                device="cpu",
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
    except Exception as error:  # the library raises errors of many kinds
        raise UserError(f"{folder}: not a readable model ({one_line(error)}); save it again") from error
    if max_tokens is not None:
        model.max_seq_length = max_tokens
    return model


def sentence_encoder(folder: Path, model: Any) -> Callable[[Sequence[str]], Float[np.ndarray, "texts columns"]]:
    """Return a function from texts to vectors."""

    def encode(texts: Sequence[str]) -> Float[np.ndarray, "texts columns"]:
        try:
            with warnings.catch_warnings(action="ignore"):
                values = model.encode(
                    list(texts), batch_size=len(texts), convert_to_numpy=True, show_progress_bar=False
                )
        except Exception as error:  # the library raises errors of many kinds
            raise UserError(f"{folder}: the model cannot run on these texts ({one_line(error)})") from error
        return np.asarray(values, np.float32).reshape(len(texts), -1)

    return encode


def _check_folder(folder: Path) -> None:
    """Reject pickled weights, and modules whose code is not the library's."""
    for place in sorted({file.parent for name in _PICKLED for file in folder.rglob(name)}):
        if not any((place / name).is_file() for name in (WEIGHTS, f"{WEIGHTS}.index.json")):
            raise UserError(f"{place}: its weights are pickled, which could run code; save them as {WEIGHTS}")
    modules = folder / "modules.json"
    if not modules.exists():
        return
    parts = read_json_file(modules, "the parts of a model", "save the model again")
    for part in parts if isinstance(parts, list) else [parts]:
        kind = part.get("type") if isinstance(part, dict) else part
        if not isinstance(kind, str) or not kind.startswith(_OWN):
            raise UserError(
                f"{modules}: a part has the type {str(kind)[:80]!r}, whose code is not from sentence-transformers and "
                f"is not run; choose another model"
            )
