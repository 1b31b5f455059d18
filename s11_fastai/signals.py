"""Signals that ask a program to stop: at once, or while something must be finished, after it."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from s11_fastai.errors import Stopped

# A person's Ctrl-C and `kill`: whoever repeats them means it.
_COMMANDS = (signal.SIGINT, signal.SIGTERM)
# A terminal that closes, and Slurm's warning before the time is up: they may come several times.
_WARNINGS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name))
_SOON = 0.01  # seconds


class StopSignals:
    """While it is entered, a first signal raises Stopped, or only asks to stop while `patient`.

    After a Ctrl-C or SIGTERM the next one is left to the system, which ends the process at once.
    Where Python drops what is raised, as in what it calls at a fork, Stopped is raised soon after.
    In a thread that is not the main one, where Python handles no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.patient = False
        self._tell: Callable[[], object] = lambda: None
        self._alarm: signal._HANDLER = None  # whose it was, once it is ours

    def __enter__(self) -> "StopSignals":
        # Under nohup a hang-up is ignored, and shall be.
        numbers = [n for n in _WARNINGS if signal.getsignal(n) is not signal.SIG_IGN]
        try:
            self._before = {n: signal.signal(n, self._handle) for n in (*_COMMANDS, *numbers)}
        except ValueError:
            self._before = {}
            return self
        self._report_dropped, sys.unraisablehook = sys.unraisablehook, self._dropped
        return self

    def __exit__(self, *_: object) -> None:
        if not self._before:
            return
        sys.unraisablehook = self._report_dropped
        if self._alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def be_patient(self) -> None:
        """From now on a signal only sets `asked`, until `raise_if_asked`."""
        self.patient = True

    def tell(self, call: Callable[[], object]) -> None:
        """From now on the first signal calls this at once, whatever is under way."""
        self._tell = call

    def raise_if_asked(self) -> None:
        """Raise Stopped where a signal has come; from now on it is raised at once again."""
        self.patient = False
        if self.asked:
            raise Stopped(self.asked)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        for each in _WARNINGS:
            signal.signal(each, signal.SIG_IGN)
        if number in _COMMANDS:
            for each in _COMMANDS:
                signal.signal(each, signal.SIG_DFL)
        if self.asked is None:
            self.asked = number
            self._tell()
        if not self.patient:
            raise Stopped(number)
        # Not print(), which the signal may have interrupted; whoever read it may be gone.
        with suppress(OSError):
            os.write(2, b"\nstopping as soon as this step is done; once more stops at once\n")

    def _dropped(self, dropped: "sys.UnraisableHookArgs") -> None:
        if not isinstance(dropped.exc_value, Stopped):
            self._report_dropped(dropped)
        elif hasattr(signal, "setitimer"):  # to raise it here would drop it again
            before = signal.signal(signal.SIGALRM, self._raise)
            self._alarm = before if self._alarm is None else self._alarm
            signal.setitimer(signal.ITIMER_REAL, _SOON)

    def _raise(self, *_: object) -> None:
        if not self.patient:
            raise Stopped(self.asked or signal.SIGTERM)


def leave_to_parent() -> None:
    """In a process that another one has forked to work for it: let that one decide when to stop.

    What a terminal or Slurm sends reaches both. A SIGTERM ends this process at once.
    """
    for number in (signal.SIGINT, signal.SIGALRM, *_WARNINGS):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
