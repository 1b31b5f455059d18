"""What ends a fit: a signal, or a loss that is NaN or infinite."""

import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from fastai.callback.core import Callback, CancelFitException

from s11_fastai.callbacks.checkpoint import State, restore, restore_progress
from s11_fastai.callbacks.distributed import Processes
from s11_fastai.errors import DivergedError, Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While it is entered, a first signal raises Stopped, or only asks to stop while `patient`.

    A second one is left to the system, which ends the process at once. In a thread that is not
    the main one, where Python handles no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._patient = False

    def __enter__(self) -> "StopSignals":
        try:
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        except ValueError:
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Within it a signal sets `asked`; at its end, one that came raises Stopped."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
        if self.asked:
            raise Stopped(self.asked)

    def _handle(self, number: int, _frame: object) -> None:
        self.asked = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if not self._patient:
            raise Stopped(number)
        # Not print(), which the signal may have interrupted; whoever read it may be gone.
        with suppress(OSError):
            os.write(2, b"\nstopping after this step; once more stops at once\n")


_BATCHES_ON_A_GPU = 32


def batches_between_looks(device: str | torch.device) -> int:
    """How many batches pass between two looks at what they gave.

    On a GPU a look waits for every step that was begun, which in each step would cost its time.
    """
    return 1 if torch.device(device).type == "cpu" else _BATCHES_ON_A_GPU


class GoOnFrom(Callback):
    """Begins the fit where a checkpoint stands; with None, at its beginning."""

    order = 63  # after the schedulers, whose state it restores

    def __init__(self, state: State | None) -> None:
        self.state = state

    def before_fit(self) -> None:
        if self.state:
            restore(self.learn, self.state)

    def before_train(self) -> None:
        if self.state:
            restore_progress(self.learn, self.state.values["at"])
            self.state = None


class StopWhenDiverged(Callback):
    """Raises DivergedError for the first step whose loss is NaN or infinite.

    On a CPU it does so in that step, on a GPU some steps later, but before the end of the epoch
    and before anything is kept. In mixed precision the scaler skips steps whose gradients
    overflow; the loss is finite there.
    """

    order = 54  # before anything of the step is recorded

    def __init__(self, checkpoints: str) -> None:
        self.checkpoints = checkpoints
        self.unseen: list[tuple[str, float, torch.Tensor]] = []

    def after_batch(self) -> None:
        where = f"step {self.train_iter - 1}" if self.training else "the evaluation"
        self.unseen.append((where, self.opt.hypers[-1]["lr"], self.learn.loss.detach()))
        if len(self.unseen) >= batches_between_looks(self.dls.device):
            self.look()

    def look(self) -> None:
        """Look at the losses of the batches since the last look."""
        unseen, self.unseen = self.unseen, []
        losses = torch.stack([loss for *_, loss in unseen]).tolist() if unseen else []
        for (where, lr, _), loss in zip(unseen, losses, strict=True):
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the loss became {loss} in {where} of epoch {self.epoch + 1} at lr {lr:.3g}: "
                    "begin again with a lower --lr-max, or look at the images and labels; the "
                    f"last good checkpoint is in {self.checkpoints}"
                )

    def after_train(self) -> None:
        self.look()

    after_validate = after_train


class StopWhenAsked(Callback):
    """Ends the fit, in all processes at the same batch, once a signal has come to any of them.

    One process ends after the step that goes on; on several GPUs it may take some steps more.
    `keep` is called before, where the fit is not between two epochs.
    """

    order = 66  # after what is kept of the batch

    def __init__(
        self,
        signals: StopSignals,
        processes: Processes,
        keep: Callable[[], None] = lambda: None,
    ) -> None:
        self.signals, self.processes, self.keep = signals, processes, keep
        self.batches = 0

    def before_fit(self) -> None:
        alone = self.processes.count == 1
        self.every = 1 if alone else batches_between_looks(self.dls.device)

    def after_batch(self) -> None:
        self.batches += 1
        if self.batches % self.every == 0 and self._asked():
            self.keep()
            raise CancelFitException

    def after_epoch(self) -> None:
        if self._asked():
            raise CancelFitException

    def _asked(self) -> bool:
        asked = self.processes.any(self.signals.asked is not None)
        if asked and self.signals.asked is None:
            self.signals.asked = signal.SIGTERM
        return asked
