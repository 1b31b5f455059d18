import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from s11_fastai.plots import plot_accuracy, plot_loss, plot_lr_find, plot_samples, plot_schedule
from s11_fastai.plots.curves import Line, highest_shown_loss, range_test_limits


def test_the_range_test_shows_both_bounds_and_the_valley():
    losses = [3, 2, 2.5, 9]
    axes = plot_lr_find([1e-3, 1e-2, 0.1, 1], losses, 2e-3, 0.05).axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "LRMIN = 0.002",
        "LRMAX = 0.05",
    ]
    assert [line.get_xdata()[0] for line in axes.get_lines()[1:]] == [2e-3, 0.05]
    assert range_test_limits(losses) == axes.get_ylim() == (1.9, 3.4)


@pytest.mark.parametrize(
    ("plot", "unit", "last"),
    [(plot_loss, "loss, nats", "40.000"), (plot_accuracy, "accuracy, %", "40.00%")],
)
def test_both_splits_are_named_with_their_last_value(plot, unit, last):
    axes = plot(Line("train", [1, 2], [10, 20]), Line("held-out", [1, 2], [30, 40])).axes[0]
    assert axes.get_legend().get_texts()[1].get_text() == f"held-out, last {last}"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", unit)
    assert [list(line.get_ydata()) for line in axes.get_lines()] == [[10, 20], [30, 40]]


def test_one_epoch_far_above_the_others_leaves_the_picture_of_losses():
    train, valid = [2, 1], [50, 1]
    assert highest_shown_loss(train, valid) == 3
    assert highest_shown_loss(train, [2.5, 1]) == 2.5
    axes = plot_loss(Line("train", [1, 2], train), Line("test", [1, 2], valid)).axes[0]
    assert axes.get_ylim()[1] == 3


def test_the_schedule_says_where_its_peak_is():
    axes = plot_schedule([0, 0.5, 1, 1.5], [0.1, 0.2, 0.3, 0.2]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.3 at epoch 1"]
    assert axes.get_ylim()[0] == 0


def test_a_figure_is_shown_at_a_prompt_and_held_by_nobody_else():
    code = (
        "import matplotlib; matplotlib.use('template')\n"  # a backend with windows, but no screen
        "import matplotlib.pyplot as plt\n"
        "from s11_fastai.plots import plot_clr\n"
        "figure = plot_clr(0.1, 0.2, 5, 1)\n"
        "figure.show(); figure.show()\n"
        "assert figure.canvas.manager.canvas.figure is figure\n"
        "assert not plt.get_fignums()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def test_samples_stand_in_rows_with_the_names_of_their_classes():
    samples = plot_samples(np.zeros((9, 32, 32, 3), np.uint8), np.arange(9) % 3, ["a", "b", "$c"])
    assert [axes.get_ylabel() for axes in samples.axes[::5]] == ["a", "b", r"\$c"]


def test_pictures_open_and_are_large_enough_for_half_size(finished):
    for path in (finished[0] / "figures").iterdir():
        assert min(Image.open(path).size) >= 250, path.name
