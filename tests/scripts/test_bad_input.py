import errno
import os
import shutil
from pathlib import Path

import pytest
import run
import torch
from helpers import BOUNDS, SMALL

from s11_fastai import load_images
from s11_fastai.cli import message_of
from s11_fastai.learner import S11Learner


def refused(argv, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        run.main([str(a) for a in argv])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith("run.py: ")
    return said


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--data", "nowhere"], "does not exist"),
        (["--epochs", "5", "--peak-epoch", "5"], "above --peak-epoch"),
        (["--epochs", "0"], "--epochs must be a whole number from 1"),
        (["--peak-epoch", "0"], "--peak-epoch must be a whole number from 1"),
        (["--lr-min", "0.1", "--lr-max", "0.1"], "must be below"),
        (["--lr-min", "0"], "--lr-min must be a number from 1e-20"),
        (["--data", "https://x/a.tgz"], "'https://x/a.tgz' is an address: fetch it first"),
        (["--lr-max", "nan"], "not nan"),
        (["--bs", "0"], "--bs must be a whole number from 1"),
        (["--width", "0"], "--width must be a whole number from 1"),
        (["--seed", "-1"], "--seed must be a whole number from 0"),
        (["--resize", "28"], "--resize must be a multiple of 8 from 32 to 1,024, not 28"),
        (["--resize", "36"], "--resize must be a multiple of 8 from 32 to 1,024, not 36"),
        (["--momentum", "1"], "--momentum"),
        (["--wd", "-1"], "--wd"),
        (["--wd", "1e300"], "--wd must be a number from 0 to 1e+06"),
        (["--lr-max", "1e300"], "--lr-max must be a number from"),
        (["--logit-scale", "1e300"], "--logit-scale must be a number from"),
        (["--bs", str(10**20)], "--bs must be a whole number from"),
        (["--seed", str(2**63)], "--seed must be a whole number from"),
        (["--peak-epoch", str(10**20)], "--peak-epoch must be"),
        (["--holdout", str(10**20)], "--holdout must be"),
        (["--width", "9" * 5000], "invalid int value"),
        (["--width", "9" * 20], "--width must be a whole number from 1 to 1,000,000"),
        (["--epochs", "9" * 20], "--epochs must be a whole number from 1 to 100,000"),
        (["--demo", "--holdout", "1442"], "hold out"),
        (["--demo", "--holdout", "3"], "hold out"),
        (["--demo", "--device", "toaster"], "--device toaster"),
        (["--demo", "--device", "cuda:99"], "--device cuda:99"),
        (["--demo", "--epochs", "100000"], "--epochs and --bs make 2,300,000 steps, and records"),
        (["--epochs", "many"], "--help"),
        (["--nonsense"], "--help"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, argv, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused(argv, capsys)
    assert not list(tmp_path.iterdir())


def test_an_out_that_holds_a_run_is_kept(finished, pets, capsys):
    out, _ = finished
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert "holds a run" in refused(["--data", pets, "--out", out, *SMALL], capsys)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "out of memory, of "),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
                "memory: you tried to allocate 137438953472 bytes. Error code 12"
            ),
            "out of memory where 128.0 GiB more were needed, of ",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: "
                "you tried to allocate 137438953472 bytes."
            ),
            "out of memory where 128.0 GiB more were needed, of ",
        ),
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of "
                "7.79 GiB of which 1.00 GiB is free.\nProcess 1 has more."
            ),
            "out of memory where 2.50 GiB more were needed, of 7.79 GiB in all: "
            "give a smaller --bs, --width or --resize, or close other programs",
        ),
    ],
    ids=["python", "cpu", "windows", "cuda"],
)
def test_a_lack_of_memory_is_one_line(argv, capsys, monkeypatch, error, says):
    def fails(*_):
        raise error

    monkeypatch.setattr("s11_fastai.learner.S11Learner.one_batch", fails)
    assert says in refused(argv, capsys)


