"""What goes to the terminal: the one function that prints, and streams that outlive readers."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO
from unicodedata import category

from tqdm import tqdm

_SHOWN = 5  # names that a line has
_JOINERS = "\u200c\u200d"  # of letters in many scripts


def say(text: str) -> None:
    """Print lines to stdout at once, above a progress bar if there is one."""
    tqdm.write(printable(text))
    sys.stdout.flush()


def is_printable(text: str) -> bool:
    """Whether the text has nothing that no terminal or page should be sent.

    Python's `isprintable` knows neither spaces but one nor the joiners of letters.
    """
    return all(c.isprintable() or category(c) == "Zs" or c in _JOINERS for c in text)


def printable(text: str) -> str:
    """The text with what no terminal should be sent, from names of files, as escapes."""
    return "".join(c if is_printable(c) or c == "\n" else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """The same, on one line."""
    return printable(text).replace("\n", "\\n")


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are, on one line."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return one_line(", ".join(names[:_SHOWN])) + more


@contextmanager
def lasting_streams() -> Iterator[None]:
    """What is printed inside ends nothing: neither a closed terminal, a pipe without a reader or a
    full disk behind it, nor a letter that the terminal's encoding lacks."""
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Lasting(before[0]), _Lasting(before[1])  # type: ignore[assignment]
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _Lasting):
                stream.settle()
        sys.stdout, sys.stderr = before


def _open_standard_descriptors() -> None:
    """Give 0, 1 and 2 to the null device where they are closed.

    The next file that is opened would get such a number, and so what is meant for a terminal.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


class _Lasting:
    """A text stream that drops what it cannot write; Python's None for a stream drops all."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: it has been closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def settle(self) -> None:
        """Let go of what cannot be written, which Python's exit would try once more."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
