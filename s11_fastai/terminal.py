"""What goes to the terminal: every line through one function."""

import sys

from tqdm import tqdm


def say(text: str) -> None:
    """Print lines to stdout at once, above a progress bar if there is one."""
    if sys.stdout is not None:  # whoever started the program may have closed it
        tqdm.write(printable(text, sys.stdout.encoding))
        sys.stdout.flush()


def printable(text: str, encoding: str | None = None) -> str:
    """The text with what no terminal should be sent, from names of files, as escapes.

    What `encoding` lacks becomes an escape, too.
    """
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    encoding = encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def one_line(text: str) -> str:
    """The same on one line."""
    return printable(text).replace("\n", "\\n")
