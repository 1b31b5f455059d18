import subprocess
import sys

import pytest
from helpers import ROOT, misplaced_texts, size_of_picture

from s11_fastai.plots import plot_accuracy, plot_loss, plot_lr_find, plot_schedule
from s11_fastai.plots.curves import Line, highest_shown_loss, range_test_end, range_test_limits


def test_the_range_test_shows_both_bounds_and_the_valley():
    lrs, losses = [1e-3, 1e-2, 0.1, 1, 10], [3, 2, 2.5, 9, 10]
    figure = plot_lr_find(lrs, losses, 2e-3, 0.05, half=(5e-3, 2.5))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["LRMIN 0.002", "LRMAX 0.05"]
    assert [line.get_xdata()[0] for line in axes.get_lines()[1:3]] == [2e-3, 0.05]
    assert range_test_limits(losses) == axes.get_ylim() == (1.9, 3.4)
    # The curve has left the picture at 1: what comes after that is not shown.
    assert range_test_end(lrs, losses, 0.05) == 1.2
    assert range_test_end(lrs, losses, 10) == 12
    assert axes.get_xlim() == (1e-3, pytest.approx(1.2))
    assert range_test_end(lrs[:3], losses[:3], 0.05) == pytest.approx(0.12)
    half, point = axes.get_lines()[3:]
    assert half.get_ydata() == [2.5, 2.5]
    assert (point.get_xdata(), point.get_ydata()) == ([5e-3], [2.5])
    assert point.get_label() == "half of the fall, at lr 0.005"
    assert half.get_color() not in {line.get_color() for line in axes.get_lines()[:3]}
    (axes,) = plot_lr_find(lrs, losses, 1e-6, 0.05, half=(5e-3, 2.5)).axes
    assert axes.get_xlim()[0] < 1e-6  # a bound may be given that the test did not reach


@pytest.mark.parametrize("bounds", [(2e-3, 0.05), (0.049, 0.05), (1e-3, 10), (1e-3, 1.1e-3)])
def test_the_names_of_the_bounds_do_not_meet(bounds):
    figure = plot_lr_find([1e-3, 1e-2, 0.1, 1, 10], [3, 2, 2.5, 9, 10], *bounds, half=(5e-3, 2.5))
    assert misplaced_texts(figure) == []


@pytest.mark.parametrize(
    ("plot", "unit", "last"),
    [(plot_loss, "loss, nats", "40.000"), (plot_accuracy, "accuracy, %", "40.00%")],
)
def test_both_splits_are_named_with_their_last_value(plot, unit, last):
    axes = plot(Line("train", [1, 2], [10, 20]), Line("held-out", [1, 2], [30, 40])).axes[0]
    text = axes.get_legend().get_texts()[1].get_text()
    assert text.startswith(f"held-out, last {last}")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", unit)
    assert [list(line.get_ydata()) for line in axes.get_lines()[:2]] == [[10, 20], [30, 40]]


def test_the_best_epoch_and_the_target_are_marked():
    train, valid = Line("train", [1, 2, 3], [50, 80, 95]), Line("test", [1, 2, 3], [40, 91, 88])
    axes = plot_accuracy(train, valid, target=90).axes[0]
    said = [text.get_text() for text in axes.get_legend().get_texts()]
    assert said == [
        "train, last 95.00%",
        "test, last 88.00%, best 91.00% at epoch 2",
        "target 90%",
    ]
    star, target = axes.get_lines()[2:]
    assert (star.get_marker(), list(star.get_xdata()), list(star.get_ydata())) == ("*", [2], [91])
    assert target.get_ydata() == [90, 90]
    assert len(plot_accuracy(train, valid).axes[0].get_lines()) == 3


def test_one_epoch_far_above_the_others_leaves_the_picture_of_losses_with_its_value_at_the_edge():
    epochs, train, valid = [1, 2, 3], [2, 1, 1], [50.25, 3.04, 1]
    assert highest_shown_loss(train, valid) == 3
    assert highest_shown_loss(train, [2.5, 1, 1]) == 2.5
    axes = plot_loss(Line("train", epochs, train), Line("test", epochs, valid)).axes[0]
    assert axes.get_ylim()[1] == 3
    assert [(t.get_text(), t.xy) for t in axes.texts] == [("50.2", (1, 3)), ("3.04", (2, 3))]
    marks = [line for line in axes.get_lines() if line.get_marker() == "^"]
    assert [(*m.get_xdata(), *m.get_ydata()) for m in marks] == [(1, 3), (2, 3)]
    axes = plot_loss(Line("train", epochs, train), Line("test", epochs, [2.5, 1, 1])).axes[0]
    assert not axes.texts


def test_the_schedule_says_where_its_peak_and_its_ends_are():
    figure = plot_schedule([0, 0.5, 1, 1.5], [0.1, 0.2, 0.3, 0.2])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["LRMAX 0.3 at epoch 1", "LRMIN 0.1"]
    assert axes.get_ylim()[0] == 0
    assert misplaced_texts(figure) == []
    stopped = plot_schedule([0, 0.5], [0.1, 0.2]).axes[0]  # the peak is still to come
    assert stopped.texts[0].get_text() == "0.2 at epoch 0.5"


def test_a_figure_is_shown_at_a_prompt_and_held_by_nobody_else():
    code = (
        "import matplotlib; matplotlib.use('template')\n"  # a backend with windows, but no screen
        "import matplotlib.pyplot as plt\n"
        "from s11_fastai.plots import plot_clr\n"
        "import warnings; warnings.simplefilter('error')\n"
        "figure = plot_clr(0.1, 0.2, 5, 1)\n"
        "figure.show(); figure.show()\n"
        "assert figure.canvas.manager.canvas.figure is figure\n"
        "assert not plt.get_fignums()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_pictures_open_and_are_large_enough_to_be_read(finished):
    for path in (finished[0] / "figures").iterdir():
        width, height = size_of_picture(path)
        assert width >= 250, path.name
        assert height >= 150, path.name  # of few mistakes, it is a single row of images
