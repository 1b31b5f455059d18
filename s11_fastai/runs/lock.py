"""The place of a run: its default name, whether it is free, and who is writing there."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from s11_fastai.errors import S11Error
from s11_fastai.storage import is_unfinished, sweep

_LOCK, _PID = ".lock", ".pid"


def default_path(data: str | None) -> Path:
    """`runs/<date>-<time>-<data>`, in local time; `data` is the flag's value."""
    name = Path(data or "cifar10").name.split(".")[0].lower()
    slug = re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "data"
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{slug}"


def holds_run(path: Path) -> bool:
    """Whether a run has begun in the folder."""
    return (path / "config.json").exists()


def check_free(path: Path) -> None:
    """Raise S11Error where a run cannot begin in `path` without touching what lies there."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if path.exists() and not path.is_dir():
        raise S11Error(f"--out {path} is a file: choose the name of a new folder")
    if holds_run(path):
        raise S11Error(
            f"--out {path} holds a run, which is kept: choose another folder, or add --resume to "
            "go on with it"
        )
    if path.exists() and not all(_is_ours(file) for file in path.iterdir()):
        raise S11Error(f"--out {path} is not empty: choose a new or empty folder")
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise S11Error(f"--out {path} cannot be made in {existing}: choose another place")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the run folder, made where it is not there, against a second process.

    The system lets go of a dead process's lock. Raises S11Error, with the process's number, where
    another holds it. A folder in which nothing was begun is taken away again.
    """
    was_there = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise S11Error(
            f"{path} is in use by {_holder(path)}: wait for it, stop it, or choose another --out"
        ) from None
    try:
        with suppress(OSError):  # a full disk: the number is for people only
            (path / _PID).write_text(str(os.getpid()))
        sweep(path, older_than=0)
        yield
    finally:
        with suppress(OSError):
            (path / _PID).unlink()
            if not holds_run(path):
                (path / _LOCK).unlink()
                if not was_there:
                    path.rmdir()
        lock.release()


def lock_of(path: Path) -> tuple[int, int] | None:
    """What tells the folder's lock from one made later: while it is held, no other file is it."""
    try:
        status = os.stat(path / _LOCK)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _holder(path: Path) -> str:
    try:
        return f"process {int((path / _PID).read_text())}"
    except (OSError, ValueError):
        return "another process"


def _is_ours(file: Path) -> bool:
    return file.name in (_LOCK, _PID) or is_unfinished(file)
