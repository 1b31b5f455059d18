"""One picture, whatever it is given as, to upright RGB pixels: for training and for predicting."""

from __future__ import annotations

import io
import os
import warnings
from contextlib import suppress
from typing import IO, TypeAlias

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from s11_fastai.errors import S11Error, is_lack_of_memory
from s11_fastai.streams import one_line

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# Of images of any kind, also of those that are not read: what is called so is no stray file.
SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".tif"),
    *(".tiff", ".avif", ".cr2", ".cr3", ".dds", ".dng", ".heic", ".heif", ".ico", ".j2k", ".jp2"),
    *(".jxl", ".nef", ".pbm", ".pcx", ".pgm", ".pnm", ".ppm", ".psd", ".ras", ".svg", ".tga"),
    *(".xbm", ".xpm"),
}

# What a person may call a picture.
Picture: TypeAlias = (
    str | os.PathLike | bytes | bytearray | IO[bytes] | Image.Image | np.ndarray | torch.Tensor
)


def read_picture(item: Picture, shape: tuple[int, int]) -> np.ndarray:
    """A picture as uint8 RGB, (height, width, 3), where `shape` is (height, width).

    `item` is a PNG, JPEG, WebP, GIF, BMP or TIFF, as a path, as bytes or as an open file; a PIL
    image; an array, (H, W) or (H, W, C); or a tensor, the same or (C, H, W). C is 1, 3 or 4. Arrays
    and tensors are uint8, other whole numbers from 0 to 255 or of 16 bits, or floats from 0 to 1.

    A camera's orientation is applied, 16 bits become 8, alpha is dropped as fastai drops it, and of
    several frames the first counts. A picture of another shape is cut to its middle and resized,
    antialiased. Raises S11Error, of one line, for anything else.
    """
    try:
        return cut_and_resize(rgb_image(item), shape)
    # Pillow's decoders raise many kinds of errors on damaged bytes; all mean the same here.
    except Exception as error:
        if is_lack_of_memory(error):  # which is no fault of the picture
            raise
        raise S11Error(
            f"{_name_of(item)} is no picture that can be read ({reason(error)}): "
            f"{_remedy(item, error)}"
        ) from error


def rgb_image(item: Picture) -> Image.Image:
    """What `read_picture` reads, upright, in RGB and in its own size.

    Raises UnidentifiedImageError where a file is of no format that is read, and whatever Pillow
    raises for one that is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures, odd palettes and odd metadata
        if isinstance(item, torch.Tensor):
            return _from_values(_channels_last(item), tuple(item.shape))
        if isinstance(item, np.ndarray):
            return _from_values(item, item.shape)
        if isinstance(item, Image.Image):
            return _from_pillow(item)
        if isinstance(item, bytes | bytearray):
            item = io.BytesIO(item)
        if not isinstance(item, str | os.PathLike) and not hasattr(item, "read"):
            raise TypeError(f"it is of type {type(item).__name__}")
        with Image.open(item, formats=FORMATS) as image:
            return _from_pillow(image)


def is_picture(file: str | os.PathLike | bytes) -> bool:
    """Whether a file is of a format that is read, by how it begins."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS):
            return True
    except Exception:  # many kinds of errors, as in `read_picture`
        return False


def cut_and_resize(image: Image.Image, shape: tuple[int, int]) -> np.ndarray:
    """The middle of an RGB image, resized to `shape`, (height, width): uint8 (*shape, 3)."""
    if image.size != shape[::-1]:
        image = ImageOps.fit(image, shape[::-1], Image.Resampling.BICUBIC)
    return np.array(image)


def reason(error: Exception) -> str:
    """In a few words, why a picture cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _from_pillow(image: Image.Image) -> Image.Image:
    image.load()
    with suppress(Exception):  # damaged metadata tells no orientation
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else it would be copied
            image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # more than 8 bits, which Pillow would clip at 255
        values = np.asarray(image)
        return _from_values(values, values.shape)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_values(values: np.ndarray, given: tuple[int, ...]) -> Image.Image:
    """An image of values (H, W) or (H, W, C), which were given in another shape perhaps."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if not values.size or not (
        values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))
    ):
        raise ValueError(
            f"its shape is {given}, where an array has (H, W) or (H, W, C) and a tensor "
            "(C, H, W), with 1, 3 or 4 channels"
        )
    return Image.fromarray(_as_bytes(values)).convert("RGB")


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Brightness as uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "fiu":
        raise TypeError(f"it holds {values.dtype}, not numbers")
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise ValueError(f"floats must lie in 0 to 1, not from {low:g} to {high:g}")
        return np.round(values * 255.0).astype(np.uint8)
    if low < 0 or high >= 1 << 16:
        raise ValueError(f"whole numbers must lie in 0 to 65535, not from {low} to {high}")
    # Some versions of Pillow give 16 bits as mode I, of 32 bits.
    sixteen = (values.dtype.kind == "u" and values.dtype.itemsize == 2) or high > 255
    return (values >> 8 if sixteen else values).astype(np.uint8)


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    plain = tensor.detach().as_subclass(torch.Tensor).cpu()
    plain = plain.float() if plain.is_floating_point() else plain
    channels = (1, 3, 4)
    is_last = plain.ndim == 3 and plain.shape[0] not in channels and plain.shape[2] in channels
    return (plain.permute(1, 2, 0) if plain.ndim == 3 and not is_last else plain).numpy()


def _remedy(item: object, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return "look at the path"
    if isinstance(item, str | os.PathLike | bytes | bytearray) or hasattr(item, "read"):
        return "give another copy of it, as PNG or JPEG"
    return "give a path, bytes, a PIL image, an array or a tensor"


def _name_of(item: object) -> str:
    """How an error calls it."""
    if isinstance(item, Image.Image):
        return (
            one_line(f"{getattr(item, 'filename', ''):.200}") or f"a PIL image of mode {item.mode}"
        )
    if isinstance(item, str | os.PathLike):
        return one_line(f"{os.fsdecode(item):.200}")
    if isinstance(item, np.ndarray | torch.Tensor):
        return f"{type(item).__name__} of {item.dtype}"
    if isinstance(item, bytes | bytearray):
        return f"a picture of {len(item):,} bytes"
    return " ".join(f"{item!r:.40}".split())
