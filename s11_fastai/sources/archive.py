"""Where files come from: a folder, or an archive that is read without being unpacked to disk."""

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from s11_fastai.errors import S11Error

MAX_UNPACKED = 1 << 30
# The folders of training and test images.
PARTS = frozenset(("train", "test"))
# Folders that a NAS, macOS or Windows puts beside anybody's files.
_FOREIGN = frozenset(
    ("@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information")
)
MAX_MEMBERS = 100_000
_MAX_NAME, _MAX_HEADER = 1_000, 8 << 10
_DEEPEST = 32  # folders below each other
_HEADERS = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
_HEADERS |= {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_END_OF_TAR = bytes(512)


@dataclass(frozen=True)
class Tree:
    """Files by their path below the tree's top ("train/cat/0001.png"), and the folders there.

    A file is a path on disk, or its bytes where the tree came out of an archive.
    """

    files: Mapping[str, Path | bytes]
    folders: frozenset[str]

    def below(self, top: str) -> "Tree":
        """The part of the tree below the folder `top`, or the whole for an empty `top`."""
        if not top:
            return self
        cut = len(top) + 1
        inside = {name[cut:]: f for name, f in self.files.items() if name.startswith(f"{top}/")}
        return Tree(inside, frozenset(n[cut:] for n in self.folders if n.startswith(f"{top}/")))

    def only(self, names: Collection[str]) -> "Tree":
        """Those files and folders whose path begins with one of these names."""
        files = {name: f for name, f in self.files.items() if name.split("/")[0] in names}
        return Tree(files, frozenset(n for n in self.folders if n.split("/")[0] in names))

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


def folder_tree(top: Path) -> Tree:
    """The tree of a folder as far as it may be data: two floors, and all below train/ and test/.

    What is hidden or a system's own is left out. Links are followed, but not round in a circle.
    Raises S11Error for a folder that must be read and cannot.
    """
    files: dict[str, Path | bytes] = {}
    folders: set[str] = set()

    def enter(folder: Path, parts: tuple[str, ...], above: tuple[Path, ...]) -> None:
        place = folder.resolve()
        for entry in [] if place in above else _entries(folder, needed=_is_data(parts)):
            name = "/".join(inner := (*parts, entry.name))
            if _is_foreign(entry.name):
                continue
            if entry.is_dir():
                folders.add(name)
                if len(inner) < _DEEPEST and (len(inner) == 1 or _is_data(inner)):
                    enter(Path(entry.path), inner, (*above, place))
            elif entry.is_file() or not os.path.exists(entry.path):  # no pipe; a link to nothing
                files[name] = Path(entry.path)

    enter(top, (), ())
    return Tree(files, frozenset(folders))


def _is_data(parts: tuple[str, ...]) -> bool:
    """Whether a folder is the top, or lies in train/ or test/, at the top or one folder below."""
    return not parts or not PARTS.isdisjoint(parts[:2])


def _entries(folder: Path, needed: bool) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not needed:
            return []
        raise S11Error(
            f"{folder} cannot be read ({error.strerror}): mend its permissions, or leave it out"
        ) from error


def folder_key(tree: Tree, where: Path) -> str:
    """SHA-256 of the folder's place and of its files' names, sizes and times of change."""
    digest = hashlib.sha256(os.fsencode(where.resolve()))
    for folder in sorted(tree.folders):
        digest.update(b"\n" + os.fsencode(folder))
    for name, file in sorted(tree.files.items()):
        digest.update(b"\n" + os.fsencode(name))
        with suppress(FileNotFoundError):  # a link to nothing
            status = os.stat(file)
            digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return digest.hexdigest()


def archive_key(path: Path) -> str:
    """SHA-256 of the archive's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def archive_tree(path: Path, max_unpacked: int = MAX_UNPACKED) -> Tree:
    """Read a `.tar`, `.tgz` or `.tar.gz` into memory, but for what is hidden or lies too deep.

    Raises S11Error for an archive that is cut short or damaged, holds a link, a device or a path
    that leads out of its folder, unpacks to more than `max_unpacked` bytes, or has more than
    `MAX_MEMBERS` members.
    """
    files: dict[str, Path | bytes] = {}
    folders: set[str] = set()
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream = _Bounded(gzip.GzipFile(fileobj=raw) if packed else raw, max_unpacked, path)
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
                for i, member in enumerate(tar):
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                    if i == MAX_MEMBERS:
                        raise S11Error(
                            f"{path} has more than {MAX_MEMBERS:,} members: unpack it and give "
                            "the folder"
                        )
                    name = _checked_name(member, path)
                    if _left_out(name):
                        continue
                    if member.isdir():
                        folders.add(name)
                    else:
                        stream.admit(member.size)
                        files[name] = _bytes_of(tar, member)
            stream.drain()
    except (tarfile.TarError, EOFError, ValueError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, error) from error
    folders.update(p.as_posix() for name in files for p in PurePosixPath(name).parents)
    return Tree(files, frozenset(folders - {"."}))


class _Member(tarfile.TarInfo):
    """A header of an archive, which must not say that a longer one follows than names need.

    tarfile looks through that with patterns whose time grows with the square of its length.
    """

    @classmethod
    def frombuf(cls, *args, **kwargs):  # type: ignore[no-untyped-def]
        member = super().frombuf(*args, **kwargs)
        if member.type in _HEADERS and member.size > _MAX_HEADER:
            raise ValueError(f"a header of {member.size:,} bytes")
        return member


def _bytes_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None  # _checked_name lets regular files and folders pass alone
    return stream.read()


def _checked_name(member: tarfile.TarInfo, archive: Path) -> str:
    name = PurePosixPath(member.name)
    if len(member.name) > _MAX_NAME:
        raise S11Error(f"{archive}: a member's name has more than {_MAX_NAME:,} letters; not read")
    if member.isreg() and not name.parts:
        raise S11Error(f"{archive}: the member {member.name!a} has no name; not read")
    drive = member.name[1:2] == ":"
    if name.is_absolute() or drive or ".." in name.parts or "\\" in member.name:
        raise S11Error(f"{archive}: the member {member.name!a} leads out of its folder; not read")
    # A sparse file claims more bytes than the archive holds.
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise S11Error(f"{archive}: the member {member.name!a} is no plain file; not read")
    return name.as_posix()


def _left_out(name: str) -> bool:
    """Whether it is hidden, a system's own, or lies deeper than any image does."""
    parts = PurePosixPath(name).parts
    return len(parts) > _DEEPEST or any(map(_is_foreign, parts))


def _is_foreign(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or an operating system's own."""
    return name.startswith(".") or name in _FOREIGN


def _damaged(archive: Path, error: object) -> S11Error:
    return S11Error(
        f"{archive} is cut short, damaged or no tar archive ({error}): "
        "delete it and fetch it again, or give a folder, .tar, .tgz or .tar.gz"
    )


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than `limit` bytes, and knows how it ended."""

    def __init__(self, stream: io.IOBase, limit: int, archive: Path) -> None:
        self.stream, self.left, self.limit, self.archive = stream, limit, limit, archive
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.admit(len(data))
        self.left -= len(data)
        self.tail = (self.tail + data)[-len(_END_OF_TAR) :]
        return data

    def admit(self, size: int) -> None:
        if size > self.left:
            raise S11Error(f"{self.archive} unpacks to more than {self.limit:,} bytes; not read")

    def drain(self) -> None:
        """Read on to the end, so that a missing end or a wrong checksum shows."""
        while self.read(1 << 20):
            pass
        if self.tail != _END_OF_TAR:
            raise tarfile.ReadError("the end is missing")
