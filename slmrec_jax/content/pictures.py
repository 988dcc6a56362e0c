"""Finds the pictures of items, reads them, and prepares them for a model. The only module that imports Pillow."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from slmrec_jax.content.catalogue import IMAGE, Catalogue
from slmrec_jax.data.formats.content_hints import PICTURE_SUFFIXES
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.refusals import one_line
from slmrec_jax.errors import UserError, setting

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The formats that Pillow may decode; for others, such as EPS, it would start another program."""
_WHITE = (255, 255, 255, 255)


class Unusable(Exception):
    """The text or picture of one item cannot be used; the message says why."""


class Preparation(NamedTuple):
    """How a picture becomes the input of a model: resized, cut out at its centre, scaled and normalised."""

    resize: int | tuple[int, int]
    """The length of the shorter side; or the height and the width, whatever that does to the proportions."""
    crop: tuple[int, int]
    """The height and the width of what is cut out; what the picture lacks there is black."""
    mean: tuple[float, ...]
    """Subtracted from each channel, red, green and blue."""
    std: tuple[float, ...]
    """Divides each channel then."""
    scale: float = 1 / 255
    """Multiplies the values 0 to 255 first."""
    resample: int = 3
    """Pillow's number of the filter; 3 is bicubic."""


def find_pictures(catalogue: Catalogue, folder: Path) -> list[Path | str]:
    """Return the file of each item's picture, or why there is none.

    The column `image` names it, from this folder or from that of the table; without one, a file in the folder does that
    is called like the item, such as `dress-3.jpg`.
    """
    if not folder.is_dir():
        raise UserError(f"{setting('images', str(folder))}: there is no such folder; give the one of the pictures")
    by_stem: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith("."):
            by_stem.setdefault(file.stem, []).append(file)
    named = catalogue.columns.get(IMAGE, [""] * len(catalogue.ids))
    places = folder, catalogue.file.parent
    return [
        _named_file(name, places) if name.strip() else _file_of_id(str(item), by_stem)
        for item, name in zip(catalogue.ids.tolist(), named, strict=True)
    ]


def _named_file(name: str, places: Sequence[Path]) -> Path | str:
    if "://" in name:
        return f"{name} is an address, and nothing is downloaded"
    for place in places:
        file = place / name
        try:
            if file.exists() and file.resolve().is_relative_to(place.resolve()):
                return file
        except (OSError, ValueError):  # the text cannot be the name of a file
            break
    return f"there is no file {name[:80]}"


def _file_of_id(item: str, by_stem: dict[str, list[Path]]) -> Path | str:
    found = by_stem.get(item, [])
    if len(found) > 1:
        return f"{' and '.join(file.name for file in found)} are both there"
    return found[0] if found else f"there is no file {item}.jpg or the like"


def load_picture(file: Path) -> Any:
    """Return a picture in red, green and blue, turned as its metadata say, transparent parts on white.

    Raises:
        Unusable: It cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        check_file(file, "a picture")
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=_FORMATS) as opened:
            if opened.width * opened.height > (Image.MAX_IMAGE_PIXELS or 0):
                raise Unusable(f"{file}: {opened.width * opened.height} pixels are too many")
            picture = ImageOps.exif_transpose(opened)
            if picture.has_transparency_data:
                above = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", above.size, _WHITE), above)
            return picture.convert("RGB")
    except Unusable:
        raise
    except UserError as error:
        raise Unusable(str(error)) from error
    except Exception as error:  # decoders raise errors of many kinds
        raise Unusable(f"{file}: not a readable picture ({one_line(error)})") from error


def prepare(picture: Any, how: Preparation) -> Float32[np.ndarray, "height width 3"]:
    """Return the numbers of a picture as a model takes them."""
    if isinstance(how.resize, int):
        shorter = min(picture.size)
        width, height = (max(1, round(side * how.resize / shorter)) for side in picture.size)
    else:
        height, width = how.resize
    resized = picture.resize((width, height), how.resample)
    left, top = ((have - want) // 2 for have, want in zip((width, height), how.crop[::-1], strict=True))
    cut = resized.crop((left, top, left + how.crop[1], top + how.crop[0]))
    values = np.asarray(cut, np.float32) * np.float32(how.scale)
    mean, std = (np.array(each, np.float32) for each in (how.mean, how.std))
    return np.asarray((values - mean) / std)
