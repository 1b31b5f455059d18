"""The place of a run: its default name, whether it is free, and who is writing there."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from s11_fastai.errors import DivergedError, S11Error, Stopped
from s11_fastai.runs.records import holds_run, read_results
from s11_fastai.storage import is_unfinished, sweep, write_atomically, write_tensors

_LOCK, _PID = ".lock", ".pid"


def default_path(data: str | None) -> Path:
    """`runs/<date>-<time>-<data>`, in local time; `data` is the setting."""
    name = Path(data or "cifar10").name.split(".")[0].lower()
    slug = re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "data"
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{slug}"


class RunFolder:
    """A run's folder while this process holds it: all that a run writes passes through here.

    `begun` says whether a run has begun there; `results` are those of a run that is finished.
    Other processes than the main one hold nothing and write nothing.
    """

    def __init__(self, path: Path, holds_run: bool = False, results: dict | None = None) -> None:
        self.path, self.begun, self.results = path, holds_run, results
        self._lock = _identity(path / _LOCK)

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file of the folder, whole or not at all. Raises as `check`, and OSError."""
        self.check()
        write_atomically(self.path / name, data)

    def write_json(self, name: str, value: Mapping) -> None:
        self.write(name, json.dumps(value, indent=2) + "\n")

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], about: object = None) -> None:
        self.check()
        write_tensors(self.path / name, tensors, about)

    def remove(self, *names: str) -> None:
        """Take files away, where they are there."""
        self.check()
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def check(self) -> None:
        """Raise S11Error where the folder is gone, or is another run's by now.

        Writing would make the folder anew, or into another run's.
        """
        gone = self.begun and not holds_run(self.path)
        if gone or _identity(self.path / _LOCK) != self._lock:
            raise S11Error(f"{self.path} was moved or removed while the run went on: begin again")


@contextmanager
def claim(path: Path, *, resume: bool = False, is_main: bool = True) -> Iterator[RunFolder]:
    """The folder of a run that is to begin there, or with `resume` to go on.

    The main process holds it against a second run until the block's end; the system lets go of a
    dead process's lock. A folder in which nothing was begun is taken away again. Raises S11Error
    where another run holds it, where it is not free, and where it cannot be made. An error that
    ends the block says, in `run_folder`, where to go on.
    """
    if not is_main:
        yield RunFolder(path)
        return
    if resume and (results := read_results(path)):
        yield RunFolder(path, holds_run=True, results=results)
        return
    _check_place(path)
    with locked(path):
        if not (resume and holds_run(path)):
            _check_free(path)
        try:
            yield RunFolder(path, holds_run(path))
        except (OSError, Stopped, DivergedError) as error:
            if holds_run(path):
                error.run_folder = path  # type: ignore[union-attr]
            raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    made = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise S11Error(
            f"{path} is in use by {_holder(path)}: wait for it, stop it, or choose another folder"
        ) from None
    try:
        with suppress(OSError):  # a full disk: the number is for people only
            write_atomically(path / _PID, str(os.getpid()))
        sweep(path, older_than=0)
        yield
    finally:
        with suppress(OSError):
            (path / _PID).unlink(missing_ok=True)
            if not holds_run(path):
                (path / _LOCK).unlink()
                for place in made:
                    place.rmdir()
        lock.release()


def _check_place(path: Path) -> None:
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if path.exists() and not path.is_dir():
        raise S11Error(f"{path} is a file: choose the name of a new folder")
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise S11Error(f"{path} cannot be made in {existing}: choose another place")


def _check_free(path: Path) -> None:
    if holds_run(path):
        raise S11Error(
            f"{path} holds a run, which is kept: choose another folder, or give `resume` to go on "
            "with it"
        )
    if not all(_is_ours(file) for file in path.iterdir()):
        raise S11Error(f"{path} is not empty: choose a new or empty folder")


def _identity(file: Path) -> tuple[int, int] | None:
    """What tells a file from one made later, or None where there is none."""
    try:
        status = os.stat(file)
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
