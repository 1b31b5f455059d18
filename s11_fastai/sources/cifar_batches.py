"""The `cifar-10-batches-py` files: pickles, of which only plain data is read."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from s11_fastai.errors import S11Error
from s11_fastai.sources.archive import Tree
from s11_fastai.sources.imageset import SIDE, Split
from s11_fastai.sources.plain_pickle import MAX_BYTES, PlainArray, load_plain

# The published files' MD5, as torchvision.datasets.CIFAR10 lists them.
PUBLISHED = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
_TRAIN = tuple(name for name in PUBLISHED if name.startswith("data_batch_"))


def is_batches_folder(tree: Tree) -> bool:
    """Whether the tree has the first of the batch files at its top."""
    return "data_batch_1" in tree.files


def read_batches(tree: Tree, where: Path) -> tuple[tuple[str, ...], Split, Split, bool]:
    """Class names, training part, test part, and whether every file is the published one.

    Raises S11Error, naming the file, for one that is missing, a pickle of anything but plain data,
    and contents that are no CIFAR-10 batch.
    """
    missing = sorted(PUBLISHED.keys() - tree.files.keys())
    if missing:
        raise S11Error(f"{where} lacks {', '.join(missing)}: fetch the archive again")
    names, published = _read(tree, "batches.meta", where, _class_names)
    parts = []
    for name in (*_TRAIN, "test_batch"):
        part, as_published = _read(tree, name, where, lambda batch: _part(batch, len(names)))
        parts.append(part)
        published = published and as_published
    train = Split(*(np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True)))
    return names, train, parts[-1], published


Value = TypeVar("Value")


def _read(
    tree: Tree, name: str, where: Path, take: Callable[[object], Value]
) -> tuple[Value, bool]:
    """What `take` finds in one of the files, and whether it is the published one."""
    try:
        raw = tree.read(name, MAX_BYTES)
        found = take(load_plain(raw))
    except (ValueError, KeyError) as error:
        raise S11Error(
            f"{where}: {name} holds no CIFAR-10 batch ({error}): fetch the archive again"
        ) from error
    return found, hashlib.md5(raw, usedforsecurity=False).hexdigest() == PUBLISHED[name]


def _entry(batch: object, key: str) -> Any:
    """An entry of a pickled dict, whose keys are bytes where Python 2 wrote it."""
    if not isinstance(batch, dict):
        raise ValueError("it is no dict")
    for each in (key, key.encode()):
        if each in batch:
            return batch[each]
    raise ValueError(f"it has no {key}")


def _class_names(meta: object) -> tuple[str, ...]:
    names = _entry(meta, "label_names")
    if type(names) not in (list, tuple) or not all(type(n) in (str, bytes) for n in names):
        raise ValueError("label_names is no list of text")
    return tuple(n if isinstance(n, str) else n.decode() for n in names)


def _part(batch: object, n_classes: int) -> Split:
    data, labels = _entry(batch, "data"), _entry(batch, "labels")
    if type(labels) not in (list, tuple) or not all(type(n) is int for n in labels):
        raise ValueError("labels is no list of whole numbers")
    if not labels or not 0 <= min(labels) <= max(labels) < n_classes:
        raise ValueError(f"a label is not from 0 to {n_classes - 1}, or there is none")
    if not isinstance(data, PlainArray) or data.array is None:
        raise ValueError("data is no array of bytes")
    if data.array.shape != (len(labels), 3 * SIDE * SIDE):
        raise ValueError(f"data is not of shape ({len(labels)}, {3 * SIDE * SIDE})")
    images = data.array.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), np.asarray(labels, np.int64))
