"""What each step and each epoch of a fit gave, as plain rows."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from fastai.learner import Recorder
from torch import Tensor

from s11_fastai.callbacks.fits import FitCallback

# What is known of an epoch at its beginning.
_NOTHING: Mapping[str, Any] = {"seconds": 0.0, "batches": (), "right": 0, "seen": 0}


class EpochRow(NamedTuple):
    """One row of `history.csv`: losses in nats, accuracies as fractions, the epoch's last lr."""

    epoch: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float
    lr: float
    seconds: float


class StepRow(NamedTuple):
    """One row of `steps.csv`; steps count from 0, the loss is the batch's own."""

    step: int
    lr: float
    momentum: float
    loss: float


def best_of(history: Sequence[EpochRow]) -> EpochRow | None:
    """The epoch with the highest accuracy on the evaluated images, of equals the earliest."""
    return max(history, key=lambda row: row.valid_accuracy, default=None)


class RecordEpochs(FitCallback):
    """Keeps a row of every epoch and of every step in `history` and `steps`.

    It calls `on_epoch` as soon as an epoch is over. The training accuracy is that of the batches
    as they were trained on. Where the Learner has no metric called "accuracy", or its targets are
    no classes, accuracies are NaN. Epochs without a batch, range tests, predictions and
    evaluations by themselves have no row.
    """

    order = Recorder.order + 5  # it takes the recorder's metrics

    def __init__(self, on_epoch: Callable[[], None] = lambda: None) -> None:
        self.on_epoch = on_epoch
        self.history: list[EpochRow] = []
        self.steps: list[StepRow] = []
        self.begun: Mapping[str, Any] | None = None
        self.right: int | Tensor = 0
        self.seen = 0
        self._begin_epoch(_NOTHING)

    def before_train(self) -> None:
        super().before_train()
        if self.in_fit:
            self._begin_epoch(self.begun or _NOTHING)
            self.begun = None

    def after_batch(self) -> None:
        if not (self.in_fit and self.training):
            return
        hypers = self.opt.hypers[-1]
        self.batches.append([hypers["lr"], hypers.get("mom", 0.0), None, len(self.y)])
        self.losses.append(self.learn.loss.detach())
        if self.pred.ndim == 2 and self.y.numel() == len(self.pred):
            self.right = self.right + (self.pred.argmax(dim=-1) == self.y.flatten()).sum()
            self.seen += len(self.y)

    def after_epoch(self) -> None:
        if not (self.in_fit and self.batches):
            return
        epoch = self._epoch_state()
        # A cancelled training or evaluation has no metrics among the recorder's values.
        names = self.recorder._valid_mets.attrgot("name")
        metrics = dict(zip(names[::-1], self.recorder.values[-1][::-1], strict=False))
        lrs, momenta, losses, sizes = zip(*epoch["batches"], strict=True)
        first = len(self.steps)
        rows = enumerate(zip(lrs, momenta, losses, strict=True), first)
        self.steps += [StepRow(i, *values) for i, values in rows]
        self.history.append(
            EpochRow(
                epoch=self.epoch + 1,
                train_loss=sum(x * n for x, n in zip(losses, sizes, strict=True)) / sum(sizes),
                train_accuracy=epoch["right"] / epoch["seen"] if epoch["seen"] else float("nan"),
                valid_loss=metrics.get("loss", float("nan")),
                valid_accuracy=metrics.get("accuracy", float("nan")),
                lr=lrs[-1],
                seconds=epoch["seconds"],
            )
        )
        self._begin_epoch(_NOTHING)
        self.on_epoch()

    def state_dict(self) -> dict[str, Any]:
        """All rows so far, and what is known of the epoch that goes on."""
        return {
            "history": self.history,
            "steps": torch.tensor(self.steps, dtype=torch.float64),
            "epoch": self._epoch_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put rows back; raises what Python does where they are none."""
        history = [EpochRow(int(epoch), *map(float, row)) for epoch, *row in state["history"]]
        steps = [StepRow(int(step), *row) for step, *row in state["steps"].tolist()]
        begun = state["epoch"]
        self.begun = {
            "seconds": float(begun["seconds"]),
            "batches": [
                [float(lr), float(momentum), float(loss), int(size)]
                for lr, momentum, loss, size in begun["batches"]
            ],
            "right": int(begun["right"]),
            "seen": int(begun["seen"]),
        }
        self.history, self.steps = history, steps

    def _begin_epoch(self, state: Mapping[str, Any]) -> None:
        self.started = time.perf_counter() - state["seconds"]
        self.batches = [list(batch) for batch in state["batches"]]
        self.right, self.seen = state["right"], state["seen"]
        self.losses: list[Tensor] = []  # of the last batches, whose rows still lack theirs

    def _epoch_state(self) -> dict[str, Any]:
        """Plain values; the losses are fetched from the device here, all at once."""
        if self.losses:
            values = torch.stack(self.losses).tolist()
            for batch, loss in zip(self.batches[-len(values) :], values, strict=True):
                batch[2] = loss
            self.losses = []
        return {
            "seconds": time.perf_counter() - self.started,
            "batches": [list(batch) for batch in self.batches],
            "right": int(self.right),
            "seen": self.seen,
        }
