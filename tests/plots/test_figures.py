"""The pictures of predictions at their edges: none wrong, one wrong, many classes, odd names."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from s11_fastai import plots
from s11_fastai.interpret import Predictions, calibration, confusion, precision_and_recall


def said(n: int, n_classes: int, wrong: int) -> Predictions:
    """Sure predictions of n images, of which the first few are wrong."""
    labels = np.arange(n) % n_classes
    guesses = np.where(np.arange(n) < wrong, (labels + 1) % n_classes, labels)
    outputs = np.full((n, n_classes), -20.0, np.float32)
    outputs[np.arange(n), guesses] = -1e-6
    return Predictions(outputs, labels)


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_few_or_no_mistakes_are_drawn_and_said_plainly(wrong):
    found, pixels = said(9, 3, wrong), np.zeros((9, 32, 32, 3), np.uint8)
    few, names = found.take(np.arange(wrong)), ["a$b", "b", "c" * 60]
    figure = plots.plot_misclassified(pixels[:wrong], few, names, "held-out", wrong)
    title = figure.texts[0].get_text()
    assert "held-out" in title
    assert title.startswith({0: "No", 1: "The", 3: "All 3"}[wrong])
    assert len(figure.axes) == {0: 0, 1: 1, 3: 3}[wrong]
    maps = np.zeros((wrong, 4, 4))
    cams = [
        plots.plot_grad_cam(pixels[:wrong], maps, maps, few, names, "layer3"),
        plots.plot_grad_cam_layers(pixels[:wrong], {"prep": maps}, few, names),
        plots.plot_confused_pairs([], [], names, "held-out"),
    ]
    for each in [figure, *cams]:
        each.canvas.draw()


def test_captions_name_the_predicted_and_the_actual_class():
    found, pixels = said(9, 3, 2), np.zeros((9, 32, 32, 3), np.uint8)
    figure = plots.plot_misclassified(pixels[:2], found.take(np.arange(2)), "xyz", "test", 2)
    assert [axes.get_title() for axes in figure.axes] == [
        "y (100%)\nactually x (0%)",
        "z (100%)\nactually y (0%)",
    ]
    figure = plots.plot_top_losses(pixels[:2], found.take(np.arange(2)), "xyz", "test")
    assert figure.axes[0].get_title() == "loss 20.00\ny (100%)\nactually x"
    maps = np.ones((2, 4, 4))
    figure = plots.plot_grad_cam(pixels[:2], maps, maps, found.take(np.arange(2)), "xyz", "layer3")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["image", "y", "is x", "image", "z", "is y"]
    assert "layer3, on logits" in figure.texts[0].get_text()


@pytest.mark.parametrize("n_classes", [2, 30, 120])
def test_any_number_of_classes_can_be_drawn(n_classes):
    found = said(3 * n_classes, n_classes, 5)
    names = [f"class {i}" for i in range(n_classes)]
    counts = confusion(found)
    figures = [
        plots.plot_confusion(counts, names, "test"),
        plots.plot_per_class(*precision_and_recall(counts), names, "test"),
        plots.plot_calibration(calibration(found), "test"),
    ]
    for figure in figures:
        figure.canvas.draw()
        assert max(figure.get_size_inches() * figure.dpi) < 10_000


def test_a_class_that_nobody_is_taken_for_is_drawn():
    counts = np.array([[5, 0], [3, 0]])
    plots.plot_per_class(*precision_and_recall(counts), ["a", "b"], "test").canvas.draw()


@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
def test_a_map_covers_its_image_whatever_its_size(size):
    found, pixels = said(3, 3, 1).take(np.arange(1)), np.zeros((1, *size, 3), np.uint8)
    maps = np.ones((1, 4, 4))
    for figure in (
        plots.plot_grad_cam(pixels, maps, maps, found, "xyz", "layer3"),
        plots.plot_grad_cam_layers(pixels, {"prep": maps}, found, "xyz"),
    ):
        image, heat = figure.axes[1].images
        assert tuple(heat.get_extent()) == tuple(image.get_extent())


@pytest.mark.parametrize("letters", [1, 14, 30, 45, 200])
def test_a_long_name_leaves_room_for_the_samples(letters):
    labels = np.repeat(np.arange(3), 5)
    figure = plots.plot_samples(np.zeros((15, 32, 32, 3), np.uint8), labels, ["W" * letters] * 3)
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes[::5]:
        assert axes.yaxis.label.get_window_extent().x0 >= 0
        assert axes.get_window_extent().width > 60
