"""Images in `train/<class>/` and `test/<class>/`, decoded on every core."""

import mimetypes
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import UnidentifiedImageError
from tqdm import tqdm

from s11_fastai.errors import S11Error
from s11_fastai.sources.archive import PARTS, Tree
from s11_fastai.sources.imageset import Split
from s11_fastai.sources.picture import cut_and_resize, reason, rgb_image
from s11_fastai.sources.resize import resize_note
from s11_fastai.streams import printable

_CHUNK = 250
# Of images of any kind, also of those that are not read: what is called so is no stray file.
_SUFFIXES = {
    *(suffix for suffix, kind in mimetypes.types_map.items() if kind.startswith("image/")),
    *(".webp", ".jfif", ".apng", ".mpo", ".heic", ".heif", ".avif"),
}


class Decoded(NamedTuple):
    """Of n files: the images, uint8 (n, side, side, 3), and their sizes as they were, (width,
    height), or None for a file that is no image."""

    images: np.ndarray
    sizes: list[tuple[int, int] | None]


def is_image_folder(tree: Tree) -> bool:
    """Whether the tree has `train/` or `test/` at its top."""
    return bool(tree.folders & PARTS)


def read_image_folder(
    tree: Tree, where: Path, side: int
) -> tuple[tuple[str, ...], Split, Split, tuple[str, ...]]:
    """Class names, the training part, the test part, in the order of the files' names, and notes.

    Images in folders below a class's belong to it. Pictures of other shapes than `side` x `side`
    are resized, files that are no pictures left out, which the notes tell. Raises S11Error, with
    names and counts, for a missing or empty part or class, classes that differ, and pictures that
    cannot be read.
    """
    listed = {part: _by_class(tree, part, where) for part in ("train", "test")}
    classes = _classes_of(listed, where)
    names = [n for part in listed.values() for c in classes for n in part[c]]
    images, sizes = decode_all(tree, names, where, side)

    kept = [name for name, size in zip(names, sizes, strict=True) if size]
    if len(kept) < len(names):
        images = images[[size is not None for size in sizes]]
    counts = Counter("/".join(PurePosixPath(name).parts[:2]) for name in kept)
    _refuse_empty({f"{part}/{c}": counts[f"{part}/{c}"] for part in listed for c in classes}, where)
    train_labels, test_labels = (
        np.repeat(np.arange(len(classes)), [counts[f"{part}/{c}"] for c in classes])
        for part in listed
    )
    n_train = len(train_labels)
    train, test = Split(images[:n_train], train_labels), Split(images[n_train:], test_labels)
    return classes, train, test, _notes(tree.files.keys(), kept, sizes, side)


def _classes_of(listed: Mapping[str, Mapping[str, list[str]]], where: Path) -> tuple[str, ...]:
    """The names of the classes; raises S11Error where the two parts have others."""
    train_classes, test_classes = set(listed["train"]), set(listed["test"])
    if train_classes != test_classes:
        apart = ", ".join(sorted(train_classes ^ test_classes))
        raise S11Error(
            f"{where}: train/ and test/ must hold the same classes; they differ in {apart}"
        )
    return tuple(sorted(train_classes))


def _by_class(tree: Tree, part: str, where: Path) -> dict[str, list[str]]:
    """The files' names of each class of one part, sorted."""
    classes: dict[str, list[str]] = {
        PurePosixPath(folder).name: []
        for folder in tree.folders
        if PurePosixPath(folder).parent == PurePosixPath(part)
    }
    if not classes:
        raise S11Error(f"{where} has no {part}/ with a folder of images for each class: add it")
    for name in sorted(tree.files):
        *folders, _file = PurePosixPath(name).parts
        if len(folders) >= 2 and folders[0] == part:
            classes[folders[1]].append(name)
    _refuse_empty({f"{part}/{c}": len(names) for c, names in classes.items()}, where)
    return classes


