"""ONNX models for texts and pictures. No other module imports onnxruntime and tokenizers."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64

from slmrec_jax.content.pictures import Preparation, prepare
from slmrec_jax.data.readers.json_lists import read_json_object
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.errors import UserError, one_line, setting

POOLED = ("sentence_embedding", "text_embeds", "image_embeds", "pooler_output")
"""Names of outputs with one vector per input. The first one that a model has is used."""

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_IMAGENET = "ImageNet's are 0.485 0.456 0.406 and 0.229 0.224 0.225"
_PREPARATION_FILE = "preprocessor_config.json"


def open_session(file: Path) -> Any:
    """Open an ONNX model on the CPU, where results are the same in every run."""
    import onnxruntime

    check_file(file, "an ONNX model")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    # Set explicitly, because the library would otherwise bind threads to cores that this process may not use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    options.intra_op_num_threads = cores or 1
    try:
        return onnxruntime.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises errors of many kinds
        raise UserError(f"{file}: not a readable ONNX model ({one_line(error)}); export it again") from error


def choose_output(file: Path, session: Any, name: str | None) -> str:
    """Choose the output with the vectors: the named one, a pooled one recognised by its name, or the first."""
    names = [output.name for output in session.get_outputs()]
    if name is not None and name not in names:
        raise UserError(f"{file}: there is no output {name!r}; give one of {listed(names)} with {setting('output')}")
    return name or next((known for known in POOLED if known in names), str(names[0]))


def run_model(file: Path, session: Any, output: str, inputs: Mapping[str, Any]) -> Float32[np.ndarray, "rows ..."]:
    """Run a model on a batch and return an output. A model with a fixed batch size only gets batches of that size."""
    count = len(next(iter(inputs.values())))
    size = next((each.shape[0] for each in session.get_inputs() if isinstance(each.shape[0], int)), count)
    found = []
    for start in range(0, count, size):
        rows = np.arange(start, start + size).clip(max=count - 1)  # the last batch is padded with its last row
        try:
            (values,) = session.run([output], {name: values[rows] for name, values in inputs.items()})
        except Exception as error:  # the library raises errors of many kinds
            raise UserError(f"{file}: the model cannot run on this input ({one_line(error)})") from error
        if getattr(values, "ndim", 0) < 2 or len(values) != size or values.dtype.kind != "f":
            shape = f"{getattr(values, 'dtype', type(values).__name__)} of shape {getattr(values, 'shape', ())}"
            raise UserError(
                f"{file}: the output {output!r} is {shape} for {size} inputs; with {setting('output')}, name "
                "one that has a row of numbers per input"
            )
        found.append(values[: count - start])
    return np.concatenate(found).astype(np.float32)


def text_encoder(
    file: Path, session: Any, tokenizer: Any, output: str, pooling: str
) -> Callable[[Sequence[str]], Float[np.ndarray, "texts columns"]]:
    """Return a function from texts to vectors: the mean over a text's tokens, or the row of its first token."""
    types = {each.name: each.type for each in session.get_inputs()}
    known = {"input_ids", "attention_mask", "token_type_ids"}
    if "input_ids" not in types or not types.keys() <= known or not set(types.values()) <= _INTEGERS.keys():
        found = ", ".join(f"{name} {kind}" for name, kind in types.items())
        raise UserError(f"{file}: not a text model: its inputs are {found}; expected {', '.join(sorted(known))}")
    lengths = [each.shape[1] for each in session.get_inputs() if isinstance(each.shape[1], int)]
    if lengths:
        tokenizer.enable_truncation(min(tokenizer.truncation["max_length"], *lengths))

    def encode(texts: Sequence[str]) -> Float[np.ndarray, "texts columns"]:
        tokens = tokenize(tokenizer, texts, lengths[0] if lengths else 1)
        values = run_model(
            file, session, output, {name: tokens[name].astype(_INTEGERS[kind]) for name, kind in types.items()}
        )
        if values.ndim == 2:
            return values
        if values.ndim != 3 or values.shape[:2] != tokens["input_ids"].shape:
            raise UserError(
                f"{file}: the output {output!r} has the shape {values.shape}; name another with {setting('output')}"
            )
        if pooling == "first":
            return values[:, 0]
        weights = tokens["attention_mask"].astype(np.float32)[:, :, None]
        return np.asarray((values * weights).sum(axis=1) / weights.sum(axis=1).clip(min=1))

    return encode


