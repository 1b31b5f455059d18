"""From training to the run folder: what each step and each epoch gave."""

import time

import torch
from fastai.callback.core import Callback

from s11_fastai.runs import EpochRow, RunFolder, StepRow


class RecordRun(Callback):
    """Writes each epoch into the run folder as soon as it is over."""

    order = 55  # after fastai's Recorder, whose metrics it takes

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def before_epoch(self) -> None:
        self.started, self.batches = time.perf_counter(), []

    def after_batch(self) -> None:
        if self.training:
            hypers = self.opt.hypers[-1]
            # The loss stays on the device until the epoch's end.
            self.batches.append(
                (hypers["lr"], hypers["mom"], self.learn.loss.detach(), len(self.y))
            )

    def after_epoch(self) -> None:
        metrics = dict(zip(self.recorder.metric_names[1:], self.recorder.values[-1], strict=False))
        lrs, momenta, losses, sizes = zip(*self.batches, strict=True)
        losses = torch.stack(losses).tolist()
        row = EpochRow(
            epoch=self.epoch + 1,
            train_loss=sum(loss * n for loss, n in zip(losses, sizes, strict=True)) / sum(sizes),
            train_accuracy=metrics["train_accuracy"],
            valid_loss=metrics["valid_loss"],
            valid_accuracy=metrics["valid_accuracy"],
            lr=lrs[-1],
            seconds=time.perf_counter() - self.started,
        )
        first = len(self.run.steps)
        steps = [
            StepRow(first + i, *v) for i, v in enumerate(zip(lrs, momenta, losses, strict=True))
        ]
        self.run.add_epoch(row, steps, self.model)
