"""Runs of two and three processes leave what one leaves, stop together, and go on in any number."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import run
import torch
from helpers import BOUNDS, ROOT, SMALL, no_pictures_of_predictions, read, rows
from processes import in_processes

from s11_fastai import S11ResNet, get_dls, load_run, s11_learner
from s11_fastai.callbacks.distributed import Launched, Processes, check_shards
from s11_fastai.errors import S11Error
from s11_fastai.learner import S11Learner
from s11_fastai.runs.run import start_run
from s11_fastai.runs.settings import Settings
from s11_fastai.signals import StopSignals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests fork their processes")


def run_them(argv, count, struck=(None, None)) -> list:
    """The exit codes of run.py in `count` processes, 0 where it came to its end.

    `struck` is the process that gets a SIGTERM, and in which batch it does.
    """

    def work():
        batches = iter(range(1000))
        one_batch = S11Learner.one_batch

        def perhaps_struck(self, i, b):
            if (int(os.environ["RANK"]), next(batches)) == struck:
                os.kill(os.getpid(), signal.SIGTERM)
            one_batch(self, i, b)

        S11Learner.one_batch = perhaps_struck
        with no_pictures_of_predictions():
            run.main([str(word) for word in argv])
        return 0

    return in_processes(count, work)


@pytest.fixture(scope="module")
def by_one(pets, tmp_path_factory):
    """A run of one process whose batches of 11 images, the last of 6, two and three can share."""
    out = tmp_path_factory.mktemp("runs") / "one"
    argv = ["--data", str(pets), *SMALL, *BOUNDS, "--bs", "11"]
    with no_pictures_of_predictions():
        run.main([*argv, "--out", str(out)])
    return out, argv


def assert_like(whole, out, count):
    """The records are those of as many steps at the same rates, over every image once."""
    of_predictions = {"predictions.csv", "classes.json"}  # which no_pictures_of_predictions spares
    assert {p.name for p in out.iterdir()} - of_predictions == {p.name for p in whole.iterdir()}
    assert read(out / "env.json")["processes"] == count
    ours, theirs = rows(out / "steps.csv"), rows(whole / "steps.csv")
    assert [(row["step"], row["lr"]) for row in ours] == [(r["step"], r["lr"]) for r in theirs]
    for i, row in enumerate(rows(out / "history.csv")):
        own = ours[5 * i : 5 * i + 5]
        mean = sum(s["loss"] * n for s, n in zip(own, [11] * 4 + [6], strict=True)) / 50
        assert row["train_loss"] == pytest.approx(mean, rel=1e-12)
        for accuracy, n in ((row["train_accuracy"], 50), (row["valid_accuracy"], 20)):
            assert accuracy * n == pytest.approx(round(accuracy * n), abs=1e-9)


@pytest.mark.parametrize("count", [2, 3])
def test_a_run_of_several_processes_leaves_what_one_leaves(by_one, tmp_path, capfd, count):
    whole, argv = by_one
    capfd.readouterr()
    assert run_them([*argv, "--out", tmp_path / "r"], count) == [0] * count
    assert_like(whole, tmp_path / "r", count)
    assert capfd.readouterr().out.count("final accuracy") == 1


def test_the_weights_that_are_kept_give_the_accuracy_that_is_reported(by_one, tmp_path):
    """Batch normalisation's statistics are the first process's in both."""
    _, argv = by_one
    run_them([*argv, "--out", tmp_path / "r"], 2)
    found = load_run(tmp_path / "r", device="cpu").validate()[1]
    assert found == read(tmp_path / "r/results.json")["final_accuracy"]


def test_a_signal_to_one_stops_all_and_any_number_goes_on(by_one, tmp_path, capfd):
    whole, argv = by_one
    out = tmp_path / "r"
    for rank, batch, count in ((1, 3, 2), (0, 4, 3)):
        assert (
            run_them([*argv, "--out", out, "--resume"], count, struck=(rank, batch))
            == [143] * count
        )
        said = capfd.readouterr()
        (last,) = [line for line in said.err.splitlines() if line.startswith("run.py")]
        assert last.endswith(f"--out {out} --resume")
    assert "processes was 2, is 3: the run goes on, but not identical" in said.out
    assert run_them(["--out", out, "--resume"], 2) == [0, 0]
    assert_like(whole, out, 2)
    assert [entry["step"] for entry in read(out / "env.json")["resumed"]] == [4, 7]


def test_a_signal_to_one_that_waits_for_the_first_stops_all_too(by_one, tmp_path, monkeypatch):
    _, argv = by_one
    from_main, waits = Launched.from_main, iter(range(10))

    def struck(self, make):
        if not self.is_main and next(waits) == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return from_main(self, make)

    monkeypatch.setattr(Launched, "from_main", struck)
    assert run_them([*argv, "--out", tmp_path / "r"], 2) == [143, 143]
    assert not (tmp_path / "r/history.csv").exists()


def test_data_that_cannot_be_read_ends_all_with_one_line(tmp_path, capfd):
    argv = ["--data", tmp_path / "none", "--out", tmp_path / "r", *SMALL, *BOUNDS]
    assert run_them(argv, 3) == [2, 0, 0]
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "run.py" in line]
    assert "does not exist" in said


def test_what_ends_the_first_process_ends_all(by_one, capfd):
    """Found out before the others can know of it: the folder is not free; the run is finished."""
    whole, argv = by_one
    assert run_them([*argv, "--out", whole], 3) == [2, 0, 0]
    assert capfd.readouterr().err.splitlines()[-1].startswith(f"run.py: {whole} holds a run")
    assert run_them([*argv, "--out", whole, "--resume"], 2) == [0, 0]


def test_a_loss_that_is_not_finite_ends_all_in_the_same_step(by_one, tmp_path, capfd):
    _, argv = by_one
    argv = [*argv[:-6], "--bs", "11", "--lr-min", "1e4", "--lr-max", "1e5", "--wd", "100"]
    argv += ["--out", tmp_path / "r"]
    assert run_them(argv, 2) == [3, 3]
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "run.py" in line]
    assert "the loss became nan in step " in said


@pytest.mark.parametrize(
    ("seed", "fingerprint", "precision", "says"),
    [
        (1, "a" * 64, "fp32", "`seed` 0 differs from the run's 1: give all"),
        (0, "b" * 64, "fp32", "images aaaaaaaaaaaa differs from the run's bbbbbbbbbbbb: give all"),
        (0, "a" * 64, "bf16", "precision fp32 differs from the run's bf16: give all"),
    ],
)
def test_a_process_of_another_run_is_refused(images, seed, fingerprint, precision, says):
    """As on another machine, whose flags, images and processor may be others."""

    class Second(Processes):
        world_size, rank = 2, 1

        def from_main(self, make):
            return Settings(seed=seed, device="cuda"), fingerprint, precision

    learn = s11_learner(get_dls(images, device="cpu"), S11ResNet(3, 1), precision="fp32")
    ours = replace(images, fingerprint="a" * 64)
    rest = ours, Second(torch.device("cpu")), StopSignals(), 2.0
    with pytest.raises(S11Error, match=re.escape(says)):
        start_run(None, Settings(), learn, *rest)


def test_more_processes_than_images_in_a_batch_are_refused(pets, tmp_path, capfd):
    argv = [
        "--data",
        pets,
        *SMALL,
        *BOUNDS,
        "--out",
        tmp_path / "r",
    ]  # batches of 16, the last of 2
    assert run_them(argv, 3) == [2, 0, 0]
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "run.py" in line]
    assert "3 processes cannot share a batch of 2, the smallest that --bs 16 makes of 50" in said
    assert not (tmp_path / "r").exists()
    check_shards(50, 16, 2)
    check_shards(48, 16, 16)
    with pytest.raises(S11Error):
        check_shards(48, 16, 17)


LAUNCHERS = {
    "torchrun": (
        "-m torch.distributed.run --nproc_per_node 2 "
        "--rdzv_backend c10d --rdzv_endpoint localhost:0"
    ),
    "accelerate": (
        "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 "
        "--main_process_port 0 --mixed_precision no --dynamo_backend no"
    ),
}


@pytest.mark.parametrize(
    "launcher", ["torchrun", pytest.param("accelerate", marks=pytest.mark.slow)]
)
def test_the_launchers_start_it(by_one, tmp_path, launcher):
    whole, argv = by_one
    words = [sys.executable, *LAUNCHERS[launcher].split(), "experiments/run.py"]
    done = subprocess.run(
        [*words, *argv, "--out", str(tmp_path / "r")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert_like(whole, tmp_path / "r", 2)
