"""Files that are written whole or not at all; tensors in files that show when damaged."""

import errno
import hashlib
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from fastcore.foundation import L
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from s11_fastai.errors import S11Error

A_DAY = 86_400.0
_UNFINISHED = ".part"
# As `tempfile` names them: other programs have hidden .part files of their own.
_HALF = re.compile(r"\..+\.[a-z0-9_]{8}" + re.escape(_UNFINISHED), re.DOTALL)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path`, which is synced and becomes `path` at the block's end.

    A reader sees the old file or the new one. Where the block fails, neither a half file nor a
    changed one is left; only a process that is killed leaves its half, for `sweep` to take away.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED
        )
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):  # another's disk, as of Windows, may keep its own rights
            os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary:
            with suppress(OSError):  # what failed first is what is to be said
                Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names no file, others a temporary one
        raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write bytes, or text as UTF-8, as a `whole_file`. Raises OSError."""
    with whole_file(path) as file:
        # Names of files need not be Unicode.
        file.write(data.encode(errors="backslashreplace") if isinstance(data, str) else data)


class Folder:
    """A folder, through which passes all that is written into it, and in which it stays.

    Each file is written whole, after a look at `check`. A link in a file's place is replaced.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def sub(self, name: str) -> "Folder":
        """A folder in this one; both are checked before each write there."""
        return _SubFolder(self, name)

    def check(self) -> None:
        """Raise S11Error where nothing may be written; here, something always may."""

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a file, whole or not at all; where it is. Raises as `check`, and OSError."""
        self.check()
        write_atomically(self.path / name, data)
        return self.path / name

    def write_json(self, name: str, value: Mapping) -> Path:
        return self.write(name, json.dumps(value, indent=2) + "\n")

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], about: object = None) -> Path:
        return self.write(name, sealed(tensors, about))

    def remove(self, *names: str) -> None:
        """Take files away, where they are there. Raises as `check`, and OSError."""
        self.check()
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def remove_if_empty(self) -> None:
        """Take the folder itself away, where nothing is in it. Raises as `check`."""
        self.check()
        with suppress(OSError):
            self.path.rmdir()


class _SubFolder(Folder):
    def __init__(self, parent: Folder, name: str) -> None:
        super().__init__(parent.path / name)
        self.parent = parent

    def check(self) -> None:
        self.parent.check()
        if self.path.is_symlink():  # in a stranger's folder it may lead anywhere
            raise S11Error(
                f"{self.path} is a link, and what is written there would land elsewhere: remove it"
            )


def sweep(folder: Path, older_than: float = A_DAY) -> None:
    """Delete the halves in `folder` and below that killed processes left `older_than` seconds ago.

    Where another process may be writing in the folder, that must be longer than writing takes.
    """
    for half in folder.rglob(f".*{_UNFINISHED}"):
        with suppress(OSError):
            if is_unfinished(half) and time.time() - half.stat().st_mtime >= older_than:
                half.unlink()


def is_unfinished(path: Path) -> bool:
    """Whether the file is a half that `sweep` would take away."""
    return _HALF.fullmatch(path.name) is not None


def _sync_folder(path: Path) -> None:
    """Let a rename outlive a power cut; what is removed after it is then removed after it."""
    if os.name == "nt":  # which opens no folders
        return
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):  # not every file system can
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# safetensors writes several keys of metadata in any order; one key keeps equal files equal.
_KEY = "sealed"


class Damaged(Exception):
    """A file that is not what was written; the message says in what way."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: object = None) -> None:
    """Write a file of `sealed` tensors, whole or not at all. Raises OSError."""
    write_atomically(path, sealed(tensors, about))


def sealed(tensors: Mapping[str, Tensor], about: object = None) -> bytes:
    """Tensors, on whatever device, and `about`, plain values, as bytes with a checksum.

    They make an ordinary safetensors file: names, shapes, numbers and text.
    """
    tensors = _separate(tensors)
    text = json.dumps(about, allow_nan=False)
    seal = json.dumps({"about": text, "sha256": _digest(tensors, text)})
    return save(tensors, {_KEY: seal})


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each in memory of its own: a network may have one by two names."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return found


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors, mapped from the file, and the plain values, once their checksum is right.

    Raises Damaged for anything else than `sealed` tensors, OSError for no such file.
    """
    with _opened(path) as file:
        seal = json.loads((file.metadata() or {})[_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text, expected = str(seal["about"]), seal["sha256"]
        whole, about = _digest(tensors, text) == expected, json.loads(text)
    if not whole:
        raise Damaged(f"{path.name} has another checksum than it was written with")
    return tensors, about


def about_in(path: Path) -> Any:
    """The plain values in a file, by what it says of itself: the checksum is not looked at.

    Raises Damaged where it says nothing of the kind, OSError for no such file.
    """
    with _opened(path) as file:
        return json.loads(json.loads((file.metadata() or {})[_KEY])["about"])


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a file, by what it says of them, before any is read.

    Raises Damaged where it says nothing of the kind, OSError for no such file.
    """
    with _opened(path) as file:
        names = file.keys()
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


# Before the checksum has been compared, a damaged header can mean nearly anything.
_NOT_OURS = (SafetensorError, ValueError, LookupError, TypeError, RuntimeError)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The tensors of a file, mapped. Raises OSError, and Damaged for what its reading raises."""
    if path.exists() and not path.is_file():  # to open a pipe is to wait for ever
        raise Damaged(f"{path.name} is no plain file")
    with ExitStack() as stack:
        name = str(path)
        try:
            name.encode()
        except UnicodeEncodeError:  # safetensors opens no such name, but a descriptor has another
            name = f"/dev/fd/{stack.enter_context(path.open('rb')).fileno()}"
        try:
            yield stack.enter_context(safe_open(name, framework="pt"))
        except _NOT_OURS as error:
            kind = type(error).__name__
            raise Damaged(f"{path.name} is no file of this kind ({kind})") from error


def pack(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Nested dicts, lists and tuples of tensors and plain values as tensors by name, and JSON.

    `unpack` gives the same back, with lists for tuples. A tensor's name is its path in `state`.
    Raises TypeError for values of other kinds.
    """
    tensors: dict[str, Tensor] = {}

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = value
            return {"tensor": path}
        if isinstance(value, Mapping):
            names = {key: f"{path}.{key}".lstrip(".") for key in value}
            pairs = [[plain(key, names[key]), plain(value[key], names[key])] for key in value]
            return {"dict": pairs}  # pairs: the keys of an optimiser's state are numbers
        if isinstance(value, list | tuple | L):
            return [plain(each, f"{path}.{i}") for i, each in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if isinstance(value, np.generic) and not isinstance(value, np.longdouble):
            return plain(value.item(), path)  # as what a callback has counted with NumPy
        if value is None or isinstance(value, str | bool | int | float):
            return value
        raise TypeError(f"{path} is of {type(value).__name__}, which no checkpoint can keep")

    return tensors, plain(state, "")


def unpack(tensors: Mapping[str, Tensor], values: Any) -> Any:
    """What `pack` was given. Raises LookupError, TypeError or ValueError for anything else."""
    return _unpack(dict(tensors), values)


def _unpack(tensors: dict[str, Tensor], values: Any) -> Any:
    """The same; each tensor is taken once, so that it is no larger than its file."""
    if isinstance(values, list):
        return [_unpack(tensors, each) for each in values]
    if not isinstance(values, dict):
        return values
    ((kind, inner),) = values.items()
    if kind == "tensor":
        return tensors.pop(inner).clone()  # so that nothing hangs on the file any more
    if kind == "float":
        return float(inner)
    return {key: _unpack(tensors, each) for key, each in inner}


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
