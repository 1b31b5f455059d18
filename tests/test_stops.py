"""What ends a run before its time: losses, locks, disks, signals."""

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys

import pytest
import run
import torch
from conftest import BOUNDS, ROOT, SMALL, no_pictures_of_predictions, read, refused_data
from fastai.callback.core import Callback, CancelStepException
from same import compare

from s11_fastai import get_dls, s11_learner
from s11_fastai.errors import DivergedError, S11Error, Stopped
from s11_fastai.learner import S11Learner
from s11_fastai.model import S11ResNet
from s11_fastai.record import StopWhenDiverged
from s11_fastai.run_path import locked
from s11_fastai.runs import RunFolder
from s11_fastai.sealed import read_sealed
from s11_fastai.signals import StopSignals
from s11_fastai.sources import folder

fewer_pictures = pytest.fixture(scope="module", autouse=True)(no_pictures_of_predictions)


def ended(argv, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        run.main([str(a) for a in argv])
    (said,) = capsys.readouterr().err.splitlines()
    return stop.value.code, said


@pytest.fixture
def argv(pets, tmp_path):
    return ["--data", pets, "--out", tmp_path / "r", *SMALL, *BOUNDS]


def test_a_loss_that_is_not_finite_ends_the_run_with_3(pets, tmp_path, capsys):
    argv = ["--data", pets, "--out", tmp_path / "r", *SMALL, "--lr-min", "1", "--lr-max", "1e30"]
    code, said = ended([*argv, "--checkpoint-minutes", "0"], capsys)
    assert code == 3
    assert "the loss became nan in step " in said
    assert "of epoch 1 at lr " in said
    assert "--lr-max" in said
    for file in (tmp_path / "r/checkpoint").iterdir():
        tensors, about = read_sealed(file)
        assert all(t.isfinite().all() for name, t in tensors.items() if "model" in name)
        assert all(loss < float("inf") for *_, loss, _ in about["so_far"].get("batches", []))


def test_the_step_lr_and_loss_are_those_of_the_batch(images, tmp_path):
    torch.manual_seed(0)
    learn = s11_learner(get_dls(images, bs=10, device="cpu"), S11ResNet(3, 1))
    loss_func, count = learn.loss_func, iter(range(100))

    def infinite_in_the_second_epoch(pred, y):
        loss = loss_func(pred, y)
        # An epoch has four batches of training and three of evaluation.
        return loss * float("inf") if next(count) == 4 + 3 + 1 else loss

    learn.loss_func = infinite_in_the_second_epoch
    guard = StopWhenDiverged(RunFolder(tmp_path, {}, {}))
    said = pytest.raises(DivergedError, match=r"inf in step 5 of epoch 2 at lr 0.02")
    with learn.no_bar(), learn.no_logging(), said:
        learn.fit(3, lr=0.02, cbs=guard)


def test_a_step_that_the_scaler_skipped_does_not_end_the_run(images, tmp_path):
    """fastai's MixedPrecision with a scaler that finds the first gradients infinite."""

    class SkipsOne(Callback):
        order = 10
        skip = True

        def before_step(self):
            if self.skip:
                self.skip = False
                raise CancelStepException

    torch.manual_seed(0)
    learn = s11_learner(get_dls(images, bs=10, device="cpu"), S11ResNet(3, 1))
    guard = StopWhenDiverged(RunFolder(tmp_path, {}, {}))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.01, cbs=[SkipsOne(), guard])
    assert len(learn.recorder.losses) == 4


