import os
import re

import compare
import numpy as np
import pytest
from compare import format_table
from helpers import (
    altered,
    half_pictures,
    help_without_heavy_imports,
    misplaced_texts,
    rows,
    size_of_picture,
)

from s11_fastai.plots import plot_comparison
from s11_fastai.plots.curves import ComparedRuns
from s11_fastai.report.comparison import compared, strips_of
from s11_fastai.report.groups import (
    epochs_of,
    group_by_settings,
    mean_and_std,
    measurements,
)
from s11_fastai.runs.records import read_records


def test_runs_that_differ_only_in_the_seed_are_joined(finished, tmp_path):
    out = finished[0]
    seeds = [altered(out, tmp_path / f"s{i}", 0.5 + 0.1 * i, seed=i) for i in range(3)]
    other = altered(out, tmp_path / "other", 0.9, wd=0.1)
    groups = group_by_settings([read_records(path) for path in [*seeds, other, seeds[0]]])
    assert [len(each.runs) for each in groups] == [3, 1]
    images, _, header, joined, alone, _, keys, wd = format_table(groups).splitlines()
    assert images == "pets, test images"
    assert re.split(r"  +", header.strip()) == [
        *("run", "epochs", "final, %", "best, %", "loss", "min", "lr")
    ]
    assert joined.startswith("A  s0, 3 seeds")
    assert "60.00 ± 10.00" in joined
    assert "90.00" in alone
    assert "±" not in alone
    assert (keys.split(), wd.split()) == (["A", "B"], ["wd", "0.0005", "0.1"])


def test_many_runs_of_long_names_fit_into_a_hundred_columns(finished, tmp_path):
    out = finished[0]
    paths = [
        altered(out, tmp_path / str(i) / f"{'long-' * 20}name", 0.5, seed=1, width=1 + i, wd=i / 7)
        for i in range(7)
    ]
    paths += [altered(out, tmp_path / f"seed-{i}", 0.5, seed=i, bs=15) for i in range(12)]
    table = format_table(group_by_settings([read_records(path) for path in paths]))
    assert max(map(len, table.splitlines())) <= 100
    names = re.findall(r"^[A-H]  (\S+(?: \d+ seeds)?)  ", table, re.MULTILINE)
    assert len(names) == 8
    assert names[-1] == "seed-0, 12 seeds"
    assert all(name.endswith("long-name") for name in names[:-1])
    assert [line.split() for line in table.splitlines() if "width" in line] == [
        ["width", *"12345"],
        ["width", *"671"],
    ]


def test_equal_names_are_told_apart_and_every_name_is_in_the_legend(finished, tmp_path):
    first, second = (
        altered(finished[0], tmp_path / p / "_x", wd=w) for p, w in [("a", 1), ("b", 2)]
    )
    groups = group_by_settings([read_records(path) for path in (first, second)])
    assert [group.name for group in groups] == ["a/_x", "b/_x"]
    (legend,) = plot_comparison(list(compared(groups).values())).legends
    assert [text.get_text() for text in legend.get_texts()] == ["A  a/_x", "B  b/_x"]
    (alone,) = group_by_settings([read_records(first)])
    (legend,) = plot_comparison(list(compared([alone]).values())).legends
    assert [text.get_text() for text in legend.get_texts()] == ["A  _x"]


