"""A study runs what its table says, each run once, and goes on where it was stopped."""

import shutil
import subprocess
import sys

import pytest
import study
from helpers import ROOT, help_without_heavy_imports

from s11_fastai.cli import run_flags
from s11_fastai.errors import S11Error

TABLE = """
# What two peaks are worth.
[DEFAULT]
seeds = 0 1
epochs = 3
peak-epoch = 1

[low, 0.1]
lr-max = 0.1

[high]
lr-max = 0.4
seeds = 0
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "peaks.ini"
    path.write_text(TABLE)
    return path


def test_all_variants_get_their_first_seed_first(table):
    jobs = study.read_table(table)
    assert [(job.variant, job.seed) for job in jobs] == [
        ("low, 0.1", 0),
        ("high", 0),
        ("low, 0.1", 1),
    ]
    assert jobs[0].flags == ("--epochs", "3", "--lr-max", "0.1", "--peak-epoch", "1")
    assert jobs[0].folder == "low-0.1-seed0"


def test_what_is_no_table_is_one_line(tmp_path):
    for text in ("", "[DEFAULT]\nepochs = 3\n", "epochs = 3\n", "[a]\nseeds = many\n"):
        (tmp_path / "t.ini").write_text(text)
        with pytest.raises(S11Error, match=r"t\.ini") as error:
            study.read_table(tmp_path / "t.ini")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "experiments/studies").glob("*.ini")))
def test_every_committed_table_is_understood(path):
    for job in study.read_table(path):
        settings, _ = run_flags([*job.flags, "--seed", str(job.seed)])
        assert settings.holdout == 5000, "choices are made on held-out images"


@pytest.fixture
def made_up_runs(finished, monkeypatch):
    """Each run is a copy of a finished one; the list of those that were started."""
    started = []

    def start(job, args):
        started.append(job.folder)
        out = args.runs / job.folder
        code = "import shutil, sys; shutil.copytree(*sys.argv[1:])"
        return subprocess.Popen([sys.executable, "-c", code, str(finished[0]), str(out)])

    monkeypatch.setattr(study, "start", start)
    return started


def test_each_run_becomes_a_row_and_is_made_once(table, tmp_path, made_up_runs, capsys):
    argv = [str(table), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    study.main([*argv, "--parallel", "2"])
    assert sorted(made_up_runs) == ["high-seed0", "low-0.1-seed0", "low-0.1-seed1"]
    rows = study.read_rows(tmp_path / "results/peaks.csv")
    assert {(row["variant"], row["seed"]) for row in rows} == {
        ("low, 0.1", "0"),
        ("low, 0.1", "1"),
        ("high", "0"),
    }
    assert all(float(row["final_accuracy"]) >= 0 for row in rows)
    made_up_runs.clear()
    shutil.rmtree(tmp_path / "runs")  # the rows are enough
    study.main(argv)
    assert made_up_runs == []
    assert "3 of 3 runs are there" in capsys.readouterr().out


def test_a_run_that_fails_is_named_and_the_others_go_on(table, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    argv = [str(table), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(
        study,
        "start",
        lambda job, args: subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]),
    )
    with pytest.raises(SystemExit) as stop:
        study.main(argv)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "3 runs failed: look at" in said.err
    assert said.out.count("ended with exit code 3") == 3


def test_help_needs_nothing_heavy():
    assert "INI" in help_without_heavy_imports("study")