def test_weights_that_are_not_finite_are_no_good_checkpoint(argv, tmp_path, monkeypatch, capsys):
    """The last step's loss is finite, what it did to the weights is not."""
    do_one_batch, count = S11Learner._do_one_batch, iter(range(100))

    def overflow(self):
        do_one_batch(self)
        if next(count) == 2:
            self.model.fc.bias.data[0] = float("inf")

    monkeypatch.setattr(S11Learner, "_do_one_batch", overflow)
    code, said = ended([*argv, "--checkpoint-minutes", "0"], capsys)
    assert code == 3
    assert "the weights became infinite or NaN by step 3" in said
    for file in (tmp_path / "r/checkpoint").iterdir():
        tensors, _ = read_sealed(file)
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_second_run_is_refused_and_named(argv, tmp_path, capsys):
    program = (
        "import sys; from pathlib import Path; from s11_fastai.run_path import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "r")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert holder.stdout.readline() == b"held\n"
    code, said = ended([*argv, "--resume"], capsys)
    assert code == 2
    assert f"in use by process {holder.pid}" in said
    holder.kill()
    holder.wait()
    run.main([str(a) for a in [*argv, "--resume"]])  # a dead process's lock does not block
    holder.stdin.close()
    holder.stdout.close()
    assert (tmp_path / "r/results.json").exists()


def test_a_folder_in_which_nothing_began_is_taken_away(tmp_path):
    with pytest.raises(ValueError, match="x"), locked(tmp_path / "a"):
        raise ValueError("x")
    assert not (tmp_path / "a").exists()


def test_a_range_test_without_bounds_begins_no_run(argv, tmp_path, monkeypatch, capsys):
    def none(*_):
        raise S11Error("the range test gives no bounds")

    monkeypatch.setattr("s11_fastai.lr_bounds.find_lr_bounds", none)
    code, said = ended([*argv[:4], *SMALL], capsys)
    assert (code, said) == (2, "run.py: the range test gives no bounds")
    assert not (tmp_path / "r").exists()


def test_a_run_whose_folder_goes_away_does_not_make_it_anew(argv, tmp_path, monkeypatch, capsys):
    add_epoch = RunFolder.add_epoch

    def gone(self, *args):
        shutil.rmtree(self.path)
        add_epoch(self, *args)

    monkeypatch.setattr(RunFolder, "add_epoch", gone)
    code, said = ended(argv, capsys)
    assert code == 2
    assert "was moved or removed" in said
    assert not (tmp_path / "r").exists()


def test_a_folder_that_became_another_runs_is_not_written_to(argv, monkeypatch, capsys):
    add_epoch = RunFolder.add_epoch

    def replaced(self, *args):
        config = (self.path / "config.json").read_text()
        shutil.rmtree(self.path)
        with locked(self.path):
            (self.path / "config.json").write_text(config)
        add_epoch(self, *args)

    monkeypatch.setattr(RunFolder, "add_epoch", replaced)
    code, said = ended(argv, capsys)
    assert code == 2
    assert "was moved or removed" in said
    assert {p.name for p in argv[3].iterdir()} <= {"config.json", ".lock"}


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of its own; it is taken away at the end."""
    mounted = []

    def mount(size: str):
        place = tmp_path / "disk"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no mount command here")
        if done.returncode:
            pytest.skip(f"may not mount here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_stops_the_run_and_it_goes_on_with_more_space(
    small_disk, pets, tmp_path, capsys
):
    whole = ["--data", str(pets), *SMALL, *BOUNDS, "--width", "4"]
    run.main([*whole, "--out", str(tmp_path / "whole")])
    disk = small_disk("1m")
    argv = [*whole, "--out", str(disk / "r"), "--resume", "--checkpoint-minutes", "0"]
    code, said = ended(argv, capsys)
    assert code == 2
    assert "No space left on device; free some space" in said
    assert said.endswith("--resume --checkpoint-minutes 0")
    assert not list(disk.rglob("*.part"))
    assert list((disk / "r/checkpoint").iterdir())
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    run.main(argv)
    assert "going on after" in capsys.readouterr().out
    assert compare(tmp_path / "whole", disk / "r") == []


def test_a_folder_that_becomes_read_only(small_disk, pets, monkeypatch, capsys):
    disk, add_epoch = small_disk("64m"), RunFolder.add_epoch
    folder = str(disk / "r/checkpoint")

    def read_only_in_epoch_2(self, row, *args):
        add_epoch(self, row, *args)
        if row.epoch == 2:
            subprocess.run(["mount", "--bind", folder, folder], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)

    argv = ["--data", pets, "--out", disk / "r", *SMALL, *BOUNDS]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add_epoch", read_only_in_epoch_2)
        code, said = ended(argv, capsys)
    assert code == 2
    assert "Read-only file system; mend the permissions" in said
    assert said.endswith("--resume")
    code, said = ended([*argv, "--resume"], capsys)
    assert code == 2
    assert "Read-only" in said
    subprocess.run(["umount", folder], check=True)
    run.main([str(a) for a in [*argv, "--resume"]])
    assert read(disk / "r/results.json")["epochs"] == 3


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    argv, tmp_path, monkeypatch, capsys
):
    fsync, count = os.fsync, iter(range(100))

    def full(handle):
        if next(count) >= 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, said = ended([*argv, "--checkpoint-minutes", "0"], capsys)
    assert code == 2
    assert "epoch-000000-batch-000002.safetensors: No space left" in said
    kept = sorted((tmp_path / "r/checkpoint").iterdir())
    assert len(kept) == 2
    for file in kept:
        read_sealed(file)
    assert not list(tmp_path.rglob("*.part"))


def test_a_signal_raises_at_once_but_waits_where_patience_is_asked_for():
    with pytest.raises(Stopped) as stop, StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.value.exit_code == 130
    seen = []

    def work():
        with StopSignals() as signals, signals.patient():
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append(signals.asked)
            # The next one is the system's, which ends the process.
            seen.append(signal.getsignal(signal.SIGINT))

    with pytest.raises(Stopped):
        work()
    assert seen == [signal.SIGTERM, signal.SIG_DFL]
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_no_decoding_process_outlives_the_one_that_asked():
    alive, held = os.pipe()
    context = multiprocessing.get_context("fork")

    def parent():
        with folder._mapper() as run_all:
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
    monkeypatch.setattr(folder, "_decode_chunk", _killed)
    assert "for want of memory" in refused_data(image_folder)


def _killed(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_forever(held: int) -> None:
    os.write(held, b".")
    os.read(os.pipe()[0], 1)
