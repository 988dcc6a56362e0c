"""Open a model by its path: an ONNX file, a folder with one, or a Hugging Face folder with a text model."""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from slmrec_jax.content import onnx_models, sentence_models
from slmrec_jax.data.readers.json_lists import read_json_object
from slmrec_jax.data.readers.opening import reading
from slmrec_jax.errors import UserError, setting

Kind = Literal["text", "image"]
"""The kind of a model's input."""

_ONNX_PLACES = ("model.onnx", "onnx/model.onnx")
_WEIGHTS = (".bin", ".data", ".onnx_data", ".weights")
"""The suffixes of files in which ONNX models store large weights."""
_GENERIC = ("model", "onnx")
"""File and folder names that do not identify the model."""
_PACKAGES = {"onnxruntime": "embed", "tokenizers": "embed", "PIL": "embed", "sentence_transformers": "embed-torch"}
"""The optional extra that installs each module."""


class Options(NamedTuple):
    """The settings that change the vectors. Those that a model does not use stay `None`."""

    output: str | None = None
    """The ONNX output to use."""
    pooling: Literal["mean", "first"] | None = None
    """How to pool token rows, for ONNX models."""
    tokenizer: Path | None = None
    """The `tokenizer.json` of an ONNX model."""
    max_tokens: int | None = None
    """The number of tokens at which texts are cut."""
    size: int | None = None
    """The height and width of pictures."""
    mean: tuple[float, float, float] | None = None
    """The values subtracted from red, green and blue, which are between 0 and 1."""
    std: tuple[float, float, float] | None = None
    """The divisors of red, green and blue after that."""
    normalize: bool = False
    """Whether vectors are divided by their norms."""
    batch_size: int = 32
    """The number of texts or pictures per batch."""


class Encoder(NamedTuple):
    """A model that is ready to run."""

    name: str
    """The name, from its file or folder."""
    sha256: str
    """The SHA-256 of its file, or of the names and digests of all files in its folder."""
    settings: Mapping[str, Any]
    """Everything else that the vectors depend on, as JSON values."""
    encode: Callable[[Sequence[Any]], Float[np.ndarray, "inputs columns"]]
    """Encodes texts or pictures to one row each."""


def open_encoder(kind: Kind, path: Path, options: Options) -> Encoder:
    """Open a model for texts or pictures.

    Raises:
        UserError: The model cannot be read, needs a setting in `options` that is missing, or needs an optional extra.
    """
    for name in ("batch_size", "max_tokens", "size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{setting(name)} is {value}: give at least 1")
    if options.std is not None and 0 in options.std:
        raise UserError(f"{setting('std')} has a 0, but pictures are divided by it: give other numbers")
    if not path.exists():
        raise UserError(f"{path}: there is no such model; give an ONNX file or a local folder: nothing is downloaded")
    if path.is_dir():
        found = next((path / place for place in _ONNX_PLACES if (path / place).is_file()), None)
        if found is None:
            return _of_folder(kind, path, options)
        path = found
    return _of_texts(path, options) if kind == "text" else _of_pictures(path, options)


