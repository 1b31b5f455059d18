"""What a person sees in the terminal while a run goes on."""

import time
from collections.abc import Mapping, Sequence

import torch
from fastai.callback.core import Callback
from tqdm import tqdm

from s11_fastai.callbacks.checkpoint import SaveCheckpoints
from s11_fastai.callbacks.fits import callback_of
from s11_fastai.callbacks.recording import RecordEpochs, best_of
from s11_fastai.callbacks.stopping import batches_between_looks
from s11_fastai.streams import say


class EpochTable(Callback):
    """One aligned line an epoch, with a header; accuracies in percent.

    It prints the rows of the Learner's RecordEpochs. `evaluated_on` names the evaluated images.
    """

    order = RecordEpochs.order + 1

    def __init__(self, evaluated_on: str) -> None:
        names = ("train loss", "train acc", f"{evaluated_on} loss", f"{evaluated_on} acc")
        self.names = ("epoch", *names, "lr", "seconds")
        self.widths = [len("epoch"), *(max(len(name), 8) for name in self.names[1:])]
        self.begun = False

    def after_epoch(self) -> None:
        history = self.learn.record_epochs.history
        if not history or (row := history[-1]).epoch != self.epoch + 1:
            return  # it has recorded nothing of this epoch
        if not self.begun:
            self._say(self.names)
            self.begun = True
        values = (
            str(row.epoch),
            f"{row.train_loss:.4f}",
            f"{row.train_accuracy:.2%}",
            f"{row.valid_loss:.4f}",
            f"{row.valid_accuracy:.2%}",
            f"{row.lr:.3g}",
            f"{row.seconds:.1f}",
        )
        self._say(values, "best so far" if best_of(history) is row else "")

    def _say(self, values: Sequence[str], note: str = "") -> None:
        columns = [value.rjust(w) for value, w in zip(values, self.widths, strict=True)]
        say("  ".join([*columns, note]).rstrip())


class StepBar(Callback):
    """A progress bar over all steps with loss and time left, where stderr is a terminal."""

    order, run_valid = SaveCheckpoints.order + 5, False

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.bar: tqdm | None = None

    def before_epoch(self) -> None:
        if self.bar is not None:
            return
        # Reading the loss waits for a GPU, so there it is read only when the bar is drawn.
        self.looks_at_all = batches_between_looks(self.dls.device) == 1
        self.bar = tqdm(
            total=self.total,
            initial=self.train_iter,
            desc=self.title,
            unit="step",
            leave=False,
            disable=None,
            mininterval=0.1 if self.looks_at_all else 1,
        )

    def after_batch(self) -> None:
        assert self.bar is not None
        shown = self.bar.update()
        if not self.bar.disable and (shown or self.looks_at_all):
            self.bar.set_postfix(loss=f"{self.smooth_loss.item():.3f}", refresh=False)

    def after_fit(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None


class TimeEstimate(Callback):
    """On a CPU, after the first steps, says once how long all that are left will take.

    `steps` and `evaluations` count the batches of all epochs, trained on and evaluated.
    """

    order, run_valid = StepBar.order + 1, False
    _FIRST, _LAST = 1, 4  # the first step warms up and is not counted

    def __init__(self, steps: float, evaluations: float, device: torch.device) -> None:
        self.steps, self.evaluations = steps, evaluations
        self.seen = 0 if device.type == "cpu" else self._LAST + 1

    def after_batch(self) -> None:
        if self.seen == self._FIRST:
            self.started = time.perf_counter()
        if self.seen == self._LAST:
            step = (time.perf_counter() - self.started) / (self._LAST - self._FIRST)
            # Evaluating a batch is the forward third of a step in float32.
            part = 3 / 4 if callback_of(self.learn, "low_precision") else 1 / 3
            seconds = step * (self.steps + part * self.evaluations)
            say(f"about {_duration(seconds)} to go at {step:.2g} s a step")
        self.seen += 1


def summary(results: Mapping) -> str:
    """Two lines of a run's results: the final accuracy; the best epoch and how it was chosen."""
    part = results["evaluated_on"]
    return (
        f"final accuracy {results['final_accuracy']:.2%} of the {part} images\n"
        f"best epoch {results['best_epoch']} with {results['best_accuracy']:.2%}, "
        f"chosen on the {part} images"
    )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
