"""Decoded images on disk, one sealed file for each data set, memory-mapped when read."""

from collections.abc import Callable
from pathlib import Path

import torch

from s11_fastai.files import sweep
from s11_fastai.sealed import Damaged, read_sealed, write_sealed
from s11_fastai.sources.imageset import ImageSet, Part

_FORMAT = "s11-images-2"


def cached(folder: Path, key: str, decode: Callable[[], ImageSet]) -> ImageSet:
    """The ImageSet kept under `key`, or what `decode` gives, kept from then on.

    A file that is damaged, of another format or of another key is made again. The arrays are a
    private map of the file: writing to them changes neither the file nor another process.
    """
    path = folder / f"{key}.safetensors"
    images = _read(path, key)
    if images is None:
        sweep(folder)
        images = decode()
        _write(path, key, images)
        images = _read(path, key) or images
    return images


def _read(path: Path, key: str) -> ImageSet | None:
    try:
        arrays, about = read_sealed(path)
    except (OSError, Damaged):
        return None
    if not isinstance(about, dict) or (about.get("format"), about.get("key")) != (_FORMAT, key):
        return None
    train, valid = (
        Part(arrays[f"{part}_images"].numpy(), arrays[f"{part}_labels"].numpy())
        for part in ("train", "valid")
    )
    return ImageSet(about["name"], tuple(about["classes"]), train, valid, about["fingerprint"])


def _write(path: Path, key: str, images: ImageSet) -> None:
    about = {
        "format": _FORMAT,
        "key": key,
        "name": images.name,
        "classes": images.classes,
        "fingerprint": images.fingerprint,
    }
    arrays = {
        f"{name}_{kind}": torch.from_numpy(getattr(part, kind))
        for name, part in (("train", images.train), ("valid", images.valid))
        for kind in ("images", "labels")
    }
    write_sealed(path, arrays, about)