def _refuse_empty(counts: Mapping[str, int], where: Path) -> None:
    """Raise S11Error where a folder of a class has no images."""
    empty = ", ".join(sorted(folder for folder, n in counts.items() if not n))
    if empty:
        raise S11Error(f"{where}: no images in {empty}: add some or remove the class")


def _notes(
    files: Set[str], kept: Sequence[str], sizes: Sequence[tuple[int, int] | None], side: int
) -> tuple[str, ...]:
    """Lines on the files that were left out, and on the images that were resized."""
    notes = []
    if strays := files - set(kept):
        count = f"{len(strays):,} of {len(files):,} files, the first {printable(min(strays))}"
        notes.append(f"left out, as no image of a class: {count}")
    if others := Counter(size for size in sizes if size and size != (side, side)):
        notes.append(resize_note(others, len(kept), side))
    return tuple(notes)


def decode_all(tree: Tree, names: Sequence[str], where: Path, side: int) -> Decoded:
    """The files of these names, decoded; raises S11Error, naming the first, where some that must
    be images cannot be read."""
    images = np.empty((len(names), side, side, 3), np.uint8)
    sizes: list[tuple[int, int] | None] = []
    problems = []
    starts = range(0, len(names), _CHUNK)
    chunks = [[(n, tree.files[n]) for n in names[i : i + _CHUNK]] for i in starts]
    with (
        process_mapper() as run,
        tqdm(total=len(names), desc="decoding", unit="img", disable=None) as bar,
    ):
        for start, part in zip(starts, run(decode_chunk, chunks, repeat(side)), strict=True):
            images[start : start + len(part.sizes)] = part.images
            sizes += part.sizes
            problems += part.problems
            bar.update(len(part.sizes))
    if problems:
        name, why = problems[0]
        raise S11Error(
            f"{where}: {len(problems):,} of {len(names):,} files cannot be used; the first is "
            f"{printable(name)} ({why}): replace or remove them"
        )
    return Decoded(images, sizes)


@contextmanager
def process_mapper() -> Iterator:
    """`map` over processes. Only Linux forks safely; elsewhere a process would run the caller's
    script again, so there the work stays in this one."""
    if sys.platform != "linux":
        yield map
        return
    alive, held = os.pipe()  # held open by this process alone, so that its end can be seen
    pool = ProcessPoolExecutor(
        len(os.sched_getaffinity(0)),
        multiprocessing.get_context("fork"),
        initializer=_end_with_parent,
        initargs=(alive, held),
    )
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise S11Error(
            "a process that decoded images was killed, perhaps for want of memory: try again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        os.close(alive)
        os.close(held)


def _end_with_parent(alive: int, held: int) -> None:
    """Leave Ctrl-C to the parent process, and end when it does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.close(held)

    def watch() -> None:
        os.read(alive, 1)  # returns when nobody holds the other end any more
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Chunk(NamedTuple):
    """`Decoded` of some files, and the name and the fault of each that has one."""

    images: np.ndarray
    sizes: list[tuple[int, int] | None]
    problems: list[tuple[str, str]]


def decode_chunk(files: Sequence[tuple[str, Path | bytes]], side: int) -> Chunk:
    """Decode files, each with its name. One is an image by its content, and has to be by its
    name's suffix."""
    out = Chunk(np.zeros((len(files), side, side, 3), np.uint8), [], [])
    for i, (name, file) in enumerate(files):
        size = None
        try:
            image = rgb_image(file)
            size = (image.width, image.height)
            out.images[i] = cut_and_resize(image, (side, side))
        # Pillow's decoders raise many kinds of errors on damaged bytes; all mean the same here.
        except Exception as error:
            is_none = isinstance(error, UnidentifiedImageError) or getattr(error, "errno", None)
            if not is_none or PurePosixPath(name).suffix.lower() in _SUFFIXES:
                out.problems.append((name, reason(error)))
        out.sizes.append(size)
    return out
