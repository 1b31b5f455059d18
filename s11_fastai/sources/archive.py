"""Archives, read into memory without being unpacked to disk: `.tar`, packed or not, and `.zip`."""

import bz2
import codecs
import errno
import gzip
import hashlib
import io
import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from s11_fastai.errors import S11Error
from s11_fastai.sources.tree import DEEPEST, Tree, is_foreign
from s11_fastai.streams import printable

READ = ".zip, .tar, .tgz, .tar.gz, .tar.bz2 or .tar.xz"
MAX_UNPACKED = 1 << 30
MAX_MEMBERS = 100_000
# The list at a zip file's end; 100,000 members with long names have it.
MAX_ZIP_LIST = 16 << 20
_MAX_NAME, _MAX_HEADER = 1_000, 8 << 10
_HEADERS = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
_HEADERS |= {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_BLOCK, _CHUNK = 512, 1 << 20
_END_OF_TAR = bytes(_BLOCK)
_IS_UTF8 = 0x800  # the flag of a zip's member that says so of its name
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an empty one
_UNPACK = "unpack it and give the folder, or give a " + READ + " of it"
_ARRAYS = "give its images as arrays to dls_from_arrays"
_PICTURE = "give the folder that has a folder of pictures for each class"
# What people may bring instead, by its first bytes in lower case, and what to do.
_OTHERS = {
    b"7z\xbc\xaf'\x1c": ("a 7z archive", _UNPACK),
    b"rar!\x1a\x07": ("a rar archive", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("a file packed by zstd", _UNPACK),
    b"\x89png": ("a picture (PNG)", _PICTURE),
    b"\xff\xd8\xff": ("a picture (JPEG)", _PICTURE),
    b"gif8": ("a picture (GIF)", _PICTURE),
    b"bm": ("a picture (BMP)", _PICTURE),
    b"ii*\0": ("a picture (TIFF)", _PICTURE),
    b"mm\0*": ("a picture (TIFF)", _PICTURE),
    b"riff": ("a picture (WebP)", _PICTURE),
    b"\x89hdf": ("an HDF5 file", _ARRAYS),
    b"matlab": ("a MATLAB file", _ARRAYS),
    b"par1": ("a Parquet file", _ARRAYS),
    b"\x93numpy": ("a NumPy array", _ARRAYS),
    b"\0\0\x08": ("a file of MNIST's kind (idx)", _ARRAYS),
    b"%pdf": ("a PDF", _PICTURE),
}
_TEXTS = {
    b"<": ("a web page or other markup", "fetch the data itself"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file with git lfs pull"),
    b"": ("text", "give the folder or archive of the images"),
}
# What a damaged file raises. zipfile and bz2 know more ways than they name.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    NotImplementedError,
    struct.error,
)


class _Member(NamedTuple):
    """A file or folder of an archive; a link's kind is "link", its bytes are none."""

    name: str
    kind: str
    data: bytes = b""


def without_suffix(name: str) -> str:
    """An archive's name without what says that it is one; any other as it is."""
    return re.sub(r"\.(zip|tgz|tbz2?|txz|tar(\.\w+)?)$", "", name, flags=re.IGNORECASE)


def archive_key(path: Path) -> str:
    """SHA-256 of the archive's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def archive_tree(path: Path, max_unpacked: int = MAX_UNPACKED) -> Tree:
    """Read an archive into memory, but for links, what is hidden and what lies too deep.

    Raises S11Error for an archive that is cut short, damaged or of another kind, holds a device or
    a path that leads out of its folder, unpacks to more than `max_unpacked` bytes, or has more than
    `MAX_MEMBERS` members.
    """
    files: dict[str, Path | bytes] = {}
    folders: set[str] = set()
    links: list[str] = []
    for member in _members(path, max_unpacked):
        if member.kind == "link":
            links.append(member.name)
        elif member.kind == "folder":
            folders.add(member.name)
        else:
            files[member.name] = member.data
    folders.update(p.as_posix() for name in files for p in PurePosixPath(name).parents)
    count = f"{len(links):,}, the first {printable(links[0])}" if links else ""
    notes = (f"left out, as links in an archive: {count}",) if links else ()
    return Tree(files, frozenset(folders - {"."}), notes)


def _members(path: Path, max_unpacked: int) -> Iterator[_Member]:
    with path.open("rb") as raw:
        start = raw.peek(_BLOCK)[:_BLOCK]
    read = _zip_members if start.startswith(_ZIP) else _tar_members
    try:
        yield from read(path, _Bound(path, max_unpacked))
    except _BROKEN as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # those are the disk's
            raise
        raise _damaged(path, error) from error


class _Bound:
    """How much an archive may still unpack to, in bytes, and how many members it may have."""

    def __init__(self, archive: Path, limit: int) -> None:
        self.archive, self.left, self.limit = archive, limit, limit
        self.members = 0

    def admit(self, size: int) -> None:
        """Raise S11Error where `size` bytes are too many."""
        if size > self.left:
            raise S11Error(
                f"{self.archive} unpacks to more than {self.limit:,} bytes: unpack it and give "
                "the folder"
            )

    def take(self, size: int) -> None:
        self.admit(size)
        self.left -= size

    def count(self) -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise S11Error(
                f"{self.archive} has more than {MAX_MEMBERS:,} members: unpack it and give "
                "the folder"
            )


# Tar files, packed or not.


def _tar_members(path: Path, bound: _Bound) -> Iterator[_Member]:
    _check_tar(path)
    with path.open("rb") as raw, closing(_unpacked(raw)) as unpacked:
        stream = _TarStream(unpacked, bound)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_TarHeader) as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                bound.count()
                name = _checked_name(member.name, member.isreg(), path)
                if _left_out(name):
                    continue
                if member.issym() or member.islnk():
                    yield _Member(name, "link")
                elif member.isdir():
                    yield _Member(name, "folder")
                else:
                    yield _Member(name, "file", _bytes_of(tar, member, bound))
        stream.drain()


def _unpacked(raw: io.BufferedReader) -> io.BufferedIOBase:
    """What is in the file: its own bytes, or what they unpack to."""
    start = raw.peek(_BLOCK)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(raw)
    return raw


def _check_tar(path: Path) -> None:
    """Raise S11Error, naming the kind, for a whole file that holds no tar archive."""
    with path.open("rb") as raw, closing(_unpacked(raw)) as unpacked:
        packed = unpacked is not raw
        start = unpacked.read(_BLOCK)
    if not start or start == _END_OF_TAR:  # it is empty
        return
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        kind, remedy = _other(start)
        if not kind and len(start) < _BLOCK:  # it is cut short
            return
        what = f"is {kind or 'no archive that is known'}"
        if packed:
            what = f"holds {kind or 'something'}, packed, and no tar archive"
        raise S11Error(f"{path} {what}: {remedy}") from None


def _other(start: bytes) -> tuple[str, str]:
    """What a file is that begins so and is no archive, "" where that is not known; what to do."""
    lower = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    # A file of fewer letters may be the beginning of anything.
    is_text = re.fullmatch(rb"[\t\n\r\x20-\x7e]{8,}", lower)
    kinds = _TEXTS if is_text else _OTHERS
    return next((found for magic, found in kinds.items() if lower.startswith(magic)), ("", _UNPACK))


def _bytes_of(tar: tarfile.TarFile, member: tarfile.TarInfo, bound: _Bound) -> bytes:
    # A sparse file claims more bytes than the archive holds.
    if not member.isreg() or member.issparse():
        raise S11Error(f"{bound.archive}: the member {member.name!a} is no plain file; not read")
    bound.admit(member.size)
    stream = tar.extractfile(member)
    assert stream is not None  # it is a regular file
    return _whole(stream)


class _TarHeader(tarfile.TarInfo):
    """A header of an archive, which must not say that a longer one follows than names need.

    tarfile looks through that with patterns whose time grows with the square of its length.
    """

    @classmethod
    def frombuf(cls, *args, **kwargs):  # type: ignore[no-untyped-def]
        member = super().frombuf(*args, **kwargs)
        if member.type in _HEADERS and member.size > _MAX_HEADER:
            raise ValueError(f"a header of {member.size:,} bytes")
        return member


class _TarStream(io.RawIOBase):
    """A stream that refuses to give more than its bound, and knows how it ended."""

    def __init__(self, stream: io.BufferedIOBase, bound: _Bound) -> None:
        self.stream, self.bound = stream, bound
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.bound.take(len(data))
        self.tail = (self.tail + data)[-len(_END_OF_TAR) :]
        return data

    def drain(self) -> None:
        """Read on to the end, so that a missing end or a wrong checksum shows."""
        while self.read(1 << 20):
            pass
        if self.tail != _END_OF_TAR:
            raise tarfile.ReadError("the end is missing")


# Zip files.


def _zip_members(path: Path, bound: _Bound) -> Iterator[_Member]:
    with _SmallReads(io.FileIO(path)) as raw, zipfile.ZipFile(raw) as archive:
        for member in archive.infolist():
            bound.count()
            given = _zip_name(member).replace("\\", "/")  # as some programs on Windows write it
            is_folder = given.endswith("/")
            name = _checked_name(given, not is_folder, path)
            if _left_out(name):
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                yield _Member(name, "link")
            elif is_folder:
                yield _Member(name, "folder")
            else:
                _check_packing(member, path)
                bound.take(member.file_size)
                with archive.open(member) as stream:
                    yield _Member(name, "file", _whole(stream))


def _zip_name(member: zipfile.ZipInfo) -> str:
    """A member's name, which Macs write in UTF-8 without saying so."""
    if not member.flag_bits & _IS_UTF8:
        with suppress(UnicodeError):
            return member.filename.encode("cp437").decode("utf-8")
    return member.filename


def _check_packing(member: zipfile.ZipInfo, archive: Path) -> None:
    if member.flag_bits & 1:
        what = "is encrypted"
    # The others can unpack a few bytes to any number before it is known.
    elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        what = f"is packed in a way that is not read here (number {member.compress_type})"
    else:
        return
    raise S11Error(
        f"{archive}: the member {member.filename!a} {what}: unpack it and give the folder"
    )


class _SmallReads(io.BufferedReader):
    """A file that refuses to be read at once, as zipfile reads the list of an archive's members."""

    def read(self, size: int | None = -1) -> bytes:
        most = MAX_ZIP_LIST + 1
        data = super().read(most if size is None or size < 0 else min(size, most))
        if len(data) > MAX_ZIP_LIST:
            raise ValueError(f"its list of members has more than {MAX_ZIP_LIST:,} bytes")
        return data


# Of both.


def _whole(stream: IO[bytes]) -> bytes:
    """All that a member holds. To read it at once takes up to three times its size of memory."""
    with io.BytesIO() as whole:
        shutil.copyfileobj(stream, whole, _CHUNK)
        return whole.getvalue()


def _checked_name(given: str, is_file: bool, archive: Path) -> str:
    name = PurePosixPath(given)
    if len(given) > _MAX_NAME:
        raise S11Error(
            f"{archive}: a member's name has more than {_MAX_NAME:,} letters: unpack it and give "
            "the folder"
        )
    if is_file and not name.parts:
        raise S11Error(f"{archive}: the member {given!a} has no name; not read")
    drive = given[1:2] == ":"
    if name.is_absolute() or drive or ".." in name.parts or "\\" in given:
        raise S11Error(
            f"{archive}: the member {given!a} leads out of its folder: unpack it and give the "
            "folder"
        )
    return name.as_posix()


def _left_out(name: str) -> bool:
    """Whether it is hidden, a system's own, or lies deeper than any image does."""
    parts = PurePosixPath(name).parts
    return len(parts) > DEEPEST or any(map(is_foreign, parts))


def _damaged(archive: Path, error: object) -> S11Error:
    return S11Error(
        f"{archive} is cut short or damaged ({error}): move it away and fetch it again, or give a "
        f"folder or a {READ}"
    )
