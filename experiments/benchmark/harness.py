"""The project as run.py puts it together, made so that its parts can be measured one by one."""

from __future__ import annotations

import io
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Learner

import s11_fastai as s11
from benchmark.timing import wait_for
from s11_fastai.runs.load import learner_of
from s11_fastai.runs.run import MainRun
from s11_fastai.runs.settings import Settings
from s11_fastai.signals import StopSignals
from s11_fastai.sources import ImageSet

# From one event of a fit to another: the network's own part of a step; the evaluation.
NETWORK = {
    "before_batch": "after_pred",
    "before_backward": "after_backward",
    "before_step": "after_step",
}
EVALUATION = {"before_validate": "after_validate"}


def settings_of(
    width: int, bs: int, device: torch.device, precision: str = "auto", epochs: int = 24
) -> Settings:
    """Those of a run whose bounds are given, so that there is no range test."""
    return Settings(
        epochs=epochs,
        bs=bs,
        width=width,
        lr_min=0.004,
        lr_max=0.04,
        device=str(device),
        precision=precision,
    )


@contextmanager
def begun_run(images: ImageSet, settings: Settings) -> Iterator[MainRun]:
    """A run that has begun as run.py begins it, in a temporary folder and without a word.

    It writes no checkpoint but those of its beginning and of an epoch's end: while other sides
    have their turns, the minutes between two would pass far sooner than in training.
    """
    signals = StopSignals()
    with (
        tempfile.TemporaryDirectory() as scratch,
        redirect_stdout(io.StringIO()),
        s11.join_processes(settings.device, signals) as processes,
        s11.claim(Path(scratch) / "run") as folder,
    ):
        s11.set_seed(settings.seed)
        learn = learner_of(settings, images, processes.device)
        run = s11.start_run(folder, settings, learn, images, processes, signals, math.inf)
        assert isinstance(run, MainRun)
        yield run


def fit(run: MainRun) -> None:
    """The training of a run, with all that run.py does beside it."""
    learn, settings = run.learn, run.settings
    with s11.RunReport(run) as report, learn.no_bar(), learn.no_logging():
        bounds = run.find_bounds(
            lambda: s11.find_lr_bounds(learn, settings.lr_min, settings.lr_max)
        )
        learn.fit_one_cycle(
            settings.epochs,
            bounds.lr_max,
            div=bounds.ratio,
            div_final=bounds.ratio,
            pct_start=settings.pct_start,
            cbs=[*run.callbacks(), *report.callbacks()],
        )


@contextmanager
def project_fit(
    images: ImageSet, settings: Settings, every: str = "batch"
) -> Iterator[tuple[Stepwise, Learner]]:
    """The fit of a run, a training batch or an epoch at a time, and its Learner."""
    with (
        begun_run(images, settings) as run,
        Stepwise(run.learn, partial(fit, run), every) as steps,
    ):
        yield steps, run.learn


class Stepwise:
    """Runs `fit`, a fit of `learn`, in a thread of its own, a batch or an epoch at each `step`.

    The first step also begins the fit. At the end of the `with` block the fit is cancelled.
    """

    def __init__(self, learn: Learner, fit: Callable[[], object], every: str = "batch") -> None:
        self.fit, self.turns = fit, Turns(every)
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
            if error is not None and not isinstance(error, EOFError):
                raise error

    def step(self) -> None:
        """Go on by one; what the fit raises is raised here, EOFError where it is over."""
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


class Turns(Callback):
    """After each training batch, or each epoch, reports it and waits for word to go on or end."""

    order, run_valid = 99, False  # after all that belongs to the batch

    def __init__(self, every: str) -> None:
        self.every = every
        self.word: SimpleQueue[bool] = SimpleQueue()
        self.report: SimpleQueue[BaseException | None] = SimpleQueue()

    def after_batch(self) -> None:
        self._turn("batch")

    def after_epoch(self) -> None:
        self._turn("epoch")

    def _turn(self, over: str) -> None:
        if over == self.every:
            self.report.put(None)
            if not self.word.get():
                raise CancelFitException


class Stopwatch:
    """Adds up the time from each of some events of a fit to another, as NETWORK names them.

    A GPU works on while Python is elsewhere; there the events are marks in its own queue.
    """

    def __init__(self, learn: Learner, events: dict[str, str]) -> None:
        self.device = torch.device(learn.dls.device)
        self.begun: Any = None
        self.spans: list[tuple[Any, Any]] = []
        learn.add_cbs([_Before(self, list(events)), _After(self, list(events.values()))])

    def start(self) -> None:
        self.begun = self._mark()

    def stop(self) -> None:
        if self.begun is not None:  # an event that was cancelled has not begun
            self.spans.append((self.begun, self._mark()))
        self.begun = None

    def take(self) -> float:
        """The seconds since they were last taken."""
        wait_for(self.device)
        spans, self.spans = self.spans, []
        return sum(self._between(*span) for span in spans)

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark

    def _between(self, start: Any, end: Any) -> float:
        return end - start if self.device.type != "cuda" else start.elapsed_time(end) / 1000


class _Before(Callback):
    order, run_valid = 98, False  # the last of all, so that what is timed comes next

    def __init__(self, watch: Stopwatch, events: list[str]) -> None:
        for event in events:
            setattr(self, event, watch.start)


class _After(Callback):
    order, run_valid = -98, False  # the first of all, so that what is timed has just ended

    def __init__(self, watch: Stopwatch, events: list[str]) -> None:
        for event in events:
            setattr(self, event, watch.stop)