def open_tokenizer(file: Path, max_tokens: int | None) -> Any:
    """Open a `tokenizer.json`. It cuts texts after `max_tokens` tokens, or by default where the file says."""
    from tokenizers import Tokenizer

    check_file(file, "a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain `Exception`
        raise UserError(f"{file}: not a readable tokenizer ({one_line(error)}); save it again") from error
    if max_tokens is not None:
        tokenizer.enable_truncation(max_tokens)
    elif tokenizer.truncation is None:
        raise UserError(f"{file}: it does not say where texts are cut; give {setting('max_tokens')}, such as 256")
    return tokenizer


def tokenize(tokenizer: Any, texts: Sequence[str], length: int) -> dict[str, Int64[np.ndarray, "texts tokens"]]:
    """Return the inputs of a text model, padded at the end to the longest text and at least to `length`."""
    padding = tokenizer.padding or {}
    tokenizer.no_padding()
    encoded = tokenizer.encode_batch(list(texts))
    longest = max(length, *(len(each.ids) for each in encoded))
    shape = len(encoded), longest
    ids = np.full(shape, padding.get("pad_id", tokenizer.token_to_id("[PAD]") or 0), np.int64)
    mask, kinds = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, each in enumerate(encoded):
        count = len(each.ids)
        ids[row, :count], mask[row, :count], kinds[row, :count] = each.ids, 1, each.type_ids
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}


def picture_encoder(
    file: Path, session: Any, output: str, how: Preparation
) -> Callable[[Sequence[Any]], Float[np.ndarray, "pictures columns"]]:
    """Return a function from pictures to vectors: rows unchanged, the mean over a map, or the first token."""
    (only,) = session.get_inputs()

    def encode(pictures: Sequence[Any]) -> Float[np.ndarray, "pictures columns"]:
        values = np.stack([prepare(picture, how) for picture in pictures])
        if only.shape[1] == 3:
            values = values.transpose(0, 3, 1, 2)
        values = run_model(file, session, output, {only.name: values.astype(_FLOATS[only.type])})
        if values.ndim == 4:
            return np.asarray(values.mean(axis=(2, 3) if only.shape[1] == 3 else (1, 2)))
        return values[:, 0] if values.ndim == 3 else values

    return encode


def preparation(
    file: Path,
    session: Any,
    size: int | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
) -> Preparation:
    """Return how to prepare pictures: from the settings, or the model's metadata, or the file next to the model.

    The ONNX file's metadata and `preprocessor_config.json` use Hugging Face's names: `size`, `crop_size`, `image_mean`,
    `image_std`, `resample`, `rescale_factor`. The size may also come from the model's input.
    """
    inputs = session.get_inputs()
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]) or inputs[0].type not in _FLOATS:
        found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
        raise UserError(f"{file}: not a model of pictures: its inputs are {found}; expected one with 3 channels")
    given = {**_beside(file), **_in_metadata(file, session)}
    try:
        mean = mean or _triple(given.get("image_mean"))
        std = std or _triple(given.get("image_std"))
        sides = shape[2:] if shape[1] == 3 else shape[1:3]
        fixed = (sides[0], sides[1]) if all(isinstance(side, int) for side in sides) else None
        resize = size or _resize(given.get("size")) or (min(fixed) if fixed else None)
        crop = fixed or ((size, size) if size else _sides(given.get("crop_size")) or _sides(resize))
        scale, resample = float(given.get("rescale_factor", 1 / 255)), int(given.get("resample", 3))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{file}: its metadata or {_PREPARATION_FILE} cannot be used ({one_line(error)})") from error
    if resize is None or crop is None:
        raise UserError(f"{file}: it does not say how large pictures are; give {setting('size')}, such as 224")
    if mean is None or std is None:
        raise UserError(
            f"{file}: it does not say how pictures are normalised; give {setting('mean')} and {setting('std')}, three "
            f"numbers each ({_IMAGENET})"
        )
    if isinstance(resize, int) and resize < max(crop):
        resize = max(crop)
    return Preparation(resize, crop, mean, std, scale, resample)


def _beside(file: Path) -> Mapping[str, Any]:
    for place in (file.parent, file.parent.parent):
        beside = place / _PREPARATION_FILE
        if beside.is_file() and (place == file.parent or file.parent.name == "onnx"):
            return read_json_object(beside, "how pictures are prepared", "save it again")
    return {}


def _in_metadata(file: Path, session: Any) -> dict[str, Any]:
    names = ("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor")
    stored = session.get_modelmeta().custom_metadata_map
    try:
        return {name: json.loads(stored[name]) for name in names if name in stored}
    except ValueError as error:
        raise UserError(
            f"{file}: its metadata is not valid JSON ({one_line(error)}); expected numbers or lists"
        ) from error


def _triple(value: Any) -> tuple[float, float, float] | None:
    if value is None:
        return None
    red, green, blue = map(float, value)
    return red, green, blue


def _resize(value: Any) -> int | tuple[int, int] | None:
    if isinstance(value, dict) and "shortest_edge" in value:
        return int(value["shortest_edge"])
    return int(value) if isinstance(value, int | float) else _sides(value)


def _sides(value: Any) -> tuple[int, int] | None:
    """Parse a height and width from a number, a pair, or Hugging Face's form."""
    if value is None:
        return None
    if isinstance(value, dict):
        return int(value["height"]), int(value["width"])
    if isinstance(value, int | float):
        return int(value), int(value)
    height, width = value
    return int(height), int(width)
