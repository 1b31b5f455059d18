"""The place of a run: its default name, whether it is free, and who is writing there."""

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from s11_fastai.callbacks.progress import summary
from s11_fastai.errors import DivergedError, S11Error, Stopped
from s11_fastai.runs.checkpoints import Checkpoints
from s11_fastai.runs.records import check_holds_run, results_or_none
from s11_fastai.runs.settings import holds_run, read_config
from s11_fastai.runs.whole import read_all
from s11_fastai.sources.archive import without_suffix
from s11_fastai.storage import Folder, is_unfinished, sweep
from s11_fastai.streams import printable

_LOCK, _PID = ".lock", ".pid"
# What a file system says that knows no locks, as some over a network do.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def default_path(data: str | None) -> Path:
    """`runs/<date>-<time>-<data>`, in local time; `data` is the setting."""
    name = without_suffix(Path(data or "cifar10").name).lower()
    slug = re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "data"
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{slug}"


class RunFolder(Folder):
    """A run's folder while this process holds it: all that a run writes passes through here.

    `begun` says whether a run has begun there; `finished` is the last word on one that is over, and
    `flaw` is what is wrong with one that must be brought to its end again. Other processes than the
    main one hold nothing and write nothing.
    """

    def __init__(self, path: Path, finished: str = "") -> None:
        super().__init__(path)
        self.begun, self.finished, self.flaw = holds_run(path), finished, ""
        self._lock = _identity(path / _LOCK)

    def check(self) -> None:
        """Raise S11Error where the folder is gone, or is another run's by now.

        Writing would make the folder anew, or into another run's.
        """
        gone = self.begun and not holds_run(self.path)
        if gone or _identity(self.path / _LOCK) != self._lock:
            raise S11Error(
                f"{self.path} was moved or removed while the run went on: give `resume` and `out`, "
                "where it is now, or begin again"
            )

    def take_back(self) -> None:
        """Take away what begins a run, where there can be none: the folder is free again."""
        self.remove("env.json", "config.json")
        self.begun = False


@contextmanager
def claim(
    path: Path, *, resume: bool = False, or_next: bool = False, is_main: bool = True
) -> Iterator[RunFolder]:
    """The folder of a run that is to begin there, or with `resume` to go on.

    With `or_next`, where there is one of that name the new one has "-2", "-3" and so on after it.

    The main process holds it against a second run until the block's end; the system lets go of a
    dead process's lock. A folder in which nothing was begun is taken away again. A finished run of
    which something is missing or damaged goes on from its checkpoint. Raises S11Error where it has
    none, where another run holds the folder, where it is not free, and where it cannot be made.
    An error that ends the block says, in `run_folder`, where to go on.
    """
    if not is_main:
        yield RunFolder(path)
        return
    results = results_or_none(path) if resume else None
    flaw = _flaw_of(path) if results else ""
    if results and not flaw:
        yield RunFolder(path, _last_word(path, results))
        return
    if flaw and not Checkpoints(path / "checkpoint").names():
        raise S11Error(f"the run is finished, but {flaw}")
    _check_place(path.parent if or_next else path)
    if not or_next and path.exists():  # before anything is written there: it may be a stranger's
        _check_ours(path, resume)
    path, made = _make_new(path) if or_next else (path, ())
    with locked(path, made) as folder:
        folder.flaw = flaw
        _check_ours(folder.path, resume)  # by now another run may have begun
        try:
            yield folder
        except (OSError, MemoryError, RuntimeError, Stopped, DivergedError) as error:
            if holds_run(path):
                error.run_folder = path  # type: ignore[union-attr]
            raise


def _make_new(path: Path) -> tuple[Path, Sequence[Path]]:
    """A folder of this name or the next that is free, made at once, and all that were made for it.

    Of processes that want one name in the same moment, each gets its own.
    """
    above, new, number = _missing(path.parent), path, 1
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            new.mkdir()
            return new, (new, *above)
        except FileExistsError:
            number += 1
            new = path.with_name(f"{path.name}-{number}")


