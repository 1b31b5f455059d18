"""A fit that can be measured step by step, though it is one call."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Learner


class Turns(Callback):
    """After each training batch, reports it and waits for word to go on or to end."""

    order, run_valid = 99, False  # after all that belongs to the batch

    def __init__(self) -> None:
        self.word, self.report = SimpleQueue(), SimpleQueue()

    def after_batch(self) -> None:
        self.report.put(None)
        if not self.word.get():
            raise CancelFitException


class Stepwise:
    """Runs `fit`, a fit of `learn`, in a thread of its own, a training batch at each `step`.

    The first step also begins the fit. At the end of the `with` block the fit is cancelled.
    """

    def __init__(self, learn: Learner, fit: Callable[[], object]) -> None:
        self.fit, self.turns = fit, Turns()
        self.over: BaseException | None = None
        learn.add_cb(self.turns)
        self.thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stepwise:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.turns.word.put(False)
        self.thread.join()
        if kind is None and self.over is None:
            error = self.turns.report.get()
            if not isinstance(error, EOFError):
                raise error

    def step(self) -> None:
        """Go on by one batch; what the fit raises is raised here, EOFError where it is over."""
        if self.over is None:
            self.turns.word.put(True)
            self.over = self.turns.report.get()
        if self.over is not None:
            raise self.over

    def _run(self) -> None:
        try:
            if self.turns.word.get():
                self.fit()
            self.turns.report.put(EOFError("the fit is over"))
        except BaseException as error:
            self.turns.report.put(error)
