import math
from dataclasses import replace

import numpy as np
import pytest

from s11_fastai.lr_bounds import LRBounds, bounds_of
from s11_fastai.plots.curves import Line, Names, range_test_end
from s11_fastai.report import curves, reference_log
from s11_fastai.report.curves import CURVES, Curve, Mark, Text
from s11_fastai.report.pictures import PICTURES
from s11_fastai.runs.records import read_records


@pytest.fixture
def records(finished):
    return read_records(finished[0])


@pytest.fixture
def as_cifar10(records):
    return replace(records, env=records.env | {"data": "CIFAR-10"})


def simple(y, **settings) -> Curve:
    lines = {"train": Line("a", range(len(y)), y)}
    return Curve(Names("T", "x", "y"), lines, Text(), Text("", 2, "%"), **settings)


def test_the_page_gets_the_values_of_a_curve_and_how_they_are_written():
    data = simple([0.0, 1 / 3], marks=(Mark("y", 0.5, "here", "rule"),), log_y=True).as_json()
    (line,) = data["lines"]
    assert (line["kind"], line["name"]) == ("train", "a")
    assert (line["x"], line["y"]) == ([0, 1], [0, 0.333333])
    assert data["y"]["text"] == {"before": "", "digits": 2, "after": "%", "significant": False}
    assert (data["x"]["log"], data["y"]["log"], data["x"]["range"]) == (False, True, None)
    assert data["marks"][0]["at"] == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_cannot_be_drawn(value):
    for curve in (simple([1, value]), simple([1], marks=(Mark("x", value, "", "rule"),))):
        with pytest.raises(ValueError, match="NaN or infinite"):
            curve.as_json()


def test_figures_and_page_show_the_same_numbers(records):
    drawings = {picture.name: picture.draw for picture in PICTURES}
    both = [name for name in CURVES if name in drawings]
    assert both == ["accuracy", "loss", "schedule", "lr_find"]
    for name in both:
        axes, made = drawings[name](records).axes[0], CURVES[name](records)
        shown = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]
        own = [(list(line.x), list(line.y)) for line in made.lines.values()]
        assert shown[: len(own)] == own, name
        names = axes.get_title().strip(), axes.get_xlabel(), axes.get_ylabel()
        assert names == made.names
    assert axes.get_ylim() == made.y_range  # of the range test


def test_error_is_what_accuracy_leaves(records):
    right, wrong = curves.accuracy(records), curves.error(records)
    for kind, line in right.lines.items():
        assert np.add(line.y, wrong.lines[kind].y) == pytest.approx(100)
    assert wrong.log_y


def test_the_best_epoch_is_marked_and_on_cifar10_the_target(records, as_cifar10):
    best, percent = records.best, 100 * records.best.valid_accuracy
    (mark,) = curves.accuracy(records).marks
    assert mark == (
        "point",
        best.epoch,
        f"best: epoch {best.epoch}, {percent:.2f}%",
        "best",
        percent,
    )
    assert curves.accuracy(as_cifar10).marks[1][:3] == ("y", 90.0, "target 90%")
    target = curves.error(as_cifar10).marks[1]
    assert (target.at, target.label) == (pytest.approx(10), "target 10%")
    held_out = replace(as_cifar10, settings=replace(records.settings, holdout=10))
    assert len(curves.accuracy(held_out).marks) == 1


def test_the_references_log_lies_where_its_part_of_the_run_is(as_cifar10):
    line = curves.accuracy(as_cifar10).lines["reference test"]
    assert line.name == "reference test, its 24 epochs as 3"
    assert list(line.x[7::8]) == [1, 2, 3]
    assert line.y == pytest.approx([100 * value for value in reference_log.TEST_ACCURACY])
    whole = replace(as_cifar10, settings=replace(as_cifar10.settings, epochs=24))
    line = curves.schedule(whole).lines["reference lr"]
    assert (line.name, list(line.x)) == ("reference lr", list(range(1, 25)))


def test_of_very_many_steps_the_loss_is_their_mean_and_the_lr_keeps_its_peak(records):
    (row, *_), n = records.steps, 3 * 7000
    steps = [row._replace(step=i, loss=float(i % 7), lr=1.0 + (i == 4321)) for i in range(n)]
    long = replace(records, steps=steps)
    loss, lr = curves.step_loss(long), curves.schedule(long).lines["rate"]
    smoothing = "With label smoothing 0.2, as it is trained."
    assert loss.note == f"Each point is the mean of 7 steps. {smoothing}"
    assert curves.loss(records).note == smoothing
    plain = replace(records, settings=replace(records.settings, label_smoothing=0.0))
    assert curves.loss(plain).note == curves.step_loss(plain).note == ""
    assert set(loss.lines["train"].y) == {3}
    assert len(loss.lines["train"].y) == 3000
    assert (lr.x[0], lr.x[-1]) == (0, 3 * (n - 1) / n)
    assert (3 * 4321 / n, 2) in zip(lr.x, lr.y, strict=True)
    assert len(lr.y) <= 3002


def test_a_line_of_steps_goes_over_the_epochs(records):
    line = curves.step_loss(records).lines["train"]
    per_epoch = len(records.steps) // 3
    assert line.x[::per_epoch] == [0, 1, 2]
    assert list(line.y) == [step.loss for step in records.steps]
    assert "Each point" not in curves.step_loss(records).note


def test_momentum_is_said_where_it_is_constant_and_drawn_where_it_is_not(records):
    assert curves.schedule(records).note == "Momentum is 0.9 throughout."
    assert curves.momentum(records) is None
    steps = [step._replace(momentum=0.8 + 0.1 * (step.step % 2)) for step in records.steps]
    changing = replace(records, steps=steps)
    assert curves.schedule(changing).note == ""
    assert curves.momentum(changing).lines["rate"].y[:2] == [0.8, 0.9]


def valley() -> LRBounds:
    """A test whose loss is 3, falls to 1, and rises for good."""
    losses = (3.0,) * 10 + tuple(np.linspace(3, 1, 11)) + tuple(np.linspace(1.1, 50, 30))
    lrs = tuple(10.0 ** (-7 + i / 8) for i in range(len(losses)))
    return LRBounds(*bounds_of(lrs, losses), lrs, losses)


def test_the_range_test_shows_from_what_its_rule_finds_the_bounds(records):
    bounds = valley()
    curve = curves.range_test(replace(records, bounds=bounds))
    level, low, high = curve.marks
    assert (level.axis, level.at, level.kind) == ("y", 2, "rule")
    assert (low.at, high.at) == (bounds.lr_min, bounds.lr_max)
    assert f"half of its fall at lr {bounds.lr_max / 8:.3g}. LRMAX is 8 times that" in curve.note
    assert "LRMIN is LRMAX / 100." in curve.note
    assert curve.x_range[1] == range_test_end(bounds.lrs, bounds.losses, bounds.lr_max)
    assert f"ended at lr {bounds.lrs[-1]:.3g} with a loss of 50" in curve.note


def test_bounds_of_another_rule_are_not_taken_for_this_ones(records):
    found = valley()
    other = replace(found, lr_min=found.lr_max / 80, lr_max=found.lr_max / 2)
    note = curves.range_test(replace(records, bounds=other)).note
    assert "LRMAX is 4 times that, and LRMIN is LRMAX / 40." in note


def test_there_is_no_curve_of_what_has_not_happened(records):
    begun = replace(records, history=[], steps=[], bounds=None)
    assert [make(begun) for make in CURVES.values()] == [None] * len(CURVES)
