import numpy as np
from PIL import Image

from s11_fastai.plots import plot_history, plot_lr_find, plot_samples


def test_pictures_say_what_they_show():
    curve = plot_lr_find([1e-3, 1e-2, 0.1, 1], [3, 2, 2.5, 9], 2e-3, 0.05).axes[0]
    assert [t.get_text() for t in curve.get_legend().get_texts()] == [
        "LRMIN = 0.002",
        "LRMAX = 0.05",
    ]
    assert [line.get_xdata()[0] for line in curve.get_lines()[1:]] == [2e-3, 0.05]
    for quantity, unit in (("loss", "loss, nats"), ("accuracy", "accuracy, %")):
        axes = plot_history([0.1, 0.2], [0.3, 0.4], "held-out", quantity).axes[0]
        assert axes.get_legend().get_texts()[1].get_text().startswith("held-out")
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", unit)
    samples = plot_samples(np.zeros((9, 32, 32, 3), np.uint8), np.arange(9) % 3, ["a", "b", "$c"])
    assert [axes.get_ylabel() for axes in samples.axes[::5]] == ["a", "b", r"\$c"]


def test_pictures_open_and_are_large_enough_for_half_size(finished):
    for path in (finished[0] / "figures").iterdir():
        assert min(Image.open(path).size) >= 250, path.name
