"""Finding, reading and preparation of item pictures for a model. No other module imports Pillow."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from slmrec_jax.content.catalogue import IMAGE, Catalogue
from slmrec_jax.data.formats.content_hints import PICTURE_SUFFIXES
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.errors import UserError, one_line, setting

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The formats that Pillow may decode. For others, such as EPS, it would start another program."""
_WHITE = (255, 255, 255, 255)


class Unusable(Exception):
    """An exception for an item whose text or picture cannot be used; the message gives the reason."""


class Preparation(NamedTuple):
    """The conversion of a picture to a model's input: resizing, centre crop, scaling and normalisation."""

    resize: int | tuple[int, int]
    """The length of the shorter side; or the height and width, regardless of the aspect ratio."""
    crop: tuple[int, int]
    """The height and width of the crop. Parts outside the picture are black."""
    mean: tuple[float, ...]
    """The values subtracted from the channels red, green and blue."""
    std: tuple[float, ...]
    """The divisors of the channels after that."""
    scale: float = 1 / 255
    """The factor that is first applied to the values 0 to 255."""
    resample: int = 3
    """Pillow's number of the resampling filter; 3 is bicubic."""


def find_pictures(catalogue: Catalogue, folder: Path) -> list[Path | str]:
    """Return the file of each item's picture, or the reason why there is none.

    The column `image` names the file, relative to the given folder or that of the table. Without this column, it is the
    file in the folder that is named after the item, such as `dress-3.jpg`.
    """
    if not folder.is_dir():
        raise UserError(f"{setting('images', str(folder))}: there is no such folder; give the folder of the pictures")
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
        return f"{name} is a web address, and nothing is downloaded"
    for place in places:
        file = place / name
        try:
            if file.exists() and file.resolve().is_relative_to(place.resolve()):
                return file
        except (OSError, ValueError):  # the text is not a valid file name
            break
    return f"there is no file {name[:80]}"


def _file_of_id(item: str, by_stem: dict[str, list[Path]]) -> Path | str:
    found = by_stem.get(item, [])
    if len(found) > 1:
        return f"{' and '.join(file.name for file in found)} both exist"
    return found[0] if found else f"there is no file {item}.jpg or similar"


def load_picture(file: Path) -> Any:
    """Load a picture as RGB, rotated according to its metadata, with transparent parts on white.

    Raises:
        Unusable: The picture cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        check_file(file, "a picture")
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=_FORMATS) as opened:
            if opened.width * opened.height > (Image.MAX_IMAGE_PIXELS or 0):
                raise Unusable(f"{file}: it has {opened.width * opened.height} pixels, which is too many")
            picture = ImageOps.exif_transpose(opened)
            if picture.has_transparency_data:
                above = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", above.size, _WHITE), above)
            return picture.convert("RGB")
    except Unusable:
        raise
    except UserError as error:
        raise Unusable(str(error)) from error
    except Exception as error:  # decoders raise many kinds of errors
        raise Unusable(f"{file}: not a readable picture ({one_line(error)})") from error


def prepare(picture: Any, how: Preparation) -> Float32[np.ndarray, "height width 3"]:
    """Convert a picture to a model's input."""
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
