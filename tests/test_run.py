import csv
import errno
import fcntl
import json
import os
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import numpy as np
import pytest
import run
import torch
from conftest import write_folder
from PIL import Image
from safetensors.torch import load_file

from s11_fastai import linear_one_cycle, load_images
from s11_fastai.environment import pick_device
from s11_fastai.plots import plot_history, plot_lr_find, plot_samples
from s11_fastai.runs import EpochRow, RunFolder

ROOT = Path(__file__).parents[1]
SMALL = ["--width", "1", "--bs", "16", "--epochs", "3", "--peak-epoch", "1", "--device", "cpu"]
BOUNDS = ["--lr-min", "0.001", "--lr-max", "0.01"]


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    return write_folder(
        tmp_path_factory.mktemp("data") / "pets", np.random.default_rng(0), n_train=25, n_test=10
    )


@pytest.fixture(scope="module")
def finished(pets, tmp_path_factory):
    """One run with the range test: its folder and its Learner."""
    out = tmp_path_factory.mktemp("runs") / "a"
    learn = run.main(["--data", str(pets), "--out", str(out), *SMALL])
    return out, learn


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


# The record


def test_the_run_folder_holds_what_the_design_says(finished):
    out, _ = finished
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        "config.json",
        "env.json",
        "lr_bounds.json",
        "history.csv",
        "steps.csv",
        "results.json",
        "model.safetensors",
        "best.safetensors",
        "report.html",
        *(f"figures/{name}.png" for name in ("samples", "augmented", "lr_find", "schedule")),
        *(f"figures/{name}.png" for name in ("loss", "accuracy")),
    }


def test_history_and_steps_agree(finished):
    out, learn = finished
    history, steps = rows(out / "history.csv"), rows(out / "steps.csv")
    assert list(history[0]) == list(EpochRow._fields)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["step"] for row in steps] == list(range(12))
    sizes = [16, 16, 16, 2]
    for i, row in enumerate(history):
        own = steps[4 * i : 4 * i + 4]
        mean = sum(s["loss"] * n for s, n in zip(own, sizes, strict=True)) / 50
        assert row["train_loss"] == pytest.approx(mean, rel=1e-12)
        assert row["lr"] == own[-1]["lr"]
        assert row["seconds"] > 0
    bounds = read(out / "lr_bounds.json")
    low, high = bounds["lr_min"], bounds["lr_max"]
    expected = linear_one_cycle(np.arange(12) / 12, low, high, low, 1 / 3)
    np.testing.assert_allclose([s["lr"] for s in steps], expected, rtol=1e-12)
    assert {s["momentum"] for s in steps} == {0.9}
    assert learn.recorder.hps["lr"] == [s["lr"] for s in steps]


def test_results_and_weights(finished, pets):
    out, learn = finished
    history, results = rows(out / "history.csv"), read(out / "results.json")
    accuracies = [row["valid_accuracy"] for row in history]
    assert results == {
        "params": sum(p.numel() for p in learn.model.parameters()),
        "epochs": 3,
        "final_accuracy": accuracies[-1],
        "best_accuracy": max(accuracies),
        "best_epoch": accuracies.index(max(accuracies)) + 1,
        "lr_min": read(out / "lr_bounds.json")["lr_min"],
        "lr_max": read(out / "lr_bounds.json")["lr_max"],
        "seed": 0,
        "data": "pets",
        "evaluated_on": "test",
    }
    final = load_file(out / "model.safetensors")
    for name, value in learn.model.state_dict().items():
        assert torch.equal(final[name], value)
    assert learn.validate()[1] == results["final_accuracy"]


def test_the_environment_names_the_data_and_no_machine(finished, pets):
    env = read(finished[0] / "env.json")
    assert env["data_fingerprint"] == load_images(pets).fingerprint
    assert {"python", "fastai", "torch", "device", "threads", "processes"} <= set(env)
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", env["git_revision"])
    text = json.dumps(env)
    assert str(ROOT) not in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)


