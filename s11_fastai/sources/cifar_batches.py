"""The `cifar-10-batches-py` files: pickles, read by a reader that can only build plain data."""

import codecs
import hashlib
import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from s11_fastai.errors import S11Error
from s11_fastai.sources.archive import Tree
from s11_fastai.sources.imageset import SIDE, Split

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

    Raises S11Error for a missing file, a pickle that asks for anything but arrays, bytes, lists,
    dicts, numbers and strings, and for contents that are no CIFAR-10 batch.
    """
    missing = sorted(PUBLISHED.keys() - tree.files.keys())
    if missing:
        raise S11Error(f"{where} lacks {', '.join(missing)}: fetch the archive again")
    raw = {name: tree.read(name) for name in PUBLISHED}
    published = all(
        hashlib.md5(raw[n], usedforsecurity=False).hexdigest() == PUBLISHED[n] for n in raw
    )
    try:
        values = {name: load_plain(data) for name, data in raw.items()}
        classes = tuple(_text(name) for name in _entry(values["batches.meta"], "label_names"))
        parts = [_part(values[name], len(classes)) for name in (*_TRAIN, "test_batch")]
    except (ValueError, TypeError, KeyError) as error:
        raise S11Error(
            f"{where} holds no CIFAR-10 batches ({error}): fetch the archive again"
        ) from error
    train = Split(*(np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True)))
    return classes, train, parts[-1], published


def load_plain(data: bytes) -> object:
    """Unpickle `data` where it holds plain values and byte arrays only; else raise ValueError."""
    try:
        _check_sizes(data)
        return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    # A damaged pickle can raise nearly anything; none of it has run foreign code.
    except Exception as error:
        raise ValueError(f"unreadable: {error}") from error


def _check_sizes(data: bytes) -> None:
    """Raise ValueError where the pickle asks for more room than its own length accounts for."""
    for opcode, number, _ in pickletools.genops(data):
        if isinstance(number, int) and "PUT" in opcode.name and number > len(data):
            raise ValueError(f"a memo of {number:,} entries")


class _PlainUnpickler(pickle.Unpickler):
    """Knows the few names that NumPy's arrays pickle to, each as a harmless stand-in."""

    def find_class(self, module: str, name: str) -> object:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return lambda *_: _Bytes()
        stand_in = {
            ("numpy", "ndarray"): _Bytes,
            ("numpy", "dtype"): _ByteType,
            ("_codecs", "encode"): _encode_latin1,
        }.get((module, name))
        if stand_in is None:
            raise ValueError(f"it asks for {module}.{name}, which is not plain data")
        return stand_in


class _ByteType:
    """Stands for numpy.dtype('uint8'), and for no other."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("u1", b"u1"):
            raise ValueError(f"an array of {code!r}, not of bytes")

    def __setstate__(self, state: object) -> None:
        pass


class _Bytes:
    """Stands for an array of bytes while it is unpickled."""

    array: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _version, shape, _type, fortran_order, raw = state
        if fortran_order:
            raise ValueError("an array in column order")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape)


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes written as {encoding!r}")
    return codecs.encode(text, "latin1")


def _entry(batch: object, key: str) -> Any:
    if not isinstance(batch, dict):
        raise ValueError("not a dict")
    return batch[key] if key in batch else batch[key.encode()]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _part(batch: object, n_classes: int) -> Split:
    pixels, labels = _entry(batch, "data"), np.asarray(_entry(batch, "labels"), dtype=np.int64)
    if not isinstance(pixels, _Bytes) or pixels.array.shape != (len(labels), 3 * SIDE * SIDE):
        raise ValueError("images and labels do not fit together")
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError("a label that is no class")
    images = pixels.array.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels)
