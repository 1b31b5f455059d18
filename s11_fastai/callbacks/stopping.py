"""What ends a fit before its time: a signal, or a loss that is NaN or infinite."""

import math
import signal

import torch
from fastai.callback.core import CancelFitException
from torch import Tensor

from s11_fastai.callbacks.checkpoint import SaveCheckpoints
from s11_fastai.callbacks.distributed import Processes
from s11_fastai.callbacks.fits import FitCallback, callback_of
from s11_fastai.callbacks.recording import RecordEpochs
from s11_fastai.errors import DivergedError
from s11_fastai.signals import StopSignals

_BATCHES_ON_A_GPU = 32


def batches_between_looks(device: str | torch.device) -> int:
    """How many batches pass between two looks at what they gave.

    On a GPU a look waits for every step that was begun, which in each step would cost its time.
    """
    return 1 if torch.device(device).type == "cpu" else _BATCHES_ON_A_GPU


class StopOnDivergence(FitCallback):
    """Raises DivergedError for the first step whose loss is NaN or infinite.

    On a CPU it does so in that step, on a GPU some steps later, but before the end of the epoch
    and before anything is saved. In mixed precision the scaler skips steps whose gradients
    overflow; the loss is finite there. Range tests and predictions are not looked at.
    """

    order = RecordEpochs.order - 1  # before anything of the step is recorded

    def __init__(self) -> None:
        self.unseen: list[tuple[str, float, Tensor]] = []

    def begin_fit(self) -> None:
        self.unseen = []

    def after_batch(self) -> None:
        if not self.in_fit:
            return
        where = f"step {self.train_iter - 1}" if self.training else "the evaluation"
        loss = self.learn.loss.detach().mean()  # one for each image, if predictions are gathered
        self.unseen.append((where, self.opt.hypers[-1]["lr"], loss))
        if len(self.unseen) >= batches_between_looks(self.learn.loss.device):
            self.look()

    def look(self) -> None:
        """Look at the losses of the batches since the last look."""
        unseen, self.unseen = self.unseen, []
        losses = torch.stack([loss for *_, loss in unseen]).tolist() if unseen else []
        for (where, lr, _), loss in zip(unseen, losses, strict=True):
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the loss became {loss} in {where} of epoch {self.epoch + 1} at lr {lr:.3g}: "
                    "begin again with a lower `lr_max`, or look at the images and labels"
                )

    def after_train(self) -> None:
        if self.in_fit:
            self.look()

    after_validate = after_train


class StopOnSignal(FitCallback):
    """Ends the fit, in all processes at the same batch, once a signal has come to any of them.

    One process ends after the step that goes on; on several GPUs it may take some steps more.
    Within an epoch the Learner's SaveCheckpoints, where it has one, saves the state first.
    """

    order = SaveCheckpoints.order + 1

    def __init__(self, signals: StopSignals, processes: Processes) -> None:
        self.signals, self.processes = signals, processes
        self.batches = 0

    def begin_fit(self) -> None:
        alone = self.processes.world_size == 1
        self.every = 1 if alone else batches_between_looks(self.dls.device)

    def after_batch(self) -> None:
        self.batches += 1
        if self.in_fit and self.batches % self.every == 0 and self._asked():
            if saver := callback_of(self.learn, "save_checkpoints"):
                saver.checkpoint()
            raise CancelFitException

    def after_epoch(self) -> None:
        if self.in_fit and self._asked():
            raise CancelFitException

    def _asked(self) -> bool:
        asked = self.processes.any(self.signals.asked is not None)
        if asked and self.signals.asked is None:
            self.signals.asked = signal.SIGTERM
        return asked
