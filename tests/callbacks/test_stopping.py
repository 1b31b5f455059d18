"""What ends a run before its time: losses, locks, disks, signals."""

import multiprocessing
import os
import signal
import sys
import threading
from itertools import count

import pytest
import torch
from fastai.callback.core import Callback
from helpers import SMALL, ended, refused_data

from s11_fastai import find_lr_bounds, get_dls, s11_learner
from s11_fastai.callbacks import stopping
from s11_fastai.callbacks.checkpoint import SaveCheckpoints
from s11_fastai.callbacks.stopping import StopOnDivergence
from s11_fastai.errors import DivergedError, S11Error, Stopped
from s11_fastai.learner import TrainInLowPrecision
from s11_fastai.model import S11ResNet
from s11_fastai.runs.checkpoints import Checkpoints
from s11_fastai.signals import StopSignals
from s11_fastai.sources import folder
from s11_fastai.storage import read_tensors

pytestmark = pytest.mark.usefixtures("fewer_pictures")


def test_a_loss_that_is_not_finite_ends_the_run_with_3(argv, tmp_path, capsys, monkeypatch):
    logits, calls = S11ResNet.logits, count()

    def not_finite_in_the_third_batch(self, x):
        third = not x.is_meta and next(calls) == 2  # the page looks at the shapes alone
        return logits(self, x) * (float("nan") if third else 1)

    monkeypatch.setattr(S11ResNet, "logits", not_finite_in_the_third_batch)
    code, said = ended([*argv, "--checkpoint-minutes", "0"], capsys)
    assert code == 3
    assert "the loss became nan in step 2 " in said
    assert "of epoch 1 at lr " in said
    assert "--lr-max" in said
    assert said.endswith(f"the last good checkpoint is in {tmp_path / 'r/checkpoint'}")
    learner = Checkpoints(tmp_path / "r/checkpoint").newest()["learner"]
    assert all(value.isfinite().all() for value in learner["model"].values())
    batches = learner["callbacks"]["record_epochs"]["epoch"]["batches"]
    assert all(loss < float("inf") for *_, loss, _ in batches)


def test_in_a_learners_own_callbacks_fits_alone_are_guarded(images):
    torch.manual_seed(0)
    learn = s11_learner(get_dls(images, bs=10, device="cpu"), S11ResNet(3, 1))
    learn.add_cb(StopOnDivergence())
    with learn.no_bar(), learn.no_logging():
        learn.validate()
        learn.get_preds(with_loss=True)
        find_lr_bounds(learn)
        learn.fit(1, 0.01)
        learn.get_preds(with_loss=True)
        with pytest.raises(DivergedError):
            learn.fit(2, 1e30)


def test_predictions_may_be_gathered_within_a_fit(images):
    class Gathers(Callback):
        def after_epoch(self) -> None:
            *_, losses = self.learn.get_preds(with_loss=True, inner=True)
            gathered.append(len(losses))

    gathered: list[int] = []
    learn = s11_learner(get_dls(images, bs=10, device="cpu"), S11ResNet(3, 1))
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 0.01, cbs=[StopOnDivergence(), Gathers()])
    assert gathered == [24, 24]


def test_the_step_lr_and_loss_are_those_of_the_batch(images, tmp_path):
    torch.manual_seed(0)
    learn = s11_learner(get_dls(images, bs=10, device="cpu"), S11ResNet(3, 1))
    loss_func, count = learn.loss_func, iter(range(100))

    def infinite_in_the_second_epoch(pred, y):
        loss = loss_func(pred, y)
        # An epoch has four batches of training and three of evaluation.
        return loss * float("inf") if next(count) == 4 + 3 + 1 else loss

    learn.loss_func = infinite_in_the_second_epoch
    guard = StopOnDivergence()
    said = pytest.raises(DivergedError, match=r"inf in step 5 of epoch 2 at lr 0.02")
    with learn.no_bar(), learn.no_logging(), said:
        learn.fit(3, lr=0.02, cbs=guard)


@pytest.mark.parametrize(("bad", "said"), [(2, "step 2"), (5, "the evaluation")])
def test_on_a_gpu_it_is_seen_before_the_epoch_ends_and_before_anything_is_saved(
    images, monkeypatch, bad, said
):
    """There, a look each 32 batches: an epoch has four of training and three of evaluation."""
    monkeypatch.setattr(stopping, "batches_between_looks", lambda _: 32)
    learn = s11_learner(get_dls(images, bs=10, device="cpu"), S11ResNet(3, 1))
    loss_func, batches, saved = learn.loss_func, count(), []

    def infinite_once(pred, y):
        return loss_func(pred, y) * (float("inf") if next(batches) == bad else 1)

    learn.loss_func = infinite_once
    times = iter(range(0, 10_000, 60))
    save = SaveCheckpoints(lambda state: saved.append(state["batch"]), 2, lambda: next(times))
    with learn.no_bar(), learn.no_logging(), pytest.raises(DivergedError, match=f"in {said} of"):
        learn.fit(2, 0.01, cbs=[StopOnDivergence(), save])
    assert saved == ([0, 2] if bad == 2 else [0, 2, 4])
    assert next(batches) <= 7