def test_the_same_seed_gives_the_same_files_to_the_byte(finished, pets, tmp_path):
    run.main(["--data", str(pets), "--out", str(tmp_path / "b"), *SMALL])
    for name in ("model.safetensors", "best.safetensors", "steps.csv", "lr_bounds.json"):
        assert (tmp_path / "b" / name).read_bytes() == (finished[0] / name).read_bytes(), name
    run.main(["--data", str(pets), "--out", str(tmp_path / "c"), *SMALL, "--seed", "1"])
    assert (tmp_path / "c/steps.csv").read_bytes() != (finished[0] / "steps.csv").read_bytes()


def test_the_best_epochs_weights_are_kept_and_of_equals_the_earliest(tmp_path):
    folder, model = RunFolder(tmp_path), torch.nn.Linear(1, 1, bias=False)
    for epoch, accuracy in enumerate([0.5, 0.7, 0.7, 0.6], start=1):
        model.weight.data.fill_(epoch)
        folder.add_epoch(EpochRow(epoch, 0, 0, 0, accuracy, 0, 0), [], model)
    assert folder.best.epoch == 2
    assert load_file(tmp_path / "best.safetensors")["weight"].item() == 2


def test_each_epoch_is_on_disk_when_it_is_over(pets, tmp_path, monkeypatch):
    add_epoch = RunFolder.add_epoch

    def stop_in_epoch_3(self, row, steps, model):
        if row.epoch == 3:
            raise KeyboardInterrupt
        add_epoch(self, row, steps, model)

    monkeypatch.setattr(RunFolder, "add_epoch", stop_in_epoch_3)
    with pytest.raises(KeyboardInterrupt):
        run.main(["--data", str(pets), "--out", str(tmp_path / "r"), *SMALL, *BOUNDS])
    assert [row["epoch"] for row in rows(tmp_path / "r/history.csv")] == [1, 2]
    assert len(rows(tmp_path / "r/steps.csv")) == 8


def test_pictures_say_what_they_show():
    curve = plot_lr_find([1e-3, 1e-2, 0.1, 1], [3, 2, 2.5, 9], 2e-3, 0.05).axes[0]
    assert [t.get_text() for t in curve.get_legend().get_texts()] == [
        "LRMIN = 0.002",
        "LRMAX = 0.05",
    ]
    assert [line.get_xdata()[0] for line in curve.get_lines()[1:]] == [2e-3, 0.05]
    for quantity, unit in (("loss", "loss, nats"), ("accuracy", "accuracy, %")):
        axes = plot_history([0.1, 0.2], [0.3, 0.4], "held-out", quantity).axes[0]
        assert axes.get_legend().get_texts()[1].get_text().startswith("held-out")
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", unit)
    samples = plot_samples(np.zeros((9, 32, 32, 3), np.uint8), np.arange(9) % 3, ["a", "b", "$c"])
    assert [axes.get_ylabel() for axes in samples.axes[::5]] == ["a", "b", r"\$c"]


def test_pictures_open_and_are_large_enough_for_half_size(finished):
    for path in (finished[0] / "figures").iterdir():
        assert min(Image.open(path).size) >= 250, path.name


def test_the_page_says_what_was_reached_and_escapes_names(tmp_path, rng, finished):
    page = (finished[0] / "report.html").read_text()
    assert f"{read(finished[0] / 'results.json')['final_accuracy']:.2%} of the test images" in page
    assert page.count("data:image/png") == 6
    assert "http" not in page
    evil = write_folder(tmp_path / "<b>pets", rng)
    run.main(["--data", str(evil), "--out", str(tmp_path / "r"), *SMALL, *BOUNDS])
    page = (tmp_path / "r/report.html").read_text()
    assert "&lt;b&gt;pets" in page
    assert "<b>" not in page
    assert not (tmp_path / "r/figures/lr_find.png").exists()


def test_holdout_evaluates_training_images_and_says_so_everywhere(pets, tmp_path, capsys):
    out = tmp_path / "held"
    argv = ["--data", str(pets), "--out", str(out), *SMALL, *BOUNDS, "--holdout", "10"]
    learn = run.main(argv)
    assert read(out / "results.json")["evaluated_on"] == "held-out"
    text = capsys.readouterr().out
    assert "40 training and 10 held-out images" in text
    assert "held-out loss" in text
    assert "of the held-out images" in text
    assert not re.search(r"test (images|loss|acc)", text)
    assert "held-out images" in (out / "report.html").read_text()
    shown = {image.tobytes() for image in load_images(pets).train.images}
    assert {i.tobytes() for i in learn.dls.train.images.valid.images} <= shown


