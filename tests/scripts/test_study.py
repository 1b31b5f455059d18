"""A study runs what its table says, each run once, and goes on where it was stopped."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import study
import study_page
from helpers import ROOT, half_pictures, help_without_heavy_imports
from matplotlib.figure import Figure
from study_rows import read_rows
from study_table import Job, read_table

from s11_fastai.cli import command_of, flag, run_flags
from s11_fastai.errors import S11Error
from s11_fastai.runs.records import read_records
from s11_fastai.runs.settings import RECIPES, read_config
from s11_fastai.signals import StopSignals

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


COLUMNS = (
    "variant,seed,flags,data,evaluated_on,precision,epochs,lr_max,train_accuracy,final_accuracy\n"
)
ROWS = """\
a,0,--lr-max 0.1 --width 4,digits,held-out,fp32,3,0.1,0.75,0.5
a,1,--lr-max 0.1 --width 4,digits,held-out,fp32,3,0.1,0.85,0.7
b,0,--lr-max 0.2 --width 4,digits,held-out,fp32,3,0.2,0.7,0.6
b,1,--lr-max 0.2 --width 4,digits,held-out,fp32,3,0.2,0.9,0.8
b,2,--lr-max 0.2 --width 4,digits,held-out,fp32,3,0.2,,
c,1,--lr-max 0.4 --width 4,digits,held-out,fp32,3,0.4,0.6,0.4
found,0,--width 4,digits,held-out,fp32,3,0.15,0.95,0.9
"""


TABLE_OF_ROWS = """\
# What two peaks
# are worth.
[DEFAULT]
width = 4
# else
[a]
lr-max = 0.1
[b]
lr-max = 0.2
"""


@pytest.fixture
def page(tmp_path):
    """A page of these rows, with a table's words."""

    def make(rows: str, columns: str = COLUMNS, table: str = TABLE_OF_ROWS) -> str:
        (tmp_path / "t.csv").write_text(columns + rows)
        (tmp_path / "t.ini").write_text(table)
        return study_page.write_page(tmp_path, tmp_path).read_text()

    return make


def test_the_page_compares_over_the_seeds_that_both_have(page):
    text = page(ROWS)
    assert "\nWhat two peaks are worth.\n" in text
    assert "digits, held-out images, 3 epochs, fp32; `--width 4`." in text
    assert "| a | `--lr-max 0.1` | 2 | 80.00 | 60.00 ± 14.14 |  |" in text
    assert "| b | `--lr-max 0.2` | 3, 1 diverged | 80.00 | 70.00 ± 14.14 | +10.00 ± 0.00 |" in text
    assert "| c | `--lr-max 0.4` | 1 | 60.00 | 40.00 | -30.00 |" in text
    assert text.endswith("\nNot settled: b; c; found.\n")
    without = "".join(row for row in ROWS.splitlines(keepends=True) if not row.startswith("b,"))
    assert page(without).endswith("\nNot settled: c; found.\n\nNot run: b.\n")


def test_a_difference_is_settled_by_three_common_seeds_and_more_than_its_deviation(page):
    own = "--lr-max 0.2 --width 4,digits,held-out,fp32,3,0.2,,"
    third = ROWS + "a,2,--lr-max 0.1 --width 4,digits,held-out,fp32,3,0.1,,0.6\n"
    assert "\nNot settled: b; c; found.\n" in page(third)  # one of b diverged
    # Differences of 10, 10 and x points: the interval leaves out zero from x = 4.34 on.
    for x, settled in ((5, True), (4, False), (-50, False)):
        text = page(third.replace(f"{own}\n", f"{own}{0.6 + x / 100:.2f}\n"))
        assert ("\nNot settled: c; found.\n" in text) is settled
        assert ("\nNot settled: b; c; found.\n" in text) is not settled
    page = partial(page, table="")  # of other variants
    by_images = "".join(
        f"{v},{seed},--holdout 300 --x {v},d,held-out,fp32,3,,,{accuracy}\n"
        for v, accuracy in (("a", 0.99), ("b", 0.99 + 1 / 300), ("c", 0.99 + 2 / 300))
        for seed in range(3)
    )
    assert page(by_images).endswith("\nNot settled: b.\n")  # by one image
    counted = by_images.replace("--holdout 300 ", "").replace("d,held-out,", "d,test,")
    assert page(counted).endswith("± 0.00 |\n")  # taken for ten thousand
    with_images = counted.replace("test,", "test,300,")
    columns = COLUMNS.replace("evaluated_on,", "evaluated_on,images,")
    assert page(with_images, columns).endswith("\nNot settled: b.\n")
    assert "± 0.00" in page(by_images.replace("--holdout 300", "--holdout 0"))
    alike = "".join(f"{v},{seed},--x {v},d,test,fp32,3,,,0.5\n" for v in "ab" for seed in range(3))
    assert page(alike).endswith("\nNot settled: b.\n")


