"""From training to the run folder: what each step and each epoch gave, and checkpoints."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from fastai.callback.core import Callback, CancelFitException

from s11_fastai.checkpoint import between_epochs, capture, progress, restore, restore_progress
from s11_fastai.errors import DivergedError, S11Error
from s11_fastai.report import write_report
from s11_fastai.runs import EpochRow, RunFolder, StepRow


class RecordRun(Callback):
    """Writes each epoch into the run folder as soon as it is over.

    `so_far` holds what is known of the epoch that goes on: the seconds it took, and lr, momentum,
    loss and size of each batch.
    """

    order = 55  # after fastai's Recorder, whose metrics it takes

    def __init__(self, run: RunFolder) -> None:
        self.run, self.resumed = run, run.saved.so_far if run.saved else None

    def before_epoch(self) -> None:
        begun = self.resumed or {"seconds": 0.0, "batches": []}
        self.resumed = None
        self.started = time.perf_counter() - begun["seconds"]
        self.batches = list(begun["batches"])
        self.losses: list[torch.Tensor] = []  # of the last batches, which still lack theirs

    def after_batch(self) -> None:
        if self.training:
            hypers = self.opt.hypers[-1]
            self.batches.append([hypers["lr"], hypers["mom"], None, len(self.y)])
            self.losses.append(self.learn.loss.detach())

    def after_epoch(self) -> None:
        metrics = dict(zip(self.recorder.metric_names[1:], self.recorder.values[-1], strict=False))
        so_far = self.so_far()
        lrs, momenta, losses, sizes = zip(*so_far["batches"], strict=True)
        row = EpochRow(
            epoch=self.epoch + 1,
            train_loss=sum(loss * n for loss, n in zip(losses, sizes, strict=True)) / sum(sizes),
            train_accuracy=metrics["train_accuracy"],
            valid_loss=metrics["valid_loss"],
            valid_accuracy=metrics["valid_accuracy"],
            lr=lrs[-1],
            seconds=so_far["seconds"],
        )
        first = len(self.run.steps)
        steps = [
            StepRow(first + i, *v) for i, v in enumerate(zip(lrs, momenta, losses, strict=True))
        ]
        self.run.add_epoch(row, steps, self.model)

    def so_far(self) -> dict:
        """Plain values; the losses are fetched from the device here, all at once."""
        if self.losses:
            values = torch.stack(self.losses).tolist()
            for batch, loss in zip(self.batches[-len(values) :], values, strict=True):
                batch[2] = loss
            self.losses = []
        return {
            "seconds": time.perf_counter() - self.started,
            "batches": [list(batch) for batch in self.batches],
        }


class StopWhenDiverged(Callback):
    """Raises DivergedError in the step whose loss is NaN or infinite.

    In mixed precision the scaler skips steps whose gradients overflow; the loss is finite there.
    """

    order = 54  # before anything of the step is recorded

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def after_batch(self) -> None:
        loss = self.learn.loss.item()
        if math.isfinite(loss):
            return
        where = f"step {self.train_iter - 1}" if self.training else "the evaluation"
        raise DivergedError(
            f"the loss became {loss} in {where} of epoch {self.epoch + 1} at lr "
            f"{self.opt.hypers[-1]['lr']:.3g}: begin again with a lower --lr-max, or look at the "
            f"images and labels; the last good checkpoint is in {self.run.checkpoints.path}"
        )


class KeepPage(Callback):
    """Writes the page when the fit begins and after each epoch."""

    order = 66  # after the checkpoint, from which the run would go on

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def before_fit(self) -> None:
        self.run.check_there()
        write_report(self.run.path, "running")

    after_epoch = before_fit


@contextmanager
def page_of_the_end(run: RunFolder) -> Iterator[None]:
    """However the run ends inside, its page does not go on saying that it runs."""
    try:
        yield
    except BaseException:
        with suppress(OSError, S11Error):
            run.check_there()
            write_report(run.path, "stopped")
        raise


class KeepCheckpoints(Callback):
    """Writes checkpoints of the fit, and begins it where the run's newest one stands.

    One is written at the beginning, when `minutes` have passed since the last one, after each
    epoch, and when `stop` says so; then the fit ends.
    """

    order = 65  # after RecordRun, and after the schedulers, whose state it restores

    def __init__(
        self, run: RunFolder, record: RecordRun, minutes: float, stop: Callable[[], object]
    ) -> None:
        self.run, self.record, self.minutes, self.stop = run, record, minutes, stop
        self.resumed = run.saved

    def before_fit(self) -> None:
        self.written = None
        if self.resumed:
            restore(self.learn, self.resumed.learner)
            self.written, self.when = list(self.learn.start), time.monotonic()
        else:
            self._write(between_epochs(self.learn, 0), {})

    def before_train(self) -> None:
        if self.resumed:
            restore_progress(self.learn, self.resumed.learner.values["at"])
            self.resumed = None

    def after_batch(self) -> None:
        stop = self.stop()
        if stop or time.monotonic() - self.when >= 60 * self.minutes:
            # In evaluation the network stays as training left it; evaluating begins again.
            at = progress(self.learn, self.iter + 1) if self.training else self.trained
            self._write(at, self.record.so_far())
        if stop:
            raise CancelFitException

    def after_train(self) -> None:
        self.trained = progress(self.learn, self.n_iter)

    def after_epoch(self) -> None:
        self._write(between_epochs(self.learn, self.epoch + 1), {})
        if self.stop():
            raise CancelFitException

    def _write(self, at: dict, so_far: dict) -> None:
        if not all(value.isfinite().all() for value in self.model.state_dict().values()):
            raise DivergedError(
                f"the weights became infinite or NaN by step {self.train_iter}: begin again with a "
                f"lower --lr-max; the last good checkpoint is in {self.run.checkpoints.path}"
            )
        if at["position"] != self.written:
            self.run.write_checkpoint(capture(self.learn, at), so_far)
            self.written = at["position"]
        self.when = time.monotonic()
