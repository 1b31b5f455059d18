"""Each change that a run makes on disk, struck in turn: nothing is lost, whichever it is."""

import errno
import os
from contextlib import suppress

import pytest
import run
import torch
from helpers import BOUNDS, SMALL, compare
from matplotlib.figure import Figure
from writes import Write, fails, watched

from s11_fastai import environment
from s11_fastai.report import pictures
from s11_fastai.runs.settings import holds_run

# Of each file its writing stands for all: when that is struck, half of the file is there. The drill
# strikes the rest, too: opening, syncing and renaming it.
KINDS = {"mkdir", "write", "remove", "rmdir"}


class Killed(BaseException):
    """The process's end: no change after it comes to pass."""


@pytest.fixture
def argv(pets, monkeypatch):
    """A run of two steps and three pictures."""
    few = [p for p in pictures.PICTURES if p.name in ("samples", "loss", "misclassified")]
    tiny = [p.__class__(p.name, p.source, lambda _: Figure((1, 1)), p.caption) for p in few]
    monkeypatch.setattr(pictures, "PICTURES", tuple(tiny))
    monkeypatch.setattr(environment, "git_revision_of_code", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a third of the time
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield ["--data", str(pets), *SMALL, *BOUNDS, "--epochs", "2", "--bs", "50"]
    torch.set_num_threads(threads)


@pytest.fixture
def undisturbed(argv, tmp_path):
    """The run's folder, and the numbers of the changes that it made."""
    run.main([*argv, "--out", str(tmp_path / "warm")])  # whatever is made but once is there
    with watched(tmp_path / "whole") as seen:
        run.main([*argv, "--out", str(tmp_path / "whole")])
    return tmp_path / "whole", [n for n, write in enumerate(seen) if write.kind in KINDS]


def test_a_run_that_is_killed_before_any_change_goes_on(undisturbed, argv, tmp_path):
    whole, numbers = undisturbed
    for n in numbers:

        def dead(number: int, _write: Write, n=n) -> None:
            if number >= n:
                raise Killed

        out = tmp_path / f"r{n}"
        with pytest.raises(Killed), watched(out, dead):
            run.main([*argv, "--out", str(out), "--resume"])
        run.main([*argv, "--out", str(out), "--resume"])
        assert compare(whole, out) == [], n
    assert len(numbers) > 25


def test_a_run_of_which_any_change_fails_ends_with_a_line_and_goes_on(
    undisturbed, argv, tmp_path, capsys
):
    whole, numbers = undisturbed
    said = {}
    for n in numbers:
        out = tmp_path / f"r{n}"
        with suppress(SystemExit), watched(out, fails(n, errno.ENOSPC)):
            run.main([*argv, "--out", str(out), "--resume"])
        said[n] = capsys.readouterr().err
        assert said[n].endswith("--resume\n") == (bool(said[n]) and holds_run(out)), n
        run.main([*argv, "--out", str(out), "--resume"])
        assert compare(whole, out) == [], n
    lines = [line for line in said.values() if line]
    assert all(line.count("\n") == 1 for line in lines)
    assert all(os.strerror(errno.ENOSPC) in line for line in lines)
    assert len(lines) > 20  # without the number of the process, and what only tidies up