def test_the_page_tells_the_spread_of_the_peaks_that_range_tests_have_found(page):
    text = page(ROWS + "found,1,--width 4,digits,held-out,fp32,3,0.25,,0.9\n")
    assert "\nLRMAX by the range test: found 0.200 ± 0.071, a spread of 35% over 2 seeds.\n" in text
    others = (
        "a,0,--lr-max 0.1,d,test,fp32,3,0.1,,0.5\nb,0,--recipe reference,d,test,fp32,3,0.03,,0.5\n"
    )
    assert "by the range test" not in page(others)
    assert "\nLRMAX by the range test: c 0.150, one seed.\n" in page(
        others + "c,0,--wd 1,d,test,fp32,3,0.15,,0.5\nd,0,--wd 2,d,test,fp32,3,,,\n"
    )


def test_variants_are_compared_with_the_first_of_their_table_whichever_run_was_over_first(page):
    text = page("".join(reversed(ROWS.splitlines(keepends=True))))
    assert text.index("| a |") < text.index("| b |") < text.index("| found |")
    assert "| a | `--lr-max 0.1` | 2 | 80.00 | 60.00 ± 14.14 |  |" in text


def test_a_variant_is_known_by_its_flags_whatever_it_was_called_when_it_was_run(page):
    renamed = ROWS.replace("a,0,", "b,0,").replace("a,1,", "old,1,").replace("\nb,", "\nc,")
    assert page(renamed) == page(ROWS)


def test_the_line_of_what_is_shared_is_of_runs_that_were_finished_and_of_all_of_them(page):
    rows = "a,0,--x 1,A,test,fp32,2,0.1,,\nb,0,--x 2,A,test,fp32,12,0.1,,0.5\n"
    text = page(rows + "c,0,--x 3,B,held-out,fp32,24,0.1,,0.5\n")
    assert "\nA or B, held-out or test images, 12 or 24 epochs, fp32. Rows: " in text


def test_a_neighbouring_table_that_cannot_be_read_does_not_end_the_page(page, tmp_path, capsys):
    (tmp_path / "u.csv").write_text(COLUMNS + ROWS)
    (tmp_path / "u.ini").write_bytes(b"# caf\xe9\n[a]\n")
    assert "## U\n\ndigits, held-out images" in page(ROWS)
    assert "does without u.ini" in capsys.readouterr().out


def test_the_page_names_every_precision_of_a_table(page):
    text = page(ROWS + "d,0,--lr-max 0.8 --width 4,digits,held-out,bf16,3,0.8,,0.5\n")
    assert "digits, held-out images, 3 epochs, bf16 or fp32; `--width 4`." in text


