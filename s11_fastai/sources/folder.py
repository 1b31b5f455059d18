"""The images of a layout of folders, decoded on every core."""

import errno
import multiprocessing
import os
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
from unicodedata import normalize

import numpy as np
from PIL import UnidentifiedImageError
from tqdm import tqdm

from s11_fastai.errors import S11Error, is_lack_of_memory
from s11_fastai.signals import leave_to_parent
from s11_fastai.sources.imageset import Split
from s11_fastai.sources.label_list import by_label
from s11_fastai.sources.layout import Layout
from s11_fastai.sources.picture import SUFFIXES, cut_and_resize, reason, rgb_image
from s11_fastai.sources.resize import resize_note
from s11_fastai.sources.tree import Tree
from s11_fastai.streams import few

_CHUNK = 250


class Decoded(NamedTuple):
    """Of n files: the images, uint8 (n, side, side, 3), and their sizes as they were, (width,
    height), or None for a file that is no image."""

    images: np.ndarray
    sizes: list[tuple[int, int] | None]


class _File(NamedTuple):
    """An image's name in the tree, the part and the place of its class among the classes."""

    name: str
    part: str
    label: int


def read_image_folder(
    tree: Tree, layout: Layout, where: Path, side: int
) -> tuple[tuple[str, ...], Split, Split, tuple[str, ...]]:
    """Class names, the training part, the test part, in the order of the files' names, and notes.

    Images in folders below a class's belong to it. Pictures of other shapes than `side` x `side`
    are resized, files that are no pictures left out, which the notes tell. The test part is empty
    where the layout has none. Raises S11Error, with names and counts, for an empty part or class,
    classes that differ, and pictures that cannot be read.
    """
    listed = _listed(tree, layout, where)
    classes = _classes_of(listed, where)
    files = [
        _File(name, part, label)
        for part, by_class in listed.items()
        for label, each in enumerate(classes)
        for name in by_class[each]
    ]
    images, sizes = decode_all(tree, [file.name for file in files], where, side)

    kept = [file for file, size in zip(files, sizes, strict=True) if size]
    if len(kept) < len(files):
        images = images[[size is not None for size in sizes]]
    counts = Counter((file.part, file.label) for file in kept)
    _refuse_empty(
        {_folder(part, c): counts[part, i] for part in listed for i, c in enumerate(classes)}, where
    )
    labels = np.array([file.label for file in kept], np.int64)
    n = sum(file.part == layout.train for file in kept)  # they come first
    notes = _notes(tree.files.keys() - {layout.labels}, [f.name for f in kept], sizes, side)
    return classes, Split(images[:n], labels[:n]), Split(images[n:], labels[n:]), notes


Listed = Mapping[str, Mapping[str, list[str]]]  # part, class, names of files


def _listed(tree: Tree, layout: Layout, where: Path) -> Listed:
    if layout.labels:
        return {layout.train: by_label(tree, layout.train, layout.labels, where)}
    parts = [layout.train] if layout.test is None else [layout.train, layout.test]
    return {part: _by_class(tree, part, where) for part in parts}


def _classes_of(listed: Listed, where: Path) -> tuple[str, ...]:
    """The names of the classes; raises S11Error where the parts have others."""
    train, *others = (set(by_class) for by_class in listed.values())
    for other in others:
        if train != other:
            ours, theirs = (f"{part}/" for part in listed)
            raise S11Error(
                f"{where}: {ours} and {theirs} must hold the same classes; they differ in "
                f"{few(sorted(train ^ other))}: mend that, or rename {theirs}"
            )
    return tuple(sorted(train))


def _by_class(tree: Tree, part: str, where: Path) -> dict[str, list[str]]:
    """The files' names of each class of one part, sorted; an empty part is the whole tree.

    Macs write é as two letters and others as one, and both mean the same class.
    """
    above = PurePosixPath(part).parts
    place = len(above)
    classes: dict[str, list[str]] = {
        normalize("NFC", folder.name): []
        for folder in map(PurePosixPath, tree.folders)
        if len(folder.parts) == place + 1 and folder.parts[:place] == above
    }
    for name in sorted(tree.files):
        *folders, _file = PurePosixPath(name).parts
        if len(folders) > place and tuple(folders[:place]) == above:
            classes[normalize("NFC", folders[place])].append(name)
    _refuse_empty({_folder(part, c): len(names) for c, names in classes.items()}, where)
    return classes


def _folder(part: str, name: str) -> str:
    return f"{part}/{name}" if part else name


def _refuse_empty(counts: Mapping[str, int], where: Path) -> None:
    """Raise S11Error where a folder of a class has no images."""
    empty = sorted(folder for folder, n in counts.items() if not n)
    if empty:
        raise S11Error(f"{where}: no images in {few(empty)}: add some or remove the class")


def _notes(
    files: Set[str], kept: Sequence[str], sizes: Sequence[tuple[int, int] | None], side: int
) -> tuple[str, ...]:
    """Lines on the files that were left out, and on the images that were resized."""
    notes = []
    if strays := files - set(kept):
        count = f"{len(strays):,} of {len(files):,} files, the first {few([min(strays)])}"
        notes.append(f"left out, as no image of a class: {count}")
    if others := Counter(size for size in sizes if size and size != (side, side)):
        notes.append(resize_note(others, len(kept), side))
    return tuple(notes)


def decode_all(tree: Tree, names: Sequence[str], where: Path, side: int) -> Decoded:
    """The files of these names, decoded; raises S11Error, naming the first ones, where some that
    must be images cannot be read."""
    images = np.empty((len(names), side, side, 3), np.uint8)
    sizes: list[tuple[int, int] | None] = []
    problems = []
    # A few large pictures are work for every core, too.
    size = min(_CHUNK, len(names) // (8 * (os.cpu_count() or 1)) + 1)
    starts = range(0, len(names), size)
    chunks = [[(n, tree.files[n]) for n in names[i : i + size]] for i in starts]
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
        shown = few([f"{name} ({why})" for name, why in problems])
        raise S11Error(
            f"{where}: {len(problems):,} of {len(names):,} files cannot be used, {shown}: replace "
            "or remove them"
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
    """Leave signals to the parent process, and end when it does, however it ends."""
    leave_to_parent()
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
            if is_lack_of_memory(error):  # which is no fault of the file
                raise
            # A link to nothing or in a circle; what else a disk does not give may come later.
            gone = getattr(error, "errno", None) in (errno.ENOENT, errno.ELOOP)
            is_none = gone or isinstance(error, UnidentifiedImageError)
            if not is_none or PurePosixPath(name).suffix.lower() in SUFFIXES:
                out.problems.append((name, reason(error)))
        out.sizes.append(size)
    return out
