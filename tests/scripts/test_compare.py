import json
import shutil
from dataclasses import replace

import compare
import numpy as np
import pytest
from compare import Group, curves_of, format_table, group_by_settings
from helpers import help_without_heavy_imports, read, rows
from PIL import Image

from s11_fastai.plots import plot_comparison
from s11_fastai.plots.curves import ComparedRuns
from s11_fastai.runs.records import read_records


def altered(out, target, accuracy=None, **settings):
    """A copy of a run with other settings, and another accuracy after its last epoch."""
    shutil.copytree(out, target)
    (target / "config.json").write_text(json.dumps(read(out / "config.json") | settings))
    if accuracy is not None:
        lines = (target / "history.csv").read_text().splitlines()
        last = lines[-1].split(",")
        last[4] = str(accuracy)
        (target / "history.csv").write_text("\n".join([*lines[:-1], ",".join(last)]) + "\n")
    return target


def test_runs_that_differ_only_in_the_seed_are_joined(finished, tmp_path):
    out = finished[0]
    seeds = [altered(out, tmp_path / f"s{i}", 0.5 + 0.1 * i, seed=i) for i in range(3)]
    other = altered(out, tmp_path / "other", 0.9, wd=0.1)
    groups = group_by_settings([read_records(path) for path in [*seeds, other, seeds[0]]])
    assert [len(each.runs) for each in groups] == [3, 1]
    header, joined, alone = format_table(groups).splitlines()
    assert header.split() == [
        *["run", "images", "epochs", "final", "best", "loss", "seconds", "LRMIN", "LRMAX", "wd"]
    ]
    assert "s0 and 2 more seeds" in joined
    assert "60.00% ± 10.00%" in joined
    assert joined.split()[-1] == "0.0005"
    assert alone.split()[-1] == "0.1"
    assert "90.00%" in alone
    assert "±" not in alone


def test_the_same_seed_twice_is_no_second_sample(finished, tmp_path):
    again = altered(finished[0], tmp_path / "again", 0.5)
    groups = group_by_settings([read_records(path) for path in (finished[0], again, finished[0])])
    assert [each.name for each in groups] == [finished[0].name, "again"]


def test_one_table_and_one_picture(finished, tmp_path, capsys):
    other = altered(finished[0], tmp_path / "other", width=2)
    compare.main([str(finished[0]), str(other), "--out", str(tmp_path / "c.png")])
    printed = capsys.readouterr().out
    last = rows(finished[0] / "history.csv")[-1]
    assert f"{last['valid_accuracy']:.2%}" in printed
    assert "width" in printed
    assert min(Image.open(tmp_path / "c.png").size) > 500


def test_the_band_is_from_the_lowest_to_the_highest():
    several = ComparedRuns("a", np.array([[20, 20], [60, 60]]), np.array([[1, 2], [3, 4]]))
    one = ComparedRuns("b", np.array([[50, 50]]), np.array([[1, 1]]))
    axes = plot_comparison([several, one]).axes[0]
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), 40)
    (band,) = axes.collections
    assert {round(y) for _, y in band.get_paths()[0].vertices} == {20, 60}


def test_curves_are_as_long_as_the_shortest_run(finished):
    records = read_records(finished[0])
    shorter = replace(records, history=records.history[:2])
    name, accuracies, losses = curves_of(Group("a", (records, shorter)))
    assert name == "a"
    assert accuracies.shape == losses.shape == (2, 2)
    assert accuracies[0, 1] == 100 * records.history[1].valid_accuracy
    assert losses[1, 0] == records.history[0].valid_loss
    assert curves_of(Group("b", (replace(records, history=[]),))) is None


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["nowhere"], "holds no run"),
        (["."], "holds no run"),
        (["x", "--out", "a.txt"], "must end in"),
    ],
)
def test_bad_input_is_one_line(argv, says, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(argv)
    assert stop.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert says in said


def test_help_does_without_heavy_imports():
    assert "RUN" in help_without_heavy_imports("compare")