def _missing(path: Path) -> list[Path]:
    """Those of the folders down to `path` that are not there, the lowest first."""
    return [place for place in (path, *path.parents) if not place.exists()]


def _flaw_of(path: Path) -> str:
    """What is wrong with the folder of a finished run; nothing where all can be read."""
    try:
        read_all(path)
    except (S11Error, OSError) as error:
        return str(error)
    return ""


def _last_word(path: Path, results: dict) -> str:
    """What there is to say of a finished run, once what its process may have left is gone."""
    if any((path / name).exists() for name in ("checkpoint", _PID)):
        with suppress(OSError, S11Error), locked(path) as folder:
            Checkpoints(folder.sub("checkpoint")).remove()
    return f"{path} is finished: {summary(results)}"


@contextmanager
def opened(path: Path) -> Iterator[RunFolder]:
    """The folder of a run that is there, held to write into. Raises S11Error where none is."""
    check_holds_run(path)
    read_config(path)  # other programs have files of this name, too
    with locked(path) as folder:
        yield folder


@contextmanager
def locked(path: Path, made: Sequence[Path] = ()) -> Iterator[RunFolder]:
    """A folder that is made where there is none, held against other processes.

    Where nothing is begun in it, it is taken away with those that were `made` for it.
    """
    made = (*made, *_missing(path))
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / _LOCK, fallback_to_soft=False)  # whose marker a dead process leaves
    try:
        _acquire(lock, path)
    except (S11Error, OSError):
        _take_away(made)
        raise
    folder = RunFolder(path)
    try:
        with suppress(OSError):  # a full disk: the number is for people only
            folder.write(_PID, str(os.getpid()))
        sweep(path, older_than=0)
        yield folder
    finally:
        try:
            with suppress(OSError, S11Error):  # where it is another run's by now, so are these
                folder.remove(_PID)
                if not holds_run(path):
                    folder.remove(_LOCK)
                    _take_away(made)
        finally:
            lock.release()


def _acquire(lock: FileLock, path: Path) -> None:
    """Hold the lock; raises S11Error where another process does, or none can."""
    try:
        if (path / _LOCK).is_symlink():  # some versions of filelock would empty what it leads to
            (path / _LOCK).unlink()
        lock.acquire(timeout=0)
    except Timeout:
        raise S11Error(
            f"{path} is in use by {_holder(path)}: wait for it, stop it, or choose another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        with suppress(OSError):
            (path / _LOCK).unlink()
        raise S11Error(
            f"the file system of {path} has no locks, which keep two runs out of one folder: "
            "choose a folder on another disk, or mount this one with locks"
        ) from error


def _take_away(made: Sequence[Path]) -> None:
    """Remove folders, the lowest first, as far as they are empty."""
    with suppress(OSError):
        for place in made:
            place.rmdir()


def _check_place(path: Path) -> None:
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if path.exists() and not path.is_dir():
        raise S11Error(f"{path} is a file: choose the name of a new folder")
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise S11Error(f"{path} cannot be made in {existing}: choose another place")


def _check_ours(path: Path, resume: bool) -> None:
    """Raise S11Error where the folder neither is free nor holds a run that is to go on."""
    if resume and holds_run(path):
        read_config(path)
    else:
        _check_free(path)


def _check_free(path: Path) -> None:
    if holds_run(path):
        raise S11Error(
            f"{path} holds a run, which is kept: choose another folder, or give `resume` to go on "
            "with it"
        )
    if others := sorted(file.name for file in path.iterdir() if not _is_ours(file)):
        raise S11Error(
            f"{path} is not empty, as {printable(others[0])} is there: choose a new or empty folder"
        )


def _identity(file: Path) -> tuple[int, int] | None:
    """What tells a file from one made later, or None where there is none."""
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _holder(path: Path) -> str:
    try:
        return f"process {int((path / _PID).read_text())}"
    except (OSError, ValueError):
        return "another process"


def _is_ours(file: Path) -> bool:
    return file.name in (_LOCK, _PID) or is_unfinished(file)
