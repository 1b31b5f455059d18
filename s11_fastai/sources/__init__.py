"""Where images come from: a path or a name in, an ImageSet out."""

import configparser
import os
from dataclasses import replace
from numbers import Integral
from pathlib import Path

from s11_fastai.errors import S11Error
from s11_fastai.sources.archive import (
    PARTS,
    Tree,
    archive_key,
    archive_tree,
    folder_key,
    folder_tree,
)
from s11_fastai.sources.cache import cached
from s11_fastai.sources.cifar_batches import PUBLISHED, is_batches_folder, read_batches
from s11_fastai.sources.digits import load_digits
from s11_fastai.sources.download import download
from s11_fastai.sources.folder import is_image_folder, read_image_folder
from s11_fastai.sources.imageset import SIDE, ImageSet, Split, check_classes, fingerprint
from s11_fastai.sources.resize import resized
from s11_fastai.streams import printable

__all__ = ["ImageSet", "Split", "load_images"]

# Below it, nothing is left of an image after the network's three poolings.
_LEAST_SIDE = 8
# Copies of CIFAR-10 that are known by their pixels.
_KNOWN = {
    "f4933fed79460c2f4fb1a720c7accb12ae74d341c85f86d2da2fdc0db151d78a": "CIFAR-10, JPEG q75 copy",
}


def load_images(data: str | Path | None = None, holdout: int = 0, *, size: int = SIDE) -> ImageSet:
    """The images at `data`, RGB, decoded once and memory-mapped from a cache after that.

    `data` is a folder with `train/<class>/` and `test/<class>/` of PNG, JPEG, WebP, GIF, BMP or
    TIFF, a `cifar-10-batches-py` folder, a `.tar`, `.tgz` or `.tar.gz` of either, "digits", or None
    for CIFAR-10: a copy in fastai's data or archive folder, else the published archive, downloaded.
    Cache and download lie in fastai's folders (`FASTAI_HOME`, by default `~/.fastai`), in
    `data/s11-cache` and `archive`.

    Images of another shape than `size` x `size` are cut to their middle and resized, antialiased;
    files that are no images are left out: `ImageSet.notes` tells of both. With `holdout`, that many
    training images are what is evaluated, as `ImageSet.hold_out` says. Raises S11Error for anything
    that is no such data.
    """
    if not isinstance(size, Integral) or size < _LEAST_SIDE:
        raise S11Error(f"`size` must be a whole number of pixels from {_LEAST_SIDE}, not {size!r}")
    images = _load(data, int(size))
    return images.hold_out(holdout) if holdout else images


def _load(data: str | Path | None, side: int) -> ImageSet:
    if data == "digits":
        return resized(load_digits(), side)
    path = _cifar10() if data is None else Path(os.path.expanduser(data))
    if path.is_dir() and str(data):
        tree = _data_in(folder_tree(path), path)
        key, read = folder_key(tree, path), lambda: tree
    elif path.is_file():
        key, read = archive_key(path), lambda: _data_in(archive_tree(path), path)
    else:
        raise S11Error(f"{data!r} does not exist: give a folder, .tar, .tgz, .tar.gz or 'digits'")
    key = key if side == SIDE else f"{key}-{side}"
    folder = fastai_folder("data") / "s11-cache"
    images = cached(folder, key, lambda: _decode(read(), path, side))
    place = printable(path.resolve().name.split(".")[0])
    return replace(images, name=_KNOWN.get(images.fingerprint) or images.name or place)


def _data_in(tree: Tree, path: Path) -> Tree:
    """The part of a tree that is data, at its top or one folder below."""
    for top in ["", *sorted(f for f in tree.folders if "/" not in f)]:
        inner = tree.below(top)
        if is_batches_folder(inner):
            return inner.only(PUBLISHED)
        if is_image_folder(inner):
            return inner.only(PARTS)
    raise S11Error(
        f"{path} holds neither CIFAR-10's batches nor train/ and test/ with a folder for each "
        "class: give the folder that has them at its top"
    )


def _decode(tree: Tree, path: Path, side: int) -> ImageSet:
    """The images of a tree, with a name only where they are the published ones."""
    name, notes = "", tuple[str, ...]()
    if is_batches_folder(tree):
        classes, train, test, published = read_batches(tree, path)
        name = "CIFAR-10" if published else ""
    else:
        classes, train, test, notes = read_image_folder(tree, path, side)
    check_classes(classes, path)
    mark = fingerprint(classes, train, test)
    return resized(ImageSet(name, classes, train, test, mark, notes=notes), side)


def _cifar10() -> Path:
    """A copy of CIFAR-10 where fastai keeps its data, or the published archive, fetched."""
    data, archive = fastai_folder("data"), fastai_folder("archive") / "cifar-10-python.tar.gz"
    for copy in (data / "cifar-10-batches-py", data / "cifar10"):
        if (copy / "data_batch_1").is_file() or all((copy / p).is_dir() for p in ("train", "test")):
            return copy
    return archive if archive.is_file() else download(archive)


def fastai_folder(folder: str) -> Path:
    """One of the folders that fastai keeps its things in, "data" or "archive".

    Raises S11Error where fastai's own settings cannot be read.
    """
    from fastai.data.external import fastai_cfg

    try:
        return fastai_cfg().path(folder, default=folder)
    except (configparser.Error, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise S11Error(f"fastai's config.ini is damaged ({why}): mend or delete it") from error
