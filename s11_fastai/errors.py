"""The exceptions whose messages are meant for a person.

A message speaks Python. A parameter's name stands in backticks: `lr_min`. On the command line,
`cli` shows it as the flag of that name.
"""

import re


class S11Error(Exception):
    """Bad input or usage: one line that says what is wrong and what to do about it."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        if "Original Traceback" in message:  # so does a DataLoader's worker send it
            message = message.rpartition(f"{type(self).__name__}: ")[2].strip()
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

    def __init__(self, signal_number: int, advice: str = "there was nothing to keep yet") -> None:
        super().__init__("stopped")
        self.advice = advice
        self.exit_code = 128 + signal_number


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether the computer or a GPU had no memory for something, as Python or torch says it."""
    said = re.search(
        "out of memory|allocate memory|not enough memory", " ".join(str(error).split())
    )
    return isinstance(error, MemoryError) or said is not None