# The terminal


def test_a_pipe_gets_aligned_lines_one_an_epoch(pets, tmp_path, capsys):
    run.main(["--data", str(pets), "--out", str(tmp_path / "r"), *SMALL, *BOUNDS])
    lines = capsys.readouterr().out.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("epoch"))
    assert any("in all at" in line and "--width 16" in line for line in lines)
    after = [line for line in lines[header:] if "in all at" not in line]
    table, tail = after[:4], after[4:]
    ends = [m.end() for m in re.finditer(r"\S+( (loss|acc))?", table[0])]
    for line in table[1:]:
        assert [m.end() for m in re.finditer(r"\S+", line)][: len(ends)] == ends
    assert table[1].endswith("best so far")
    assert tail[0].startswith("final accuracy")
    assert "chosen on the test images" in tail[1]
    assert str(tmp_path / "r") in tail[2]


def environment() -> dict:
    own = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "TQDM_DISABLE": ""}
    return os.environ | own


def read_terminal(terminal: int, shown: list[bytes]) -> None:
    try:
        while part := os.read(terminal, 4096):
            shown.append(part)
    except OSError:  # how Linux says that the other side is closed
        pass


def test_at_a_prompt_there_is_a_bar_and_then_learn(pets, tmp_path):
    """`python -i experiments/run.py` on a terminal."""
    out = tmp_path / "r"
    argv = ["-i", "experiments/run.py", "--data", str(pets), "--out", str(out), *SMALL, *BOUNDS]
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, *argv],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown: list[bytes] = []
    reader = threading.Thread(target=read_terminal, args=(terminal, shown))
    reader.start()
    typed = "learn.recorder.plot_sched()\nprint(len(learn.recorder.hps['lr']))\n"
    printed, _ = process.communicate(typed, timeout=300)
    reader.join()
    os.close(terminal)
    seen = b"".join(shown).decode()
    assert "training:" in seen
    assert "loss=" in seen
    assert "Traceback" not in seen
    assert printed.splitlines()[-1] == "12"


def test_help_needs_nothing_heavy():
    code = (
        "import sys, run\n"
        "try: run.parse(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'numpy', 'fastai', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "experiments", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--holdout" in done.stdout


def test_demo_is_three_flags_and_a_flag_beside_it_wins():
    args = run.parse(["--demo", "--bs", "8"])
    assert (args.data, args.width, args.bs) == ("digits", 16, 8)
    args = run.parse([])
    assert (args.data, args.width, args.bs, args.epochs, args.peak_epoch) == (None, 64, 512, 24, 5)


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for cuda, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert pick_device(None).type == expected
    assert pick_device("cpu").type == "cpu"


# Bad input


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
        (["--epochs", "5"], "above --peak-epoch"),
        (["--peak-epoch", "0"], "--peak-epoch must be 1"),
        (["--lr-min", "0.1", "--lr-max", "0.1"], "must be below"),
        (["--lr-min", "0"], "above 0"),
        (["--lr-max", "nan"], "above 0"),
        (["--bs", "0"], "--bs must be 1"),
        (["--width", "0"], "--width must be 1"),
        (["--seed", "-1"], "--seed must be 0"),
        (["--momentum", "1"], "--momentum"),
        (["--wd", "-1"], "--wd"),
        (["--demo", "--holdout", "1442"], "hold out"),
        (["--demo", "--holdout", "3"], "hold out"),
        (["--demo", "--device", "toaster"], "--device toaster"),
        (["--demo", "--device", "cuda:99"], "--device cuda:99"),
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
    elif how == "other size":
        Image.new("RGB", (28, 28)).save(bad / "test/dog/0000.png")
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
        ("other size", "28x28"),
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
    assert "--data digits" in refused(["--out", tmp_path / "r", *SMALL], capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_demo_ends_above_97_percent(tmp_path):
    run.main(["--demo", "--out", str(tmp_path / "demo")])
    assert read(tmp_path / "demo/results.json")["final_accuracy"] > 0.97