DAMAGED = {
    "has no header": ROWS,
    "has no column": "variant,seed\na,0\n",
    "has another column": COLUMNS.replace("variant", "warp,variant") + ROWS.replace("\n", ",1\n"),
    "has a short row": COLUMNS + "a,0\n",
    "has a long row": COLUMNS + ROWS.replace("0.5\n", "0.5,1\n"),
    "has text for a number": COLUMNS + ROWS.replace("0.5\n", "high\n"),
    "has a huge number": COLUMNS + ROWS.replace("0.5\n", "1e308\n"),
    "has no finite number": COLUMNS + ROWS.replace("0.5\n", "nan\n"),
    "has a strange number of images": COLUMNS + ROWS.replace("--width 4", "--holdout many"),
    "has half a flag": COLUMNS + ROWS.replace("--width 4", "--width"),
    "has an open quote": COLUMNS + ROWS.replace("--width", "'--width"),
    "has a huge field": COLUMNS + ROWS.replace("digits", "x" * 200_000),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_rows_that_are_damaged_are_one_line_and_left_out_of_the_page(page, tmp_path, capsys, text):
    damaged = tmp_path / "bad-rows.csv"
    damaged.write_text(text)
    with pytest.raises(S11Error, match=r"bad-rows.csv is damaged \(.*mend it") as error:
        read_rows(damaged)
    assert "\n" not in str(error.value)
    said = page(ROWS)
    assert "## Bad rows\n\nLeft out, as `bad-rows.csv` cannot be read." in said
    assert "| c | `--lr-max 0.4` | 1 | 60.00 | 40.00 | -30.00 |" in said
    assert "bad-rows.csv is damaged" in capsys.readouterr().out
    assert damaged.read_text() == text


def test_tables_without_a_row_or_a_peak_are_no_fault(page, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text(COLUMNS)
    assert "## Empty" not in page(ROWS)
    assert "t.png" not in page("".join(f"a,0,--lr-max 0.{i},d,test,fp32,3,,,0.5\n" for i in "123"))


def test_a_grid_of_peaks_is_drawn_with_those_that_were_found(page, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(study_page, "plot_peaks", lambda *args: drawn.append(args) or Figure())
    assert "![Accuracy of each peak](t.png)" in page(ROWS)
    ((accuracies, found, split),) = drawn
    assert accuracies == {0.1: [50, 70], 0.2: [60, 80], 0.4: [40]}
    assert found == [(0.15, 90)]
    assert split == "held-out"
    assert (tmp_path / "t.png").exists()
    assert "t.png" not in page(ROWS.replace("--width 4", "--width 8", 1))


def test_a_picture_that_fails_half_way_leaves_the_old_one(page, tmp_path):
    page(ROWS)
    before = (tmp_path / "t.png").read_bytes()
    with half_pictures(), pytest.raises(OSError, match="No space"):
        page(ROWS.replace("0.5", "0.6"))
    assert (tmp_path / "t.png").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "peaks.ini"
    path.write_text(TABLE)
    return path


def test_all_variants_get_their_first_seed_first(table):
    jobs = read_table(table)
    assert [(job.variant, job.seed) for job in jobs] == [
        ("low, 0.1", 0),
        ("high", 0),
        ("low, 0.1", 1),
    ]
    assert jobs[0].flags == ("--epochs", "3", "--lr-max", "0.1", "--peak-epoch", "1")
    assert jobs[0].folder == "low-0.1-seed0"
    table.write_text("[a]\nx=1\nseeds = 0 00 1\n[b]\nx=2\nseeds = 5\n[c]\nx=3\nseeds = 1 0\n")
    assert [(job.variant, job.seed) for job in read_table(table)] == [
        *(("a", 0), ("b", 5), ("c", 1)),
        *(("a", 1), ("c", 0)),
    ]


def test_what_is_no_table_is_one_line(tmp_path):
    odd = ("[a]\nlr-max = 0\0\n", "[\x1b[2J]\n", "[a]\nlr-max = 0.1\n  0.2\n")
    for text in ("", "[DEFAULT]\nepochs = 3\n", "epochs = 3\n", "[a]\nseeds = many\n", *odd):
        (tmp_path / "t.ini").write_text(text)
        with pytest.raises(S11Error, match=r"t\.ini") as error:
            read_table(tmp_path / "t.ini")
        assert "\n" not in str(error.value)


def test_variants_that_would_share_a_row_or_a_folder_are_refused(tmp_path):
    for text in ("[peak 4]\nx=1\n[peak / 4]\nx=2\n", "[a]\nx=1\n[b]\nx=1\n"):
        (tmp_path / "t.ini").write_text(text)
        with pytest.raises(S11Error, match=r"\[.*\] and \[.*\] have the same (folder|flags)"):
            read_table(tmp_path / "t.ini")


@pytest.mark.parametrize("path", sorted((ROOT / "experiments/studies").glob("*.ini")))
def test_every_committed_table_is_understood(path):
    for job in read_table(path):
        settings, _ = run_flags([*job.flags, "--seed", str(job.seed)])
        final = path.stem.startswith("final")
        assert bool(settings.holdout) != final, "choices are made on held-out images"
        recipe = {flag(name) for name in RECIPES["reference"]} - {"--lr-min", "--lr-max"}
        assert "--recipe" in job.flags or recipe <= {*job.flags}, "a default may be another one day"


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


@pytest.mark.parametrize(("own", "used"), [("data = digits\n", "digits"), ("", "/images")])
def test_images_that_a_table_names_are_its_own(tmp_path, monkeypatch, own, used):
    started = []
    monkeypatch.setattr(study.subprocess, "Popen", lambda words, **_: started.append(words))
    path = tmp_path / "t.ini"
    path.write_text(f"[DEFAULT]\n{own}[a]\nepochs = 3\n")
    args = study.parse([str(path), "--data", "/images", "--runs", str(tmp_path)])
    study.start(read_table(path)[0], args)
    settings, _ = run_flags(started[0][2:])
    assert (settings.data, settings.epochs, settings.seed) == (used, 3, 0)


def test_each_run_becomes_a_row_and_is_made_once(table, tmp_path, made_up_runs, capsys):
    argv = [str(table), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    study.main([*argv, "--parallel", "2"])
    assert sorted(made_up_runs) == ["high-seed0", "low-0.1-seed0", "low-0.1-seed1"]
    rows = read_rows(tmp_path / "results/peaks.csv")
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


def test_a_run_of_other_settings_becomes_no_row(table, tmp_path, finished, made_up_runs, capsys):
    folder = tmp_path / "runs/peaks/high-seed0"
    shutil.copytree(finished[0], folder)
    argv = [str(table), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    with pytest.raises(SystemExit) as stop:
        study.main(argv)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"{folder} holds another run, " in said
    assert said.endswith(": move it away, rename the variant, or give another --runs\n")
    assert made_up_runs == []
    (job,) = (job for job in read_table(table) if job.variant == "high")
    settings, _ = run_flags([*job.flags, "--seed", "0", "--data", "elsewhere"])
    (folder / "config.json").write_text(json.dumps(settings.as_dict()))
    (folder / "results.json").unlink()
    args = study.parse([*argv, "--data", str(tmp_path)])
    study.check_folders([job], args)  # its own run, wherever the images lay


def test_a_finished_run_of_other_images_becomes_no_row(table, tmp_path, finished):
    settings = read_config(finished[0])
    own = replace(settings, data=None)
    job = Job("high", settings.seed, tuple(shlex.split(command_of(own))[2:]))
    argv = [str(table), "--runs", str(tmp_path / "runs"), "--data"]
    folder = shutil.copytree(finished[0], tmp_path / "runs/peaks" / job.folder)
    study.check_folders([job], study.parse([*argv, settings.data]))
    with pytest.raises(S11Error, match=r"holds another run, its images are not those of digits: "):
        study.check_folders([job], study.parse([*argv, "digits"]))
    (folder / "results.json").unlink()  # it goes on, where run.py refuses them
    study.check_folders([job], study.parse([*argv, "digits"]))


def test_a_row_of_other_images_does_not_join_the_rows(
    table, tmp_path, made_up_runs, monkeypatch, capsys
):
    argv = [str(table), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    row_of = study.row_of
    monkeypatch.setattr(
        study, "row_of", lambda job, out: row_of(job, out) | {"data": f"copy {job.seed}"}
    )
    with pytest.raises(SystemExit) as stop:
        study.main(argv)
    assert stop.value.code == 2
    assert "low-0.1-seed1 is of copy 1, and " in (said := capsys.readouterr().err)
    assert said.endswith("peaks.csv has rows of copy 0: give another --results\n")
    assert {row["seed"] for row in read_rows(tmp_path / "results/peaks.csv")} == {"0"}
    own = "[A]\ndata = a\n[B]\ndata = b\nseeds = 1\n"  # a table may compare images
    table.with_name("images.ini").write_text(own)
    study.main([str(table.with_name("images.ini")), *argv[1:]])
    assert len(read_rows(tmp_path / "results/images.csv")) == 2


def test_a_page_of_something_else_is_kept(table, tmp_path, made_up_runs, capsys):
    (tmp_path / "README.md").write_text("# My notes\n")
    with pytest.raises(SystemExit):
        study.main([str(table), "--results", str(tmp_path), "--runs", str(tmp_path / "runs")])
    assert "README.md is no page of a study and is kept" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "# My notes\n"
    assert made_up_runs == []
    assert study_page.HEAD.startswith("# Study\n")


@pytest.mark.parametrize("line", ["label-smoothin = 0.1", "widht = 4", "wd = -1", "epochs = many"])
def test_a_variant_that_would_be_refused_is_named_before_any_run(
    table, tmp_path, made_up_runs, capsys, line
):
    table.write_text(f"{TABLE}\n[last]\n{line}\n")
    with pytest.raises(SystemExit) as stop:
        study.main([str(table), "--runs", str(tmp_path / "runs")])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("study.py: [last] of the table: ")
    assert f"--{line.split(' ')[0]}" in said
    assert said.count("\n") == 1
    assert made_up_runs == []


def test_tables_of_ones_own_leave_the_committed_page_alone(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert study.parse([str(table)]).results == Path("runs/study/results")
    ours = study.parse([str(study.STUDIES / "recipe.ini")])
    assert ours.results == ROOT / "results/study"
    results = shutil.copytree(ROOT / "results/study", tmp_path / "study")
    page = study_page.write_page(results, tmp_path / "elsewhere", study.STUDIES)
    assert page.read_text() == (ROOT / "results/study/README.md").read_text()


def test_the_first_signal_tells_the_runs_at_once_as_a_second_ends_the_study(
    table, tmp_path, monkeypatch
):
    told, args = [], study.parse([str(table), "--runs", str(tmp_path / "runs")])
    code = "import time; time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code])
    monkeypatch.setattr(study, "start", lambda *_: process)

    def row_of(*_):
        raise AssertionError("it did not end")

    def sleeping(_):
        os.kill(os.getpid(), signal.SIGINT)
        told.append(process.wait())

    monkeypatch.setattr(study, "row_of", row_of)
    monkeypatch.setattr(study.time, "sleep", sleeping)
    with StopSignals() as signals:
        signals.be_patient()
        study.run_all(read_table(table)[:1], tmp_path / "rows.csv", args, signals)
    assert told == [-signal.SIGTERM]


def test_a_signal_while_runs_begin_begins_no_more_and_tells_each_once(table, tmp_path, monkeypatch):
    begun, args = [], study.parse([str(table), "--parallel", "3", "--runs", str(tmp_path)])

    def start(*_):
        os.kill(os.getpid(), signal.SIGINT)  # before the study knows of the process
        begun.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return begun[-1]

    monkeypatch.setattr(study, "start", start)
    with StopSignals() as signals:
        signals.be_patient()
        study.run_all(read_table(table), tmp_path / "rows.csv", args, signals)
    assert [process.returncode for process in begun] == [-signal.SIGTERM]


def test_a_run_that_fails_is_named_and_the_others_go_on(table, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    argv = [str(table), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(
        study,
        "start",
        lambda job, args: subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"]),
    )
    with pytest.raises(SystemExit) as stop:
        study.main(argv)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "3 runs failed: look at" in said.err
    assert said.out.count("ended with exit code 2") == 3


def test_what_ends_a_study_is_said_whatever_becomes_of_its_page(
    table, tmp_path, made_up_runs, monkeypatch, capsys
):
    def no_page(*_):
        raise OSError(28, "No space left on device")

    def lost(job, out):
        raise S11Error("what ended it")

    argv = [str(table), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(study_page, "write_page", no_page)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/peaks.csv").write_text(COLUMNS + ROWS)
    monkeypatch.setattr(study, "row_of", lost)
    with pytest.raises(SystemExit):
        study.main(argv)
    assert "what ended it" in capsys.readouterr().err


def test_a_run_that_diverges_is_a_row_without_accuracies(table, finished, tmp_path, monkeypatch):
    def start(job, args):
        shutil.copytree(finished[0], args.runs / job.folder)
        (args.runs / job.folder / "results.json").unlink()
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])

    monkeypatch.setattr(study, "start", start)
    results = tmp_path / "results"
    study.main([str(table), "--runs", str(tmp_path / "runs"), "--results", str(results)])
    rows = read_rows(results / "peaks.csv")
    assert [row["final_accuracy"] for row in rows] == [""] * 3
    assert all(float(row["lr_max"]) > 0 for row in rows)


def test_help_needs_nothing_heavy():
    assert "INI" in help_without_heavy_imports("study")


def test_the_committed_page_is_that_of_the_committed_rows(tmp_path):
    results = shutil.copytree(ROOT / "results/study", tmp_path / "study")
    page = study_page.write_page(results, ROOT / "experiments/studies")
    assert page.read_text() == (ROOT / "results/study/README.md").read_text()


PUBLISHED = sorted(path for path in (ROOT / "results/full").iterdir() if path.is_dir())


@pytest.mark.parametrize("run", PUBLISHED, ids=[run.name for run in PUBLISHED])
def test_a_published_run_is_a_row_of_the_study(run):
    """Its settings are those that the table gives, and what came of it is what its records say."""
    variant, seed = ("reference", 0) if run.name == "reference" else ("default", int(run.name[5:]))
    jobs = read_table(ROOT / "experiments/studies/final-width-64.ini")
    (job,) = [each for each in jobs if (each.variant, each.seed) == (variant, seed)]
    settings, _ = run_flags([*job.flags, "--seed", str(seed)])
    records = read_records(run)
    either = {"data": records.settings.data, "precision": records.settings.precision}
    assert replace(settings, **either) == records.settings  # the row has what precision it was
    rows = read_rows(ROOT / "results/study/final-width-64.csv")
    (row,) = [row for row in rows if (row["variant"], row["seed"]) == (variant, str(seed))]
    made = study.row_of(job, run)
    assert row == {name: "" if made[name] is None else str(made[name]) for name in row}
