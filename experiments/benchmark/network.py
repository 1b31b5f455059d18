"""How much of a fastai step is the network's own: its forward and backward pass and its update."""

import time

from fastai.callback.core import Callback
from fastai.learner import Learner


class Stopwatch:
    """Times the network in each training batch of `learn`; `seconds` is that of the last one."""

    def __init__(self, learn: Learner) -> None:
        self.seconds = 0.0
        learn.add_cbs([_Before(self), _After(self)])


class _Before(Callback):
    order, run_valid = 98, False  # the last of all, so that the network comes next

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def before_batch(self) -> None:
        self.watch.seconds = 0.0
        self.go()

    def go(self) -> None:
        self.watch.started = time.perf_counter()

    before_backward = before_step = go


class _After(Callback):
    order, run_valid = -98, False  # the first of all, so that the network has just ended

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def stop(self) -> None:
        self.watch.seconds += time.perf_counter() - self.watch.started

    after_pred = after_backward = after_step = stop
