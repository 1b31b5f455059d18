"""Decoded images on disk, one safetensors file for each data set, memory-mapped when read."""

import json
from collections.abc import Callable
from pathlib import Path

from s11_fastai.files import write_atomically
from s11_fastai.sources.imageset import ImageSet, Part, fingerprint

_FORMAT = "s11-images-1"


def cached(folder: Path, key: str, decode: Callable[[], ImageSet]) -> ImageSet:
    """The ImageSet kept under `key`, or what `decode` gives, kept from then on.

    A file that is damaged or of another format is made again. The arrays are a private map of
    the file: writing to them changes neither the file nor another process.
    """
    path = folder / f"{key}.safetensors"
    images = _read(path)
    if images is None:
        images = decode()
        _write(path, images)
        images = _read(path) or images
    return images


def _read(path: Path) -> ImageSet | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
        if about.pop("format") != _FORMAT:
            return None
        train, valid = (
            Part(arrays[f"{p}_images"], arrays[f"{p}_labels"]) for p in ("train", "valid")
        )
        images = ImageSet(train=train, valid=valid, **{**about, "classes": tuple(about["classes"])})
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    intact = fingerprint(images.classes, images.train, images.valid) == images.fingerprint
    return images if intact else None


def _write(path: Path, images: ImageSet) -> None:
    from safetensors.numpy import save

    about = {
        "format": _FORMAT,
        "name": images.name,
        "classes": images.classes,
        "fingerprint": images.fingerprint,
    }
    arrays = {
        "train_images": images.train.images,
        "train_labels": images.train.labels,
        "valid_images": images.valid.images,
        "valid_labels": images.valid.labels,
    }
    write_atomically(path, save(arrays, {"about": json.dumps(about)}))
