import math
from dataclasses import replace

import pytest

from s11_fastai.plots.curves import ACCURACY, Line, Names
from s11_fastai.report.curves import CURVES, Chart, Curve, place
from s11_fastai.report.pictures import PICTURES
from s11_fastai.runs.records import read_records


def curve(x, y, **settings) -> Curve:
    names = Names("T", settings.pop("x_name", "x"), "y")
    lines = {"train": Line("a", x, y)}
    return Curve(names, lines, **{"x_text": "{:g}", "y_text": "{:g}"} | settings)


def test_a_chart_places_its_values():
    chart = place(curve([1, 2, 3], [0.0, 5.0, 10.0]))
    (line,) = chart.lines
    (x0, y0, *_), (x1, y1, *_), (x2, y2, *_) = line["at"]
    assert (x0, x2) == (Chart.left, Chart.right)
    assert (y0, y2) == (Chart.bottom, Chart.top)
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert line["points"] == f"{x0},{y0} {x1},{y1} {x2},{y2}"


def test_a_logarithmic_axis_gives_each_power_of_ten_the_same_room():
    chart = place(curve([1e-3, 1e-2, 1e-1], [1, 2, 3], log_x=True, marks=((1e-2, "here"),)))
    middle = (Chart.left + Chart.right) / 2
    assert chart.lines[0]["at"][1][0] == middle
    assert chart.marks == [(middle, "here")]
    assert [label for _, label in chart.x_ticks] == ["0.001", "0.01", "0.1"]


def test_long_lines_are_thinned_and_keep_their_peak():
    values = [0.0] * 10_000
    values[4321] = 7
    at = place(curve(range(10_000), values)).lines[0]["at"]
    assert len(at) <= 402
    assert (at[0][2], at[-1][2]) == ("0", "9999")
    assert ("4321", "7") in [(x, y) for *_, x, y in at]


def test_a_flat_line_lies_in_the_middle():
    at = place(curve([1], [2.0], x_name="epoch")).lines[0]["at"]
    assert at[0][1] == (Chart.top + Chart.bottom) / 2
    assert at[0][3] == "2"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_cannot_be_placed(value):
    with pytest.raises(ValueError, match="NaN or infinite"):
        place(curve([1, 2], [1.0, value]))


def test_figures_and_page_show_the_same_numbers(finished):
    records = read_records(finished[0])
    drawings = {picture.name: picture.draw for picture in PICTURES}
    for name, make in CURVES.items():
        axes, made = drawings[name](records).axes[0], make(records)
        shown = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]
        own = [(list(line.x), list(line.y)) for line in made.lines.values()]
        assert shown[: len(own)] == own, name
        assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == made.names
    assert axes.get_ylim() == made.y_range  # of the range test


def test_the_references_log_is_not_longer_than_the_run(finished):
    records = read_records(finished[0])
    records = replace(records, env=records.env | {"data": "CIFAR-10"})
    lines = CURVES["accuracy"](records).lines
    assert list(lines) == ["train", "valid", "reference test", "reference train"]
    assert lines["reference test"].y == pytest.approx([37.80, 55.12, 59.29])
    assert CURVES["accuracy"](records).names == ACCURACY
