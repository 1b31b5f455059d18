"""The exceptions whose messages are meant for a person, and how a script shows them."""

import argparse
import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

_OTHER_PLACE = "mend the permissions or choose another place"
_REMEDIES = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EACCES: _OTHER_PLACE,
    errno.EPERM: _OTHER_PLACE,
    errno.EROFS: _OTHER_PLACE,
}


class S11Error(Exception):
    """Bad input or usage: one line that says what is wrong and what to do about it."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        # fastai rewrites the arguments of whatever a callback raises.
        return self.message


class DivergedError(S11Error):
    """The loss is NaN or infinite."""

    exit_code = 3


class Stopped(BaseException):
    """A signal ended the work; like KeyboardInterrupt, no `except Exception` catches it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("stopped")
        self.exit_code = 128 + signal_number


@dataclass
class GoOn:
    """How to go on after an end that was not planned; empty while nothing has begun.

    None is for a process that is one of several and not the first, which speaks for all of them.
    """

    command: str | None = ""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line on stderr, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help lists the flags\n")


@contextmanager
def plain_errors(prog: str) -> Iterator[GoOn]:
    """Turn what a person can mend into one line on stderr and an exit code.

    S11Error and OSError give 2, DivergedError 3, a signal 128 and its number. An OSError and a
    signal also name the `command` to go on with, once the script has set it.
    """
    go_on = GoOn()
    try:
        yield go_on
    except DivergedError as error:
        _leave(prog, str(error) if go_on.command is not None else "", error.exit_code)
    except S11Error as error:
        _leave(prog, str(error), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno, "look at the path and try again")
        then = f", then go on with: {go_on.command}" if go_on.command else ""
        _leave(prog, f"{where}{error.strerror or error}; {remedy}{then}", S11Error.exit_code)
    except Stopped as stop:
        what = f"go on with: {go_on.command}" if go_on.command else "there was nothing to keep yet"
        said = f"stopped; {what}" if go_on.command is not None else ""
        _leave(prog, said, stop.exit_code)


def printable(text: str) -> str:
    """The text with what no terminal should be sent, from names of files, as escapes."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _leave(prog: str, message: str, code: int) -> NoReturn:
    if message:
        with suppress(OSError):  # whoever read it may be gone
            print(f"{prog}: {printable(message)}", file=sys.stderr)
    sys.exit(code)
