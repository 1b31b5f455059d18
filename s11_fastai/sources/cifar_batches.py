"""The files of CIFAR-10 and CIFAR-100: pickles, of which only plain data is read."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unicodedata import normalize

import numpy as np

from s11_fastai.errors import S11Error
from s11_fastai.sources.imageset import MAX_CLASSES, MAX_NAME, SIDE, Split
from s11_fastai.sources.plain_pickle import (
    MAX_BYTES,
    MAX_INSTRUCTIONS,
    PlainArray,
    load_plain,
)
from s11_fastai.sources.tree import Tree


@dataclass(frozen=True)
class Batches:
    """The files of a published set: their MD5, as torchvision lists them, and what is in them."""

    name: str
    md5: Mapping[str, str]
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    label_names: str
    max_bytes: int = MAX_BYTES
    max_instructions: int = MAX_INSTRUCTIONS
    notes: tuple[str, ...] = ()


CIFAR10 = Batches(
    "CIFAR-10",
    {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels="labels",
    label_names="label_names",
)
CIFAR100 = Batches(
    "CIFAR-100",
    {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
    train=("train",),
    test="test",
    meta="meta",
    labels="fine_labels",
    label_names="fine_label_names",
    # One file has all 50,000 images, with a name and two labels each.
    max_bytes=3 * MAX_BYTES,
    max_instructions=2 * MAX_INSTRUCTIONS,
    notes=("read as: CIFAR-100's files, with the fine labels",),
)


def batches_in(tree: Tree) -> Batches | None:
    """Which published set has its files, or the first of them, at the top of the tree."""
    if "data_batch_1" in tree.files:
        return CIFAR10
    return CIFAR100 if CIFAR100.md5.keys() <= tree.files.keys() else None


def read_batches(
    tree: Tree, batches: Batches, where: Path
) -> tuple[tuple[str, ...], Split, Split, bool]:
    """Class names, training part, test part, and whether every file is the published one.

    Raises S11Error, naming the file, for one that is missing, a pickle of anything but plain data,
    and contents that are no batch of CIFAR-10 or CIFAR-100.
    """
    missing = sorted(batches.md5.keys() - tree.files.keys())
    if missing:
        raise S11Error(f"{where} lacks {', '.join(missing)}: fetch the archive again")
    read = _Reader(tree, batches, where)
    names = read(batches.meta, lambda meta: _class_names(meta, batches.label_names))
    *parts, test = (
        read(name, lambda batch: _part(batch, batches.labels, len(names)))
        for name in (*batches.train, batches.test)
    )
    train = Split(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return names, train, test, read.published


# Of all names. A short pickle can hold one long text a hundred thousand times.
_MOST_LETTERS = 8 * MAX_CLASSES * MAX_NAME

Value = TypeVar("Value")


class _Reader:
    """Reads one file after the other; `published` is whether all were the published ones."""

    def __init__(self, tree: Tree, batches: Batches, where: Path) -> None:
        self.tree, self.batches, self.where = tree, batches, where
        self.published = True

    def __call__(self, name: str, take: Callable[[object], Value]) -> Value:
        """What `take` finds in the file of this name."""
        of = self.batches
        try:
            raw = self.tree.read(name, of.max_bytes)
            found = take(load_plain(raw, of.max_bytes, of.max_instructions))
        except (ValueError, KeyError) as error:
            raise S11Error(
                f"{self.where}: {name} holds no {of.name} batch ({error}): fetch the archive again"
            ) from error
        self.published &= hashlib.md5(raw, usedforsecurity=False).hexdigest() == of.md5[name]
        return found


def _entry(batch: object, key: str) -> Any:
    """An entry of a pickled dict, whose keys are bytes where Python 2 wrote it."""
    if not isinstance(batch, dict):
        raise ValueError("it is no dict")
    for each in (key, key.encode()):
        if each in batch:
            return batch[each]
    raise ValueError(f"it has no {key}")


def _class_names(meta: object, key: str) -> tuple[str, ...]:
    names = _entry(meta, key)
    if type(names) not in (list, tuple) or not all(type(n) in (str, bytes) for n in names):
        raise ValueError(f"{key} is no list of text")
    if sum(map(len, names)) > _MOST_LETTERS:
        raise ValueError(f"{key} has more than {_MOST_LETTERS:,} letters")
    return tuple(normalize("NFC", n if isinstance(n, str) else n.decode()) for n in names)


def _part(batch: object, key: str, n_classes: int) -> Split:
    data, labels = _entry(batch, "data"), _entry(batch, key)
    if type(labels) not in (list, tuple) or not all(type(n) is int for n in labels):
        raise ValueError(f"{key} is no list of whole numbers")
    if not labels or not 0 <= min(labels) <= max(labels) < n_classes:
        raise ValueError(f"a label is not from 0 to {n_classes - 1}, or there is none")
    if not isinstance(data, PlainArray) or data.array is None:
        raise ValueError("data is no array of bytes")
    if data.array.shape != (len(labels), 3 * SIDE * SIDE):
        raise ValueError(f"data is not of shape ({len(labels)}, {3 * SIDE * SIDE})")
    images = data.array.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), np.asarray(labels, np.int64))
