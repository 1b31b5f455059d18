"""Exact resume, for any fastai Learner: checkpoints of a fit, and a fit that goes on from one.

A loader that can begin at a batch (its class has `begins_at_batch`, `set_epoch` and `state_dict`)
lets a fit go on within an epoch; with any other, it goes on from the last epoch's end, and so it
does where the recorder computes metrics of the training images too.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from fastai.callback.core import Callback, CancelEpochException
from fastai.callback.fp16 import NonNativeMixedPrecision
from fastai.callback.schedule import ParamScheduler
from fastai.learner import Learner
from fastai.torch_core import get_model

from s11_fastai.callbacks.fit_state import (
    begins_at_batch,
    check_length,
    load_state_dict,
    parameters_of,
    refusing_misfits,
    state_dict,
)
from s11_fastai.callbacks.fits import FitCallback, callback_of, may_be_fit
from s11_fastai.errors import DivergedError, S11Error
from s11_fastai.generators import generator_state, load_generator_state
from s11_fastai.streams import say


def batches_done(learn: Learner) -> int:
    """How many training batches of the epoch are behind a Learner that is fitting."""
    return round((learn.pct_train * learn.n_epoch - learn.epoch) * len(learn.dls.train))


class Resume(Callback):
    """Begins the fit where a state of `SaveCheckpoints` stands; with None, at its beginning.

    The epochs before it are passed over in silence: no other callback hears of them. It is for the
    `cbs` of one fit. Among a Learner's own it waits for the first fit, which must not be within
    `learn.no_mbar`: by that it knows an evaluation. Raises S11Error there, and for the state of
    another fit, and goes on waiting. Learning rates and weight decay are the state's.
    """

    order = -1000  # the first of all, so that it can keep events from the others

    def __init__(self, state: Mapping[str, Any] | None) -> None:
        self.state = state
        self.waiting = state is not None
        self.begins: tuple[int, int] | None = None  # of the fit that goes on: its epoch and batch
        self.silenced: list[Callback] = []
        self.drawn = False  # the generators are those of the state

    def before_fit(self) -> None:
        if not callback_of(self.learn, "gather_preds"):  # which may be within a fit
            self.begins = None
        if may_be_fit(self.learn):  # the one before may have failed before its first batch
            self.waiting, self.drawn = self.state is not None, False
            self._let_run()

    def before_epoch(self) -> None:
        if self.state is None or not self.waiting or not self._is_its_fit():
            return
        if self.epoch < self.state["epoch"]:
            others = [cb for cb in self.learn.cbs if cb is not self and cb.run]
            for cb in others:
                cb.run = False
            self.silenced += others
            raise CancelEpochException("this epoch is over: Resume passes over it in a fit alone")
        self._begin()

    def before_train(self) -> None:
        if self.state is not None and self.waiting and not callback_of(self.learn, "lr_finder"):
            check_length(self.learn, self.state)
            raise S11Error("Resume takes this fit for an evaluation: begin it outside of no_mbar()")

    # Making an iterator over a DataLoader draws a random number, and the epoch's beginning sets
    # pct_train: within an epoch, both come back when that is over. The transforms of the first
    # batch draw before `before_batch`: a loader that has `when_begun` calls before that.

    def before_batch(self) -> None:
        if not self.training:
            return
        if self.state is not None and not self.waiting:
            self._restore_rest()
        if self.begins is not None and self.epoch == self.begins[0]:
            self.learn.iter += self.begins[1]  # fastai counts from where the loader begins

    def before_validate(self) -> None:
        self.drawn = False  # the training's iterator has drawn since
        if self.state is not None and not self.waiting:  # no batch of training was left
            self._restore_rest()

    def after_fit(self) -> None:
        if self.waiting and self._is_its_fit():  # no epoch was left to do
            self._begin()
            say("nothing was left to train: the checkpoint is of the end of this fit")

    def _is_its_fit(self) -> bool:
        """Whether it may be; `learn.summary` and `learn.tta` look like a fit, of other epochs."""
        assert self.state is not None
        return may_be_fit(self.learn) and self.learn.n_epoch == self.state["epochs"]

    def _let_run(self) -> None:
        for cb in self.silenced:
            cb.run = True
        self.silenced = []

    def _begin(self) -> None:
        assert self.state is not None
        self._let_run()
        self.waiting, self.begins = False, (self.state["epoch"], self.state["batch"])
        load_state_dict(self.learn, self.state)
        if not self.state["batch"]:
            self._restore_rest()
        elif hasattr(type(self.dls.train), "when_begun"):
            self.dls.train.when_begun(self._restore_generators)

    def _restore_generators(self) -> None:
        if self.state is not None:
            with refusing_misfits():
                load_generator_state(self.state["generators"])
            self.drawn = True

    def _restore_rest(self) -> None:
        assert self.state is not None
        if not self.drawn:
            self._restore_generators()
        with refusing_misfits():
            self.learn.pct_train = float(self.state["pct_train"])
        self.state = None


class SaveCheckpoints(FitCallback):
    """Gives `save` the state of the fit, as `state_dict` describes it.

    It does so at the beginning, when `minutes` have passed since the last time, after each epoch,
    and when `checkpoint` is called. Weights that are not finite are not saved, nor losses where
    StopOnDivergence looks at them: it raises DivergedError. Range tests, predictions and
    evaluations by themselves save nothing. Random numbers that other callbacks draw between an
    epoch's end and the first batch of the next are drawn once more when a fit goes on from there.
    What a callback remembers over epochs is kept where it has a `state_dict`, of a stock loader its
    random generator alone: so fits with fastai's shuffled LMDataLoader, its GANTrainer or its
    DistributedTrainer go on to another end. NonNativeMixedPrecision is refused, and `fine_tune`,
    which is two fits, cannot be resumed.
    """

    order = ParamScheduler.order + 5  # after what records the batch and the epoch

    def __init__(
        self,
        save: Callable[[dict[str, Any]], None],
        minutes: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.write, self.minutes, self.clock = save, minutes, clock
        self.saved: tuple[int, int] | None = None

    def before_epoch(self) -> None:
        if not self.trains:
            self.generators = generator_state()

    def begin_fit(self) -> None:
        if any(isinstance(cb, NonNativeMixedPrecision) for cb in self.learn.cbs):
            raise S11Error(
                "NonNativeMixedPrecision trains weights that no checkpoint can keep: make a new "
                "Learner, with to_fp16() or to_bf16() in its place, or without SaveCheckpoints"
            )
        self.saved, self.saved_at = None, self.clock()
        buffers = get_model(self.model).named_buffers()
        self.not_finite = {name for name, b in buffers if not b.isfinite().all()}  # as of a mask
        resume = callback_of(self.learn, "resume")
        if resume and resume.begins:
            self.saved = resume.begins
        else:
            self._save(self.epoch, 0, self.generators)

    def before_validate(self) -> None:
        if self.in_fit:
            self.generators = generator_state()  # evaluation begins again, and draws again

    def after_batch(self) -> None:
        if self.in_fit and self.training and self.clock() - self.saved_at >= 60 * self.minutes:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save the state after the last training batch, where a fit can go on from there."""
        goes_on = begins_at_batch(self.dls.train) and not self.recorder.train_metrics
        if self.in_fit and goes_on:
            generators = None if self.training else self.generators
            self._save(self.epoch, batches_done(self.learn), generators)

    def after_epoch(self) -> None:
        if self.in_fit:
            self._save(self.epoch + 1, 0)

    def _save(self, epoch: int, batch: int, generators: dict[str, Any] | None = None) -> None:
        """`generators` is their state where it is not that of this moment."""
        if guard := callback_of(self.learn, "stop_on_divergence"):
            guard.look()
        named = get_model(self.model).named_buffers()
        buffers = (b for name, b in named if name not in self.not_finite)
        weights = parameters_of(self.learn).values()
        if not all(value.isfinite().all() for value in (*weights, *buffers)):
            raise DivergedError(
                f"the weights became infinite or NaN by step {self.train_iter}: begin again with a "
                "lower `lr_max`"
            )
        if (epoch, batch) != self.saved:
            self.write(state_dict(self.learn, epoch, batch, generators))
            self.saved = epoch, batch
        self.saved_at = self.clock()
