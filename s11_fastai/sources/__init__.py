"""Where images come from: a path or a name in, an ImageSet out."""

import configparser
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral
from pathlib import Path

from s11_fastai.errors import S11Error
from s11_fastai.sources.archive import READ, archive_key, archive_tree, without_suffix
from s11_fastai.sources.cache import cached
from s11_fastai.sources.cifar_batches import read_batches
from s11_fastai.sources.digits import load_digits
from s11_fastai.sources.download import download
from s11_fastai.sources.folder import read_image_folder
from s11_fastai.sources.imageset import SIDE, ImageSet, Split, check_classes, fingerprint
from s11_fastai.sources.known import NAMES, known_name
from s11_fastai.sources.layout import Layout, check_test, find_layout
from s11_fastai.sources.resize import resized
from s11_fastai.sources.tree import Disk, Tree, folder_key
from s11_fastai.streams import one_line

__all__ = ["ImageSet", "Split", "load_images"]

# Below it, nothing is left of an image after the network's three poolings.
_LEAST_SIDE = 8


def load_images(data: str | Path | None = None, holdout: int = 0, *, size: int = SIDE) -> ImageSet:
    """The images at `data`, RGB, decoded once and memory-mapped from a cache after that.

    `data` is a folder of PNG, JPEG, WebP, GIF, BMP or TIFF: `train/<class>/` and `test/<class>/`
    (or `val/`, `train_set/` and the like), or with `holdout` `train/<class>/`, `<class>/` or
    Kaggle's `train/` with `trainLabels.csv`; or the batches of CIFAR-10 or CIFAR-100; or a `.zip`
    or `.tar` of any of these; or "digits"; or None for CIFAR-10: a copy in fastai's data or archive
    folder, else the published archive, downloaded. They may lie two folders deep. Cache and
    download lie in fastai's folders (`FASTAI_HOME`, by default `~/.fastai`), in `data/s11-cache`
    and `archive`.

    Images of another shape than `size` x `size` are cut to their middle and resized, antialiased;
    files that are no images are left out: `ImageSet.notes` tells of both, and of what was taken for
    what. With `holdout`, that many training images are what is evaluated, as `ImageSet.hold_out`
    says. Raises S11Error for anything that is no such data.
    """
    images = load_all(data, size=size, needs_test=not holdout)
    return images.hold_out(holdout) if holdout else images


def load_all(
    data: str | Path | None = None, *, size: int = SIDE, needs_test: bool = True
) -> ImageSet:
    """The images at `data` as `load_images` reads them, none held out.

    Without `needs_test` the test part may be empty.
    """
    if not isinstance(size, Integral) or size < _LEAST_SIDE:
        raise S11Error(f"`size` must be a whole number of pixels from {_LEAST_SIDE}, not {size!r}")
    side = int(size)
    if data == "digits":
        images = resized(load_digits(), side)
        note = "these are scikit-learn's digits: for the folder of that name give ./digits"
        return replace(images, notes=(*images.notes, note)) if os.path.isdir(data) else images
    if data is not None and not isinstance(data, str | os.PathLike):
        raise S11Error(f"`data` is a path or 'digits', not {data!r:.60}")
    path = _cifar10() if data is None else Path(os.path.expanduser(data))
    if "://" in str(data):
        raise S11Error(f"{data!r:.300} is an address: fetch it first, and give the file's path")
    if not str(data) or not (kind := _kind(path)):
        raise S11Error(f"{data!r:.300} does not exist: give a folder, a {READ}, or 'digits'")
    read = _from_folder if kind == "folder" else _from_archive
    images = read(path, side, needs_test)
    return replace(images, name=images.name or _own_name(path))


def _kind(path: Path) -> str:
    """ "folder" or "file", or "" where there is neither; raises S11Error where that is not told."""
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        raise S11Error(f"{path} cannot be read ({error.strerror}): mend its permissions") from error
    except (OSError, ValueError):  # a name that is too long, or has a zero in it
        return ""
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else ""


def _own_name(path: Path) -> str:
    """What images at a path are called whose pixels nobody knows."""
    path = path.resolve()
    name = one_line(path.name if path.is_dir() else without_suffix(path.name)) or "images"
    return f"unverified {name}" if name.split(",")[0] in NAMES else name


def _from_folder(path: Path, side: int, needs_test: bool) -> ImageSet:
    """The images of a folder. What lies beside them in it changes neither key nor cache."""
    place = Disk(path)
    layout = find_layout(place, path)
    check_test(layout.has_test or not needs_test, path)
    tree = place.whole(layout.top, layout.names)
    images = _kept(folder_key(tree, path), path, side, lambda: _decode(tree, layout, path, side))
    return replace(images, notes=(*layout.notes, *images.notes))


def _from_archive(path: Path, side: int, needs_test: bool) -> ImageSet:
    """The images of an archive, which is only unpacked where they are not in the cache."""

    def decode() -> ImageSet:
        tree = archive_tree(path)
        layout = find_layout(tree, path)
        check_test(layout.has_test or not needs_test, path)
        images = _decode(tree.whole(layout.top, layout.names), layout, path, side)
        return replace(images, notes=(*layout.notes, *tree.notes, *images.notes))

    images = _kept(archive_key(path), path, side, decode)
    check_test(len(images.valid.labels) > 0 or not needs_test, path)
    return images


def _kept(key: str, path: Path, side: int, decode: Callable[[], ImageSet]) -> ImageSet:
    """The images from the cache, or decoded and kept there."""
    key = key if side == SIDE else f"{key}-{side}"
    return cached(fastai_folder("data") / "s11-cache", key, decode, path.resolve(), side)


def _decode(tree: Tree, layout: Layout, path: Path, side: int) -> ImageSet:
    """The images of a tree, with a name only where they are CIFAR-10's or CIFAR-100's."""
    name, notes = "", tuple[str, ...]()
    if layout.batches:
        classes, train, test, published = read_batches(tree, layout.batches, path)
        name = layout.batches.name if published else ""
    else:
        classes, train, test, notes = read_image_folder(tree, layout, path, side)
    check_classes(classes, path)
    mark = fingerprint(classes, train, test)
    name = name or known_name(classes, train, test, mark)
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
        found = fastai_cfg().path(folder, default=folder)
        if "\0" in str(found):
            raise S11Error(f"fastai's config.ini names no folder as {folder}: mend or delete it")
        return found
    except (configparser.Error, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise S11Error(f"fastai's config.ini is damaged ({why}): mend or delete it") from error
    except OSError:  # it has no settings and cannot write any: these are its own
        return Path(os.getenv("FASTAI_HOME", "~/.fastai")).expanduser().absolute() / folder
    except RuntimeError as error:
        raise S11Error(
            f"fastai's folders lie in yours, which cannot be found ({error}): set FASTAI_HOME to "
            "the path of a folder"
        ) from error
