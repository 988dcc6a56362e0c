"""Reader for folders with one `.npy` file per item, named by raw id, as written by Ducho."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from slmrec_jax.data.readers.folders import visible_entries
from slmrec_jax.data.readers.npy_files import read_numbers
from slmrec_jax.data.readers.opening import check_name
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.vectors import held_type, is_real
from slmrec_jax.errors import UserError

_NAMES = ("visual_embeddings", "audio_embeddings", "textual_embeddings")
_SUFFIX = ".npy"


class VectorsOfFolder(NamedTuple):
    """The vectors of the items that have a file."""

    ids: Shaped[np.ndarray, " entries"]
    """The raw ids as text."""
    values: Float[np.ndarray, "entries columns"]
    """The vectors, in the dtype in which data sets hold them."""
    stored: str
    """The dtype of the numbers in the first file."""


def is_item_folder(place: Path) -> bool:
    """Return whether a path is a folder that is named like an output of Ducho."""
    return place.name in _NAMES and place.is_dir()


def read_item_folder(folder: Path) -> VectorsOfFolder:
    """Read the vectors from the only folder `<library>/<model>/<layer>` within the folder.

    Raises:
        UserError: There are several such folders or none, or a file does not hold a single vector of the same length as
            the others.
    """
    layers = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]  # such as .ipynb_checkpoints
        if any(map(_is_vector, names)):
            layers.append(Path(place))
    if len(layers) != 1:
        found = [os.path.relpath(layer, folder) for layer in sorted(layers)]
        wrong = f"vectors of several layers, {listed(found)}: keep one" if found else "no .npy file: fill or remove it"
        raise UserError(f"{folder}: it has {wrong}")
    files = [file for file in visible_entries(layers[0]) if _is_vector(file.name)]
    first = _read_vector(files[0])
    values = np.empty((len(files), len(first)), held_type(first.dtype))
    with np.errstate(over="ignore"):  # infinite values are rejected later, with their rows
        for row, file in enumerate(files):
            vector = _read_vector(file)
            if len(vector) != len(first):
                raise UserError(f"{file}: {len(vector)} numbers, but {len(first)} in {files[0].name}; extract it again")
            values[row] = vector
    return VectorsOfFolder(np.array([file.name.removesuffix(_SUFFIX) for file in files]), values, first.dtype.name)


def _is_vector(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".")


def _read_vector(file: Path) -> Shaped[np.ndarray, " columns"]:
    check_name(file)
    values = read_numbers(file, "the vector of one item")
    if values.ndim not in (1, 2) or values.size not in (0, values.shape[-1]) or not is_real(values.dtype):
        raise UserError(f"{file}: an array of {values.dtype} of shape {values.shape}; expected the vector of one item")
    if not values.size:
        raise UserError(f"{file}: it holds no values; remove it if the item lacks the modality")
    return values.reshape(-1)