def test_a_step_that_the_scaler_skipped_does_not_end_the_run(images, tmp_path):
    """The first scale is so high that gradients overflow, as they do in long fits now and then."""

    class Counts(Callback):
        skipped = 0

        def after_cancel_step(self):
            self.skipped += 1

    torch.manual_seed(0)
    learn = s11_learner(get_dls(images, bs=10, device="cpu"), S11ResNet(3, 1), precision="fp32")
    low, counts = TrainInLowPrecision("fp16", init_scale=2.0**19), Counts()
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, lr=0.01, cbs=[low, counts, StopOnDivergence()])
    assert len(learn.recorder.losses) == 8
    assert 0 < counts.skipped < 8


def test_weights_that_are_not_finite_are_no_good_checkpoint(argv, tmp_path, monkeypatch, capsys):
    """The last step's loss is finite, what it did to the weights is not."""
    count = iter(range(100))

    def overflow(self):
        if next(count) == 2:
            self.model.fc.bias.data[0] = float("inf")

    monkeypatch.setattr(StopOnDivergence, "after_step", overflow, raising=False)
    code, said = ended([*argv, "--checkpoint-minutes", "0"], capsys)
    assert code == 3
    assert "the weights became infinite or NaN by step 3" in said
    for file in (tmp_path / "r/checkpoint").iterdir():
        tensors, _ = read_tensors(file)
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_range_test_without_bounds_begins_no_run(argv, tmp_path, monkeypatch, capsys):
    def none(*_):
        raise S11Error("the range test gives no bounds")

    monkeypatch.setattr("s11_fastai.lr_bounds.bounds_of", none)
    code, said = ended([*argv[:4], *SMALL], capsys)
    assert (code, said) == (2, "run.py: the range test gives no bounds")
    assert not (tmp_path / "r").exists()


def test_a_signal_raises_at_once_but_waits_where_patience_is_asked_for():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped) as stop, StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.value.exit_code == 130
    seen = []

    def work():
        with StopSignals() as signals:
            signals.be_patient()
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append(signals.asked)
            # The next one is the system's, which ends the process.
            seen.append(signal.getsignal(signal.SIGINT))
            signals.raise_if_asked()

    with pytest.raises(Stopped):
        work()
    assert seen == [signal.SIGTERM, signal.SIG_DFL]
    assert signal.getsignal(signal.SIGINT) == before


class StopsWhenDeleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no timer")
def test_a_signal_where_python_drops_what_is_raised_stops_soon_after(capfd):
    before = signal.getsignal(signal.SIGALRM), sys.unraisablehook

    def work():
        with StopSignals():
            StopsWhenDeleted()
            threading.Event().wait(60)

    with pytest.raises(Stopped) as stop:
        work()
    assert stop.value.exit_code == 143
    assert "Traceback" not in capfd.readouterr().err
    assert (signal.getsignal(signal.SIGALRM), sys.unraisablehook) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("warning", ["SIGHUP", "SIGUSR1"])
def test_a_closed_terminal_and_slurms_warning_stop_too_however_often_they_come(warning):
    number = getattr(signal, warning)
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup

    def work():
        with StopSignals() as signals:
            signals.be_patient()
            for _ in range(2):
                os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)  # the first command: still patient
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            signals.raise_if_asked()

    try:
        with pytest.raises(Stopped) as stop:
            work()
        assert stop.value.exit_code == 128 + number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_under_nohup_a_closed_terminal_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.asked is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_no_decoding_process_outlives_the_one_that_asked():
    alive, held = os.pipe()
    context = multiprocessing.get_context("fork")

    def parent():
        with folder.process_mapper() as run_all:
            # Each worker tells that it has begun, then waits for what never comes.
            list(run_all(_wait_forever, [held] * 2))

    process = context.Process(target=parent)
    process.start()
    os.close(held)
    assert os.read(alive, 1) == b"."
    process.kill()
    process.join()
    while os.read(alive, 1):  # ends when the last process that holds the other end has ended
        pass
    os.close(alive)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_a_decoding_process_that_is_killed_is_told(image_folder, monkeypatch):
    monkeypatch.setattr(folder, "decode_chunk", _killed)
    assert "for want of memory" in refused_data(image_folder)


def _killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_forever(held: int) -> None:
    os.write(held, b".")
    os.read(os.pipe()[0], 1)
