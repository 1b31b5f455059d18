import os
import re
import shutil
import struct
import subprocess
import sys
import threading

import compare
import draw_clr
import interpret
import pytest
import run
from helpers import BOUNDS, ROOT, SMALL, help_without_heavy_imports

from s11_fastai import load_run
from s11_fastai.cli import run_flags
from s11_fastai.errors import S11Error

fcntl = pytest.importorskip("fcntl")
pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")


def test_a_pipe_gets_aligned_lines_one_an_epoch(pets, tmp_path, capsys):
    run.main(["--data", str(pets), "--out", str(tmp_path / "r"), *SMALL, *BOUNDS])
    lines = capsys.readouterr().out.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("epoch"))
    assert any("to go at" in line for line in lines)
    after = [line for line in lines[header:] if "to go at" not in line]
    table, tail = after[:4], after[4:]
    ends = [m.end() for m in re.finditer(r"\S+( (loss|acc))?", table[0])]
    for line in table[1:]:
        assert [m.end() for m in re.finditer(r"\S+", line)][: len(ends)] == ends
    assert table[1].endswith("best so far")
    assert tail[0].startswith("final accuracy")
    assert "chosen on the test images" in tail[1]
    assert tail[2].endswith(f"the page is {tmp_path / 'r/report.html'}")


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


def at_a_prompt(*argv, typed=""):
    """What `python -i experiments/run.py` printed, and said on stderr, where this was typed."""
    done = subprocess.run(
        [sys.executable, "-i", "experiments/run.py", *map(str, argv)],
        cwd=ROOT,
        env=environment(),
        input=typed,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout, done.stderr


def test_a_finished_run_is_opened_at_a_prompt(finished):
    printed, said = at_a_prompt(
        *("--out", finished[0], "--resume"), typed="print(learn.predict(0)[2].tolist())\n"
    )
    assert "is finished: final accuracy" in printed.splitlines()[0]
    assert printed.splitlines()[-1] == str(
        load_run(finished[0], device="cpu").predict(0)[2].tolist()
    )
    assert "Traceback" not in said


def test_an_error_at_a_prompt_is_one_line_too(tmp_path):
    _, said = at_a_prompt("--out", tmp_path, "--bs", "0")
    assert said.splitlines()[0].startswith("run.py: --bs must be a whole number")
    assert "Traceback" not in said
    _, said = at_a_prompt("--bs", "0", typed="1 / 0\n")
    assert "ZeroDivisionError" in said


def test_no_script_sends_a_folders_name_to_the_terminal_as_it_is(
    finished, fewer_pictures, tmp_path, capsys
):
    """Names of folders can hold what colours a terminal, or moves what was printed."""
    evil = tmp_path / "evil\x1b[31m\x07\nname"
    shutil.copytree(finished[0], evil / "r")
    shutil.copytree(finished[0], evil / "r\x1b[2J")
    interpret.main([str(evil / "r")])
    compare.main([str(evil / "r\x1b[2J"), "--out", str(evil / "c.png")])
    draw_clr.main(["--out", str(evil / "clr.png")])
    run.main(["--out", str(evil / "r"), "--resume"])
    for script in (interpret, compare):
        with pytest.raises(SystemExit):
            script.main([str(evil / "nothing\x1b[0m")])
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        for text in said:
            assert all(c.isprintable() or c == "\n" for c in text)


def test_help_needs_nothing_heavy():
    assert "--holdout" in help_without_heavy_imports("run", "main")


def test_demo_is_three_flags_and_a_flag_beside_it_wins():
    args, _ = run_flags(["--demo", "--bs", "8"])
    assert (args.data, args.width, args.bs) == ("digits", 16, 8)
    args, _ = run_flags([])
    assert (args.data, args.width, args.bs, args.epochs, args.peak_epoch) == (None, 64, 512, 24, 5)


def test_a_recipe_is_short_for_its_settings_and_a_flag_beside_it_wins():
    settings, _ = run_flags(["--recipe", "reference", "--lr-max", "0.1", "--demo"])
    assert (settings.momentum, settings.wd, settings.lr_min) == (0.95, 0, 0.00088)
    assert (settings.lr_max, settings.width) == (0.1, 16)
    with pytest.raises(S11Error, match="invalid choice: 'another'"):
        run_flags(["--recipe", "another"])


@pytest.mark.parametrize(
    ("epochs", "peak", "pct_start"),
    [(24, 5, 5 / 24), (1, None, 5 / 24), (2, 1, 1 / 2), (3, 1, 1 / 3), (10, 2, 1 / 5)],
)
def test_the_peak_comes_in_proportion_unless_it_is_given(epochs, peak, pct_start):
    settings, _ = run_flags(["--epochs", str(epochs)])
    assert (settings.peak_epoch, settings.pct_start) == (peak, pct_start)
    settings, _ = run_flags(["--epochs", "24", "--peak-epoch", "7"])
    assert settings.pct_start == 7 / 24


def test_paths_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings, options = run_flags(["--data", "images", "--out=~/run"])
    assert settings.data == str(tmp_path / "images")
    assert options.out == tmp_path / "home/run"
    settings, _ = run_flags(["--data", "~/images"])
    assert settings.data == str(tmp_path / "home/images")
    assert run_flags(["--data", "digits"])[0].data == "digits"
