"""Among a Learner's own callbacks, ours hear of fits alone, whatever came before them."""

import math
import signal
from contextlib import suppress

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.training import ShortEpochCallback
from fits import StopAfter, fit, learner, sliced_loaders, state, stock_loaders

from s11_fastai import Checkpoints, Resume, SaveCheckpoints, StopOnDivergence, find_lr_bounds
from s11_fastai.callbacks.distributed import Processes
from s11_fastai.callbacks.recording import RecordEpochs
from s11_fastai.callbacks.stopping import StopOnSignal
from s11_fastai.errors import DivergedError, S11Error
from s11_fastai.signals import StopSignals


class Interrupts(Callback):
    def after_batch(self) -> None:
        if self.iter == 2:
            raise KeyboardInterrupt


def use(learn) -> None:
    """All that a Learner does with its callbacks but fits, also where it is interrupted."""
    learn.validate()
    learn.get_preds(with_loss=True)
    find_lr_bounds(learn)
    learn.lr_find(num_it=12, show_plot=False)
    for work in (find_lr_bounds, lambda _: learn.lr_find(num_it=12, show_plot=False)):
        with learn.added_cbs(Interrupts()), suppress(KeyboardInterrupt):
            work(learn)


# What fastai's own range test leaves behind when it is interrupted.
left_behind = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where fastai's range test keeps the weights


@left_behind
@pytest.mark.parametrize("before", ["nothing", "an optimiser", "a fit that was interrupted"])
def test_fits_alone_are_saved_guarded_and_recorded(before):
    saved: list[tuple[int, int]] = []
    save = SaveCheckpoints(lambda state: saved.append((state["epoch"], state["batch"])))
    learn, record = learner(sliced_loaders), RecordEpochs()
    learn.add_cbs([save, StopOnDivergence(), record])
    with learn.no_bar(), learn.no_logging():
        if before != "nothing":
            learn.create_opt()
        if "interrupted" in before:
            with suppress(KeyboardInterrupt):
                learn.fit(1, cbs=Interrupts())
            saved.clear()
        use(learn)
        assert (saved, record.history) == ([], [])
        learn.fit_one_cycle(2, 0.01)
        assert saved == [(0, 0), (1, 0), (2, 0)]
        assert [row.epoch for row in record.history] == [1, 2]
        saved.clear()
        use(learn)
        assert (saved, len(record.history)) == ([], 2)
        with pytest.raises(DivergedError):
            learn.fit(2, 1e30)
        for parameter in learn.model.parameters():
            parameter.data.fill_(math.nan)
        learn.validate()
        learn.get_preds(with_loss=True)
        learn.tta(n=1)


@left_behind
@pytest.mark.parametrize("batches", [2, 6])  # in the first epoch, and in a later one
def test_a_state_waits_for_a_fit_also_where_there_is_an_optimiser(tmp_path, batches):
    whole = fit(learner(sliced_loaders), [])
    checkpoints = Checkpoints(tmp_path)
    fit(learner(sliced_loaders), [SaveCheckpoints(checkpoints.write), StopAfter(batches)])
    learn, saved = learner(sliced_loaders), []
    save = SaveCheckpoints(lambda state: saved.append((state["epoch"], state["batch"])))
    learn.add_cbs([Resume(checkpoints.newest()), save])
    learn.create_opt()
    with learn.no_bar(), learn.no_logging():
        use(learn)
    assert state(fit(learn, [])) == state(whole)
    assert saved == [(epoch, 0) for epoch in range(batches // 4 + 1, 4)]


def test_a_state_that_would_be_passed_by_is_no_silent_matter(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    fit(learner(sliced_loaders), [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    learn = learner(sliced_loaders)
    with learn.no_mbar(), pytest.raises(S11Error, match="outside of no_mbar"):
        fit(learn, [Resume(checkpoints.newest())])


def test_a_signal_ends_fits_alone_and_saves_nothing_else():
    saved: list[tuple[int, int]] = []
    save = SaveCheckpoints(lambda state: saved.append((state["epoch"], state["batch"])))
    learn = learner(sliced_loaders)
    with StopSignals() as signals, learn.no_bar(), learn.no_logging():
        learn.fit(1)
        learn.add_cbs([save, StopOnSignal(signals, Processes(torch.device("cpu")))])
        signals.asked = signal.SIGTERM
        learn.validate()
        find_lr_bounds(learn)
        assert saved == []
        learn.fit(2)
        signals.asked = None
    assert saved == [(0, 0), (0, 1)]


def test_labels_in_a_column_are_counted_as_those_in_a_row():
    def accuracies(column: bool) -> list[float]:
        learn, record = learner(stock_loaders), RecordEpochs()
        for loader in learn.dls.loaders:
            loader.dataset[:] = [(x, y[None] if column else y) for x, y in loader.dataset]
        fit(learn, [record])
        return [row.train_accuracy for row in record.history]

    assert accuracies(column=True) == accuracies(column=False)


def test_epochs_that_were_cut_short_or_left_out_have_the_rows_that_are_theirs():
    short, skipped = RecordEpochs(), RecordEpochs()
    learn = learner(stock_loaders)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=[short, ShortEpochCallback(0.3, short_valid=False)])
        (row,) = short.history
        assert [row.valid_loss, row.valid_accuracy] == learn.recorder.values[-1]
        assert math.isfinite(row.train_loss)
        learn.fit(3, start_epoch=2, cbs=skipped)
    assert [row.epoch for row in skipped.history] == [3]
    assert len(skipped.steps) == 4
