"""Files that are written whole or not at all."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

A_DAY = 86_400.0
_UNFINISHED = ".part"


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
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names no file, others a temporary one
        raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write bytes, or text as UTF-8, as a `whole_file`. Raises OSError."""
    with whole_file(path) as file:
        # Names of files need not be Unicode.
        file.write(data.encode(errors="backslashreplace") if isinstance(data, str) else data)


def sweep(folder: Path, older_than: float = A_DAY) -> None:
    """Delete the halves in `folder` and below that killed processes left `older_than` seconds ago.

    Where another process may be writing in the folder, that must be longer than writing takes.
    """
    for half in folder.rglob(f".*{_UNFINISHED}"):
        with suppress(OSError):
            if time.time() - half.stat().st_mtime >= older_than:
                half.unlink()


def is_unfinished(path: Path) -> bool:
    """Whether the file is a half that `sweep` would take away."""
    return path.name.startswith(".") and path.suffix == _UNFINISHED


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
