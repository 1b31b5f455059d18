"""The one exception whose message is meant for a person, and how a script shows it."""

import argparse
import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line on stderr, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help lists the flags\n")


@contextmanager
def plain_errors(prog: str) -> Iterator[None]:
    """Turn what a person can mend (S11Error, OSError) into one line on stderr and exit code 2."""
    try:
        yield
    except S11Error as error:
        _leave(prog, str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno, "look at the path and try again")
        _leave(prog, f"{where}{error.strerror or error}; {remedy}")


def _leave(prog: str, message: str) -> NoReturn:
    print(f"{prog}: {message}", file=sys.stderr)
    sys.exit(2)