def need(*modules: str) -> None:
    """Raise a `UserError` if a module is not installed, naming the extra that installs it."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            extra = _PACKAGES[module]
            raise UserError(
                f"this needs the package {module}, which is not installed: pip install 'slmrec-jax[{extra}]'"
            )


def _of_texts(file: Path, options: Options) -> Encoder:
    need("onnxruntime", "tokenizers")
    session = onnx_models.open_session(file)
    output = onnx_models.choose_output(file, session, options.output)
    tokenizer_file = options.tokenizer or _beside(file, "tokenizer.json")
    if tokenizer_file is None:
        raise UserError(f"{file}: there is no tokenizer.json beside it; give the file with {setting('tokenizer')}")
    tokenizer = onnx_models.open_tokenizer(tokenizer_file, options.max_tokens)
    pooling = options.pooling or _pooling(file)
    used = {
        "output": output,
        "pooling": pooling,
        "max_tokens": tokenizer.truncation["max_length"],
        "tokenizer_sha256": digest_of(tokenizer_file),
    }
    encode = onnx_models.text_encoder(file, session, tokenizer, output, pooling)
    return _encoder(file, digest_of(file), {**used, **_data_of(file)}, encode, options)


def _of_pictures(file: Path, options: Options) -> Encoder:
    need("onnxruntime", "PIL")
    session = onnx_models.open_session(file)
    output = onnx_models.choose_output(file, session, options.output)
    how = onnx_models.preparation(file, session, options.size, options.mean, options.std)
    encode = onnx_models.picture_encoder(file, session, output, how)
    return _encoder(file, digest_of(file), {"output": output, **how._asdict(), **_data_of(file)}, encode, options)


def _of_folder(kind: Kind, folder: Path, options: Options) -> Encoder:
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        places = ", ".join(_ONNX_PLACES)
        raise UserError(f"{folder}: no model found; expected {places}, or the config.json of a Hugging Face folder")
    if kind == "image":
        raise UserError(f"{folder}: a Hugging Face folder works only for texts; export a model of pictures to ONNX")
    need("sentence_transformers")
    for name in ("output", "pooling", "tokenizer", "size", "mean", "std"):
        if getattr(options, name) is not None:
            raise UserError(f"{setting(name)} is for ONNX models, and {folder} has none: leave it out")
    model = sentence_models.open_folder(folder, options.max_tokens)
    used = {"max_tokens": options.max_tokens}
    return _encoder(folder, _digest_of_folder(folder), used, sentence_models.sentence_encoder(folder, model), options)


def _encoder(
    path: Path,
    sha256: str,
    settings: Mapping[str, Any],
    encode: Callable[[Sequence[Any]], Float[np.ndarray, "inputs columns"]],
    options: Options,
) -> Encoder:
    def normalized(inputs: Sequence[Any]) -> Float[np.ndarray, "inputs columns"]:
        values = encode(inputs)
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        return values / np.where(norms > 0, norms, 1)

    settings = {**settings, "normalize": options.normalize, "batch_size": options.batch_size}
    return Encoder(_name_of(path), sha256, settings, normalized if options.normalize else encode)


def _name_of(path: Path) -> str:
    place = path.resolve()
    place = place.with_suffix("") if place.suffix == ".onnx" else place
    while place.name in _GENERIC and place.parent.name:
        place = place.parent
    return place.name


def _beside(file: Path, name: str) -> Path | None:
    """Return a file next to a model, or next to its folder `onnx`, as in Hugging Face repositories."""
    places = [file.parent, *([file.parent.parent] if file.parent.name == "onnx" else [])]
    return next((place / name for place in places if (place / name).is_file()), None)


def _pooling(file: Path) -> Literal["mean", "first"]:
    """Return the pooling specified by a sentence-transformers folder around a model; by default the mean."""
    config = _beside(file, "1_Pooling/config.json")
    if config is None:
        return "mean"
    stored = read_json_object(config, "how tokens are pooled", "save it again")
    mean, first = (bool(stored.get(f"pooling_mode_{name}")) for name in ("mean_tokens", "cls_token"))
    if mean == first:
        raise UserError(
            f"{config}: {'both' if mean else 'neither'} of mean and first-token pooling; choose one with "
            f"{setting('pooling')}"
        )
    return "mean" if mean else "first"


def _data_of(file: Path) -> dict[str, Any]:
    """Return the digests of files next to an ONNX model that may hold its weights."""
    beside = [
        each
        for each in sorted(file.parent.iterdir())
        if each != file and each.is_file() and (each.name.startswith(file.name) or each.suffix in _WEIGHTS)
    ]
    return {"weights_sha256": {each.name: digest_of(each) for each in beside}} if beside else {}


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with reading(file, "a file of the model"), file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _digest_of_folder(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    found = {file.relative_to(folder).as_posix(): digest_of(file) for file in files}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
