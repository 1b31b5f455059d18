"""Ctrl-C and SIGTERM: at once, or while something must be finished first, as soon as it is."""

import os
import signal
from contextlib import suppress
from types import FrameType

from s11_fastai.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While it is entered, a first signal raises Stopped, or only asks to stop while `patient`.

    A second one is left to the system, which ends the process at once. In a thread that is not
    the main one, where Python handles no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.patient = False

    def __enter__(self) -> "StopSignals":
        try:
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        except ValueError:
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def be_patient(self) -> None:
        """From now on a signal only sets `asked`, until `raise_if_asked`."""
        self.patient = True

    def raise_if_asked(self) -> None:
        """Raise Stopped where a signal has come; from now on it is raised at once again."""
        self.patient = False
        if self.asked:
            raise Stopped(self.asked)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.asked = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if not self.patient:
            raise Stopped(number)
        # Not print(), which the signal may have interrupted; whoever read it may be gone.
        with suppress(OSError):
            os.write(2, b"\nstopping as soon as this step is done; once more stops at once\n")
