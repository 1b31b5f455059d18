"""From training to the run folder: what each step and each epoch gave, and checkpoints."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from fastai.callback.core import Callback
from fastai.torch_core import get_model

from s11_fastai.callbacks.checkpoint import between_epochs, capture, progress
from s11_fastai.callbacks.stopping import StopWhenDiverged
from s11_fastai.errors import DivergedError, S11Error
from s11_fastai.report.page import write_report
from s11_fastai.runs.run import EpochRow, RunFolder, StepRow


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
        self.run.add_epoch(row, steps, get_model(self.model))

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


class KeepPage(Callback):
    """Writes the page when the fit begins and after each epoch."""

    order = 67  # after the checkpoint, from which the run would go on

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
    """Writes checkpoints of the fit.

    One is written at the beginning, when `minutes` have passed since the last one, after each
    epoch, and when `keep` is called.
    """

    order = 65  # after RecordRun

    def __init__(
        self, run: RunFolder, record: RecordRun, guard: StopWhenDiverged, minutes: float
    ) -> None:
        self.run, self.record, self.guard, self.minutes = run, record, guard, minutes

    def before_fit(self) -> None:
        self.written = list(self.learn.start) if self.run.saved else None
        if self.written:
            self.when = time.monotonic()
        else:
            self._write(between_epochs(self.learn, 0), {})

    def after_batch(self) -> None:
        if time.monotonic() - self.when >= 60 * self.minutes:
            self.keep()

    def keep(self) -> None:
        """Write a checkpoint of the batch that is over."""
        # In evaluation the network stays as training left it; evaluating begins again.
        at = progress(self.learn, self.iter + 1) if self.training else self.trained
        self._write(at, self.record.so_far())

    def after_train(self) -> None:
        self.trained = progress(self.learn, self.n_iter)

    def after_epoch(self) -> None:
        self._write(between_epochs(self.learn, self.epoch + 1), {})

    def _write(self, at: dict, so_far: dict) -> None:
        self.guard.look()
        if not all(value.isfinite().all() for value in get_model(self.model).state_dict().values()):
            raise DivergedError(
                f"the weights became infinite or NaN by step {self.train_iter}: begin again with a "
                f"lower --lr-max; the last good checkpoint is in {self.run.checkpoints.path}"
            )
        if at["position"] != self.written:
            self.run.write_checkpoint(capture(self.learn, at), so_far)
            self.written = at["position"]
        self.when = time.monotonic()
