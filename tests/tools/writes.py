"""Every change that this process makes on disk below a folder: noticed, or struck.

Python tells its audit hooks of each file that is opened for writing, each rename, removal and new
folder, whichever library asks for it; what is written and synced is watched beside them. Linux.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_NAMED = {
    "os.rename": "rename",
    "os.remove": "remove",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.chmod": "chmod",
    "os.truncate": "truncate",
    "os.link": "link",
    "os.symlink": "link",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# What a disk without room, or a folder without permission, still lets happen.
_ALWAYS = {errno.ENOSPC: {"remove", "rmdir", "chmod", "rename"}, errno.EACCES: {"write", "fsync"}}


class Write(NamedTuple):
    """One change on disk; of a rename the path is the new one."""

    kind: str
    path: Path


Strike = Callable[[int, Write], None]
_noticed: Callable[[str, object], None] | None = None


def _hook(event: str, args: tuple) -> None:
    if _noticed is None:
        return
    if event == "open" and not isinstance(args[0], int) and args[2] & _WRITING:
        _noticed("open", args[0])
    elif event in _NAMED:
        _noticed(_NAMED[event], args[1] if event in ("os.rename", "os.link") else args[0])


sys.addaudithook(_hook)  # it stays as long as the process


@contextmanager
def watched(top: Path, strike: Strike = lambda _n, _write: None) -> Iterator[list[Write]]:
    """The changes below `top`, in their order; before each, `strike` gets its number and itself.

    `strike` may raise what the change would fail with, or end the process. Of what is written in
    one piece, half is on disk by then.
    """
    global _noticed
    seen: list[Write] = []
    own, fdopen, fsync = os.getpid(), os.fdopen, os.fsync

    def noticed(kind: str, path: object) -> None:
        place = Path(os.fsdecode(path))  # type: ignore[arg-type]
        there_already = kind == "mkdir" and place.exists()
        if os.getpid() == own and place.is_relative_to(top) and not there_already:
            seen.append(Write(kind, place))
            strike(len(seen) - 1, seen[-1])

    class Halving(io.BufferedWriter):
        def write(self, data) -> int:
            half = len(data) // 2
            super().write(data[:half])
            self.flush()
            noticed("write", path_of(self.fileno()))
            return half + super().write(data[half:])

    def opened(handle: int, mode: str = "r", *args, **kwargs):
        if mode == "wb" and path_of(handle).is_relative_to(top):
            return Halving(io.FileIO(handle, "wb"))
        return fdopen(handle, mode, *args, **kwargs)

    def synced(handle: int) -> None:
        noticed("fsync", path_of(handle))
        fsync(handle)

    os.fdopen, os.fsync, _noticed = opened, synced, noticed
    try:
        yield seen
    finally:
        os.fdopen, os.fsync, _noticed = fdopen, fsync, None


def path_of(handle: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{handle}"))


def fails(nth: int, code: int, lasting: bool = False) -> Strike:
    """The nth change fails with an errno; where it is `lasting`, so does what comes after it."""

    def strike(n: int, write: Write) -> None:
        later = lasting and n > nth and write.kind not in _ALWAYS.get(code, ())
        if n == nth or later:
            named = write.kind not in ("write", "fsync")
            raise OSError(code, os.strerror(code), *([str(write.path)] if named else []))

    return strike


def kills(nth: int, which: signal.Signals = signal.SIGKILL) -> Strike:
    """A signal comes before the nth change, and so right after the one before it."""

    def strike(n: int, _write: Write) -> None:
        if n == nth:
            os.kill(os.getpid(), which)

    return strike