def test_any_name_that_a_folder_may_have_is_drawn(finished, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9\nrun")
    compare.main([str(altered(finished[0], odd)), "--out", str(tmp_path / "c.png")])
    (group,) = group_by_settings([read_records(odd)])
    assert group.label == r"A  caf\udce9\nrun"
    assert (tmp_path / "c.png").exists()


@pytest.mark.parametrize("name", ["c.html", "c.png"])
def test_one_table_and_one_page_or_picture(finished, tmp_path, capsys, name):
    other = altered(finished[0], tmp_path / "other", width=2)
    compare.main([str(finished[0]), str(other), "--out", str(tmp_path / name)])
    printed = capsys.readouterr().out
    last = rows(finished[0] / "history.csv")[-1]
    assert f"{100 * last['valid_accuracy']:.2f}" in printed
    assert "width" in printed
    assert printed.endswith(f" {tmp_path / name}\n")
    if name == "c.html":
        assert (tmp_path / name).read_text().startswith("<!doctype html>")
    else:
        assert min(size_of_picture(tmp_path / name)) > 500


def test_without_a_flag_it_makes_a_page():
    assert compare.parse(["a", "b"]).out.name == "compare.html"


def test_a_picture_that_fails_half_way_leaves_the_old_one(finished, tmp_path, capsys):
    out = tmp_path / "c.png"
    out.write_bytes(b"old")
    with half_pictures(), pytest.raises(SystemExit):
        compare.main([str(finished[0]), "--out", str(out)])
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def test_the_band_is_from_the_lowest_to_the_highest():
    several = ComparedRuns("a", np.array([[20, 20], [60, 60]]), np.array([[1, 2], [3, 4]]))
    one = ComparedRuns("b", np.array([[50, 50]]), np.array([[1, 1]]))
    axes = plot_comparison([several, one]).axes[0]
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), 40)
    (band,) = axes.collections
    assert {round(y) for _, y in band.get_paths()[0].vertices} == {20, 60}


def test_many_runs_of_long_names_are_told_apart_and_nothing_is_cut_off():
    values = np.array([[50, 60]])
    name = "neither-smoothing-nor-scale-peak-0.2-and-a-weight-decay-of-0.001-seed"
    figure = plot_comparison(
        [ComparedRuns(f"{i}  {name}{i}", values + i, values / 50) for i in range(25)],
        "Losses with different label smoothing are not to be compared.",
    )
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 25
    assert misplaced_texts(figure) == []
    axes = figure.axes[0].get_window_extent()
    assert axes.height > 2 * figure.dpi
    assert "not to be compared" in figure.axes[1].get_xlabel()


def test_a_group_is_measured_after_the_epochs_that_all_its_runs_have(finished, tmp_path):
    """One of two seeds has only begun."""
    early = altered(finished[0], tmp_path / "early", seed=9)
    late = altered(finished[0], tmp_path / "late")
    for path, epochs in ((early, 1), (late, 2)):
        (path / "results.json").unlink()
        for file, n in (("history.csv", epochs), ("steps.csv", 4 * epochs)):
            lines = (path / file).read_text().splitlines(keepends=True)
            (path / file).write_text("".join(lines[: 1 + n]))
    runs = [read_records(path) for path in (early, late)]
    assert [len(run.history) for run in runs] == [1, 2]
    (group,) = group_by_settings(runs)
    first = [100 * run.history[0].valid_accuracy for run in runs]
    assert measurements(group.runs)[0] == mean_and_std(first, ".2f")
    assert epochs_of(group.runs).startswith("1 of ")
    strips, _ = strips_of([group])
    assert strips[group.key].words == mean_and_std(first, ".2f")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["nowhere"], "holds no run"),
        (["."], "holds no run"),
        ([".", "."], "holds no run"),
        (["x", "--out", "a.txt"], "must end in"),
    ],
)
def test_bad_input_is_one_line(argv, says, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(argv)
    assert stop.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert says in said


def test_what_a_star_gives_beside_the_runs_is_left_out(finished, tmp_path, capsys):
    (tmp_path / "study").mkdir()
    (tmp_path / "notes.txt").touch()
    paths = [str(finished[0]), str(tmp_path / "notes.txt"), str(tmp_path / "study")]
    compare.main([*paths, "--out", str(tmp_path / "c.html")])
    left_out, again, *table = capsys.readouterr().out.splitlines()
    assert left_out == f"left out: {paths[1]} holds no run"
    assert again == f"left out: {paths[2]} holds no run"
    assert any(line.startswith("A  ") for line in table)
    with pytest.raises(SystemExit):
        compare.main([paths[0], str(tmp_path / "mistyped")])
    assert "mistyped holds no run" in capsys.readouterr().err


def test_help_does_without_heavy_imports():
    assert "RUN" in help_without_heavy_imports("compare")
