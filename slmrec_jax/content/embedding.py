"""Embed all items of a table into a feature file keyed by raw ids."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float16, Shaped

from slmrec_jax.content import unfinished
from slmrec_jax.content.catalogue import IMAGE, Catalogue, joined_texts
from slmrec_jax.content.models import Encoder, Kind, digest_of
from slmrec_jax.content.pictures import Unusable, find_pictures, load_picture
from slmrec_jax.data.own_files import write_tensors
from slmrec_jax.data.readers.feature_files import modality_of
from slmrec_jax.data.readers.feature_tables import FEATURE_SUFFIXES, ORIGIN
from slmrec_jax.data.readers.folders import with_suffix
from slmrec_jax.data.readers.safetensors_files import read_metadata, read_tensors
from slmrec_jax.data.readers.text_ids import encode_text_ids
from slmrec_jax.durable import PART, remove_folder, sync, writing
from slmrec_jax.errors import UserError, setting

_PLAN = "plan"
"""The metadata key of the digest of everything that the vectors depend on."""


class EmbedInputs(NamedTuple):
    """The model inputs of each item."""

    kind: Kind
    source: str
    """The origin of the inputs, in words for the metadata."""
    ids: Shaped[np.ndarray, " items"]
    """The raw ids of all items."""
    values: Mapping[int, Any]
    """The text or picture file by item, in order."""
    faults: Mapping[int, str]
    """The reasons why other items have no input."""
    load: Callable[[Any], Any]
    """Converts a value to the model's input, or raises `Unusable`."""


class Embedded(NamedTuple):
    """A summary of a file of vectors that was written."""

    file: Path
    items: int
    """The number of items in the table."""
    vectors: int
    """The number of items with a vector."""
    columns: int
    """The dimension of the vectors."""
    resumed: int
    """The number of inputs that an earlier run had finished."""
    faults: Mapping[str, str]
    """The reasons why items have no vector, by raw id. If an earlier run finished the file, only those that are known
    without loading the inputs."""


def text_inputs(catalogue: Catalogue, columns: Sequence[str]) -> EmbedInputs:
    """Return the items' texts from the given columns."""
    texts = joined_texts(catalogue, columns)
    values = {row: text for row, text in enumerate(texts) if text}
    faults = dict.fromkeys((row for row, text in enumerate(texts) if not text), "there is no text")
    return EmbedInputs("text", ", ".join(columns), catalogue.ids, values, faults, lambda text: text)


def picture_inputs(catalogue: Catalogue, folder: Path) -> EmbedInputs:
    """Return the items' pictures from the given folder."""
    found = find_pictures(catalogue, folder)
    values = {row: each for row, each in enumerate(found) if isinstance(each, Path)}
    faults = {row: each for row, each in enumerate(found) if isinstance(each, str)}
    return EmbedInputs("image", "pictures", catalogue.ids, values, faults, load_picture)


def check_place(kind: Kind, folder: Path) -> Path:
    """Return the file to write in a features folder. Another file of the same modality there is rejected."""
    file = folder / f"{kind}.safetensors"
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise UserError(f"{file}: not a regular file; remove it, or give another {setting('out')}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{setting('out', str(folder))}: not a folder; give the folder of feature files")
    others = with_suffix(folder, FEATURE_SUFFIXES) if folder.is_dir() else []
    for other in others:
        if other != file and modality_of(other) == modality_of(file):
            raise UserError(
                f"{other}: it already holds the {modality_of(file)} features; remove it, or give another "
                f"{setting('out')}"
            )
    return file


