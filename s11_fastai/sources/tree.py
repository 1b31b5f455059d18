"""Files by their path: those of a folder on disk, or of an archive, in memory."""

import errno
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from s11_fastai.errors import S11Error

DEEPEST = 32  # folders below each other
_MOST_WAYS = 100  # to one folder
# What the folders of training images and of evaluated ones are called, in any letter case,
# perhaps with one of the words that people put beside.
TRAIN = ("train", "training")
TEST = ("test", "testing")
VALID = ("val", "valid", "validation")
_PARTS = frozenset((*TRAIN, *TEST, *VALID))
_BESIDE = {"set", "data", "dataset", "images", "seg"}
# Folders that a NAS, macOS or Windows puts beside anybody's files.
_FOREIGN = frozenset(
    (
        *("@eaDir", "@Recycle", "#recycle", "__MACOSX", "__pycache__", "lost+found"),
        *("$RECYCLE.BIN", "System Volume Information"),
    )
)


class Place(Protocol):
    """A folder or archive that can be looked into before it is read."""

    def peek(self, top: str) -> "Tree":
        """At least the two upper floors of what lies below the folder `top`, "" for the whole."""

    def whole(self, top: str, names: Collection[str]) -> "Tree":
        """All that lies below the folder `top` in the files and folders `names`."""


@dataclass(frozen=True)
class Tree:
    """Files by their path below the tree's top ("train/cat/0001.png"), and the folders there.

    A file is a path on disk, or its bytes where the tree came out of an archive, which is a `Place`
    itself. `notes` are lines on what was left out of it.
    """

    files: Mapping[str, Path | bytes]
    folders: frozenset[str]
    notes: tuple[str, ...] = ()

    def peek(self, top: str) -> "Tree":
        if not top:
            return self
        cut = len(top) + 1
        inside = {name[cut:]: f for name, f in self.files.items() if name.startswith(f"{top}/")}
        folders = frozenset(n[cut:] for n in self.folders if n.startswith(f"{top}/"))
        return replace(self, files=inside, folders=folders)

    def whole(self, top: str, names: Collection[str]) -> "Tree":
        tree = self.peek(top)
        files = {name: f for name, f in tree.files.items() if name.split("/")[0] in names}
        folders = frozenset(n for n in tree.folders if n.split("/")[0] in names)
        return replace(self, files=files, folders=folders)

    def read(self, name: str, most: int) -> bytes:
        """The bytes of one file; raises ValueError where they are more than `most`, or no file."""
        file = self.files[name]
        if isinstance(file, bytes):
            size = len(file)
        elif file.is_file():
            size = file.stat().st_size
        else:
            raise ValueError("it is no plain file")
        if size > most:
            raise ValueError(f"it has more than {most:,} bytes")
        return file if isinstance(file, bytes) else file.read_bytes()


@dataclass(frozen=True)
class Disk:
    """A folder on disk, as a `Place`. Raises S11Error for what must be read and cannot."""

    path: Path

    def peek(self, top: str) -> Tree:
        return folder_tree(self.path / top, floors=2, needed=lambda name: part_of(name) != "")

    def whole(self, top: str, names: Collection[str]) -> Tree:
        return folder_tree(self.path / top, only=names)


def folder_tree(
    top: Path,
    only: Collection[str] | None = None,
    floors: int = DEEPEST,
    needed: Callable[[str], bool] | None = None,
) -> Tree:
    """The tree of a folder, `floors` high, of those at its top the names in `only`.

    What is hidden or a system's own is left out. Links are followed, but not round in a circle.
    Raises S11Error for a folder that cannot be read, if it is the top, or its name is `needed`, or
    that is None; and for one that links lead to again and again: a few that have two links each to
    the next make billions of paths.
    """
    files: dict[str, Path | bytes] = {}
    folders: set[str] = set()
    times: Counter[Path] = Counter()

    def enter(folder: Path, parts: tuple[str, ...], above: tuple[Path, ...]) -> None:
        place = folder.resolve()
        times[place] += 1
        if times[place] > _MOST_WAYS:
            raise S11Error(
                f"{top}: links lead to {place} in more than {_MOST_WAYS} ways: take them away"
            )
        must = not parts or needed is None or needed(parts[-1])
        for entry in [] if place in above else _entries(folder, must):
            name = "/".join(inner := (*parts, entry.name))
            if is_foreign(entry.name) or not (parts or only is None or entry.name in only):
                continue
            entry_must = needed is None or needed(entry.name)
            if _is(entry.is_dir, entry, entry_must):
                folders.add(name)
                if len(inner) < floors:
                    enter(Path(entry.path), inner, (*above, place))
            # No pipe; but a link to nothing, which is to be named.
            elif _is(entry.is_file, entry, entry_must) or not os.path.exists(entry.path):
                files[name] = Path(entry.path)

    enter(top, (), ())
    return Tree(files, frozenset(folders))


def _entries(folder: Path, must: bool) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not must:
            return []
        raise _unreadable(folder, error) from error


def _is(kind: Callable[[], bool], entry: os.DirEntry, must: bool) -> bool:
    """Whether an entry is of a kind; a link in a circle is of none.

    What the disk does not tell of an entry that `must` be read is an error.
    """
    try:
        return kind()
    except OSError as error:
        if must and error.errno != errno.ELOOP:
            raise _unreadable(entry.path, error) from error
        return False


def _unreadable(path: Path | str, error: OSError) -> S11Error:
    return S11Error(
        f"{path} cannot be read ({error.strerror}): mend its permissions, or leave it out"
    )


def part_of(name: str) -> str:
    """Which part a folder of this name is, as "train" of "Train", "train_set" and "TrainSet", or
    ""."""
    words = [word for word in re.split(r"[\s_-]+", name.lower()) if word not in _BESIDE]
    word = words[0].removesuffix("set") if len(words) == 1 else ""
    return word if word in _PARTS else ""


def is_foreign(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or an operating system's own."""
    return name.startswith(".") or name in _FOREIGN


def folder_key(tree: Tree, where: Path) -> str:
    """SHA-256 of a folder's place and of its files' names, sizes and times of change.

    The second of these times, which nobody can set, tells files of equal size and age that were
    exchanged.
    """
    digest = hashlib.sha256(os.fsencode(where.resolve()))
    for folder in sorted(tree.folders):
        digest.update(b"\n" + os.fsencode(folder))
    for name, file in sorted(tree.files.items()):
        digest.update(b"\n" + os.fsencode(name))
        with suppress(OSError):  # a link to nothing
            status = os.stat(file)
            times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
            digest.update(f"\0{status.st_size}\0{times}".encode())
    return digest.hexdigest()