def test_a_run_that_lacked_memory_can_go_on(argv, tmp_path, capsys, monkeypatch):
    one_batch, batches = S11Learner.one_batch, iter(range(100))

    def fails(self, i, b):
        if next(batches) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        one_batch(self, i, b)

    monkeypatch.setattr(S11Learner, "one_batch", fails)
    said = refused(argv, capsys)
    assert "or close other programs, then go on with: python " in said
    assert f"--out {tmp_path / 'r'} --resume" in said
    assert run.main(["--out", str(tmp_path / "r"), "--resume"]) is not None


def test_a_lack_of_memory_as_the_system_says_it_is_one_too():
    said = message_of(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "predict.py", [])
    assert said.startswith("out of memory")
    assert said.endswith(": close other programs")


def test_a_script_without_sizes_names_none_where_memory_lacks():
    said = message_of(MemoryError(), "predict.py", [])
    assert said.startswith("out of memory")
    assert said.endswith(": close other programs")


@pytest.mark.skipif(
    Path("/proc/sys/vm/overcommit_memory").exists()
    and Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1",
    reason="this computer promises memory that it lacks",
)
def test_a_lack_of_memory_that_is_real_is_one_line(pets, tmp_path, capsys):
    out = ["--out", tmp_path / "r", "--data", pets, *BOUNDS, "--epochs", "1"]
    said = refused([*out, "--width", 200_000], capsys)
    assert "GiB more were needed" in said


def test_a_fault_of_the_program_is_a_traceback(argv, monkeypatch):
    def fails(*_):
        raise RuntimeError("a fault")

    monkeypatch.setattr("s11_fastai.learner.S11Learner.one_batch", fails)
    with pytest.raises(RuntimeError, match="a fault"):
        run.main([str(a) for a in argv])


def test_an_out_that_is_a_file_or_not_empty_is_kept(tmp_path, pets, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("mine")
    assert "not empty" in refused(["--data", pets, "--out", tmp_path / "notes", *SMALL], capsys)
    assert "is a file" in refused(["--data", pets, "--out", tmp_path / "notes/a.txt"], capsys)
    assert "cannot be made" in refused(
        ["--data", pets, "--out", tmp_path / "notes/a.txt/r"], capsys
    )


def test_a_full_disk_is_one_line_and_leaves_no_half_file(pets, tmp_path, capsys, monkeypatch):
    load_images(pets)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    said = refused(["--data", pets, "--out", tmp_path / "r", *SMALL, *BOUNDS], capsys)
    assert "No space left" in said
    assert not list(tmp_path.iterdir())


def spoil(pets: Path, tmp_path: Path, how: str) -> Path:
    """A copy of the folder, or an archive of it, with one thing wrong."""
    bad = shutil.copytree(pets, tmp_path / "bad")
    if how == "no test":
        shutil.rmtree(bad / "test")
    elif how == "empty class":
        (bad / "train/eel").mkdir()
        (bad / "test/eel").mkdir()
    elif how == "other classes":
        (bad / "test/dog").rename(bad / "test/fox")
    elif how == "no image":
        (bad / "test/dog/0000.png").write_bytes(b"nothing")
    elif how == "cut short":
        packed = Path(shutil.make_archive(str(tmp_path / "cut"), "gztar", bad))
        packed.write_bytes(packed.read_bytes()[:-100])
        return packed
    return bad


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no test", "no test/"),
        ("empty class", "train/eel"),
        ("other classes", "dog, fox"),
        ("no image", "test/dog/0000.png"),
        ("cut short", "cut short"),
    ],
)
def test_bad_data_is_one_line_and_begins_no_run(pets, tmp_path, capsys, how, says):
    bad = spoil(pets, tmp_path, how)
    assert says in refused(["--data", bad, "--out", tmp_path / "r", *SMALL], capsys)
    assert not (tmp_path / "r").exists()


def test_no_network_and_no_copy_is_one_line(tmp_path, capsys, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.setattr("s11_fastai.sources.fastai_folder", lambda name: tmp_path / "home" / name)
    assert "--data digits" in refused(["--out", tmp_path / "r", *SMALL], capsys)
    assert not (tmp_path / "r").exists()
