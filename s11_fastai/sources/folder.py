"""Images in `train/<class>/` and `test/<class>/`, decoded on every core."""

import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from s11_fastai.errors import S11Error
from s11_fastai.sources.archive import Tree
from s11_fastai.sources.imageset import SIDE, Split

_CHUNK = 250


def is_image_folder(tree: Tree) -> bool:
    """Whether the tree has `train/` or `test/` at its top."""
    return bool(tree.folders & {"train", "test"})


def read_image_folder(tree: Tree, where: Path) -> tuple[tuple[str, ...], Split, Split]:
    """Class names, the training part and the test part, in the order of the files' names.

    Greyscale becomes RGB and alpha is dropped. Raises S11Error, with names and counts, for a
    missing or empty part or class, classes that differ, and files that are no 32x32 image.
    """
    listed = {part: _by_class(tree, part, where) for part in ("train", "test")}
    train_classes, test_classes = set(listed["train"]), set(listed["test"])
    if train_classes != test_classes:
        apart = ", ".join(sorted(train_classes ^ test_classes))
        raise S11Error(
            f"{where}: train/ and test/ must hold the same classes; they differ in {apart}"
        )
    classes = tuple(sorted(train_classes))
    names = [n for part in listed.values() for c in classes for n in part[c]]
    images = decode_all(tree, names, where)
    train_labels, test_labels = (
        np.repeat(np.arange(len(classes)), [len(part[c]) for c in classes])
        for part in listed.values()
    )
    n_train = len(train_labels)
    return classes, Split(images[:n_train], train_labels), Split(images[n_train:], test_labels)


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
        if len(folders) == 2 and folders[0] == part:
            classes[folders[1]].append(name)
    empty = ", ".join(f"{part}/{c}" for c in sorted(classes) if not classes[c])
    if empty:
        raise S11Error(f"{where}: no images in {empty}: add some or remove the class")
    return classes


def decode_all(tree: Tree, names: Sequence[str], where: Path) -> np.ndarray:
    """The images of these names, uint8 (n, 32, 32, 3); raises S11Error, naming the first, where
    some cannot be used."""
    images = np.empty((len(names), SIDE, SIDE, 3), np.uint8)
    problems = []
    starts = range(0, len(names), _CHUNK)
    chunks = [[tree.files[n] for n in names[i : i + _CHUNK]] for i in starts]
    with (
        process_mapper() as run,
        tqdm(total=len(names), desc="decoding", unit="img", disable=None) as bar,
    ):
        for start, (decoded, wrong) in zip(starts, run(decode_chunk, chunks), strict=True):
            images[start : start + len(decoded)] = decoded
            problems += [(names[start + i], why) for i, why in wrong]
            bar.update(len(decoded))
    if problems:
        name, why = problems[0]
        raise S11Error(
            f"{where}: {len(problems):,} of {len(names):,} files cannot be used; the first is "
            f"{name}, {why}: replace or remove them"
        )
    return images


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


def decode_chunk(files: Sequence[Path | bytes]) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """The images, uint8 (n, 32, 32, 3), and the place and the fault of each that has one."""
    images = np.zeros((len(files), SIDE, SIDE, 3), np.uint8)
    wrong = []
    for i, file in enumerate(files):
        try:
            images[i] = decode_image(file)
        except S11Error as error:
            wrong.append((i, str(error)))
    return images, wrong


def decode_image(file: Path | bytes) -> np.ndarray:
    """One PNG or JPEG, a path or its bytes, as uint8 RGB, shape (32, 32, 3)."""
    try:
        with Image.open(
            io.BytesIO(file) if isinstance(file, bytes) else file, formats=("PNG", "JPEG")
        ) as image:
            size = image.size
            if size == (SIDE, SIDE):
                if image.mode.startswith("I"):  # 16-bit greyscale, which Pillow would clip at 255
                    grey = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                    return np.asarray(grey.convert("RGB"))
                return np.asarray(image.convert("RGB"))
    # Pillow's decoders raise many kinds of errors on damaged bytes; all mean the same here.
    except Exception as error:
        raise S11Error(
            f"not a PNG or JPEG image that can be read ({type(error).__name__})"
        ) from error
    raise S11Error(f"{size[0]}x{size[1]} pixels, where 32x32 are needed")