def embed(
    inputs: EmbedInputs,
    encoder: Encoder,
    file: Path,
    *,
    overwrite: bool = False,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Embedded:
    """Compute the item vectors and write them. A stopped run continues after its last batch.

    The file is written atomically. It holds `values` in float16 and the raw ids, as integers or encoded by `text_ids`.
    Items without a vector are left out, which readers treat as missing. The same inputs, model and settings give the
    same bytes, whether or not the run was stopped.

    Args:
        inputs: The items' texts or pictures.
        encoder: The model.
        file: The result of `check_place`.
        overwrite: Whether to replace a file that was made in a different way.
        told: Receives the numbers of finished and of all inputs after each batch.

    Raises:
        UserError: The file exists and was made in a different way, no item has a vector, or a vector is not finite.
    """
    plan = _plan(inputs, encoder)
    part = file.with_name(f".{file.name}{PART}")
    with writing(file, f"give another {setting('out')}"):
        if file.exists():
            if _is_of_plan(file, plan):
                return _summary(file, inputs, None)
            if not overwrite:
                raise UserError(
                    f"{file}: it already exists, made of other items, by another model or with other settings; give "
                    f"{setting('overwrite', True)}, or another {setting('out')}"
                )
        with unfinished.held(part, plan) as done:
            resumed = done.inputs
            told(done.inputs, len(inputs.values))
            _finish(part, done, inputs, encoder, told)
            if not done.items:
                reason = next(iter({**inputs.faults, **done.faults}.values()))
                remove_folder(part)
                flag = setting("text" if inputs.kind == "text" else "images")
                raise UserError(
                    f"no item has a {_noun(inputs.kind)} that can be used; the first: {reason}; give others with {flag}"
                )
            metadata = {
                **dict(zip(ORIGIN, (inputs.source, encoder.name, encoder.sha256), strict=True)),
                "settings": json.dumps(encoder.settings),
                _PLAN: plan,
            }
            whole = part / file.name
            ids = inputs.ids[done.items]
            keys = {"item": ids} if ids.dtype.kind == "i" else encode_text_ids(ids)
            write_tensors({"values": unfinished.stored_rows(part, done), **keys}, whole, metadata=metadata)
            sync(whole)
            os.replace(whole, file)
            sync(file.parent)
            remove_folder(part)
    return _summary(file, inputs, done, resumed)


def _finish(
    part: Path, done: unfinished.Done, inputs: EmbedInputs, encoder: Encoder, told: Callable[[int, int], None]
) -> None:
    """Process the remaining batches, which are the same whether or not the run was stopped."""
    items = list(inputs.values)
    size = encoder.settings["batch_size"]
    for start in range(done.inputs, len(items), size):
        batch = items[start : start + size]
        loaded, faults = {}, {}
        for item in batch:
            try:
                loaded[item] = inputs.load(inputs.values[item])
            except Unusable as fault:
                faults[item] = str(fault)
        values = np.zeros((0, done.columns), np.float16)
        if loaded:
            values = _as_float16(encoder.encode(list(loaded.values())), inputs.ids[list(loaded)])
            if done.columns and values.shape[1] != done.columns:
                raise UserError(
                    f"the model returns {values.shape[1]} columns, but {done.columns} in earlier batches: name an "
                    f"output of fixed width with {setting('output')}"
                )
        unfinished.add_batch(part, done, len(batch), list(loaded), values, faults)
        told(done.inputs, len(items))


def _as_float16(
    values: Float[np.ndarray, "rows columns"], ids: Shaped[np.ndarray, " rows"]
) -> Float16[np.ndarray, "rows columns"]:
    if len(undefined := ids[~np.isfinite(values).all(axis=1)]):
        raise UserError(f"the model's vector of item {undefined[0].item()!r} is NaN or infinite: use another model")
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    wrong = ~np.isfinite(halves).all(axis=1)
    if wrong.any():
        raise UserError(
            f"the model's vector of item {ids[wrong][0].item()!r} has values that float16 cannot hold; "
            f"{setting('normalize', True)} divides vectors by their norms"
        )
    return halves


def _plan(inputs: EmbedInputs, encoder: Encoder) -> str:
    """Return a digest of everything that the vectors depend on."""
    digest = hashlib.sha256()
    for part in (inputs.kind, inputs.source, encoder.sha256, encoder.settings, inputs.ids.tolist()):
        digest.update(json.dumps(part, sort_keys=True).encode() + b"\n")
    for item, value in inputs.values.items():
        entry: list[Any] = [item, value]
        if isinstance(value, Path):
            entry = [item, value.name, _digest_of_picture(value)]
        digest.update(json.dumps(entry).encode() + b"\n")
    return digest.hexdigest()


def _digest_of_picture(file: Path) -> str:
    """Return the digest of a picture's content. An unreadable picture counts as unusable."""
    try:
        return digest_of(file) if file.is_file() else ""
    except UserError:
        return ""


def _is_of_plan(file: Path, plan: str) -> bool:
    read_tensors(file, "vectors that this program wrote", f"remove it, or give another {setting('out')}", mapped=True)
    return read_metadata(file).get(_PLAN) == plan


def _summary(file: Path, inputs: EmbedInputs, done: unfinished.Done | None, resumed: int = 0) -> Embedded:
    if done is None:
        stored = read_tensors(file, "vectors", mapped=True).values()
        rows, columns = next(each.shape for each in stored if each.ndim == 2)
        return Embedded(file, len(inputs.ids), rows, columns, len(inputs.values), _named(inputs.faults, inputs))
    named = _named({**inputs.faults, **done.faults}, inputs)
    return Embedded(file, len(inputs.ids), len(done.items), done.columns, resumed, named)


def _named(faults: Mapping[int, str], inputs: EmbedInputs) -> dict[str, str]:
    """Return the faults by raw id, in item order."""
    return {str(inputs.ids[item]): reason for item, reason in sorted(faults.items())}


def _noun(kind: Kind) -> str:
    return "picture" if kind == IMAGE else kind
