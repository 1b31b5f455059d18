import numpy as np
import pytest
from helpers import misplaced_texts, said

from s11_fastai import plots
from s11_fastai.interpret import Calibration, calibration, confusion, precision_and_recall
from s11_fastai.report import page


@pytest.mark.parametrize("n_classes", [2, 10, 30, 100, 120])
@pytest.mark.parametrize("form", ["{}", "a_name_of_a_class_of_forty_five_letters_no_{:02d}"])
def test_any_number_of_classes_and_any_names_can_be_drawn(n_classes, form):
    found = said(3 * n_classes, n_classes, 5)
    names = [form.format(i) for i in range(n_classes)]
    for figure in (
        plots.plot_confusion(confusion(found), names, "test"),
        plots.plot_per_class(*precision_and_recall(found), names, "test"),
    ):
        assert misplaced_texts(figure) == []
        assert max(figure.get_size_inches() * figure.dpi) < 4_000


def test_a_thousand_classes_are_a_picture_that_the_page_takes(tmp_path):
    n = 1000
    names, counts = [f"class {i}" for i in range(n)], np.eye(n, dtype=int)
    figure = plots.plot_confusion(counts, names, "test")
    assert misplaced_texts(figure) == []
    (tmp_path / "confusion.png").write_bytes(plots.encoded(figure, "confusion.png"))
    assert page._packed(tmp_path / "confusion.png").startswith("data:image/webp")


@pytest.mark.parametrize(("names", "turned"), [(["cat", "dog"], 0), (["cat", "d" * 45], 90)])
def test_names_of_columns_are_turned_only_where_they_do_not_fit(names, turned):
    axes = plots.plot_confusion(np.array([[5, 1], [0, 5]]), names, "test").axes[0]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {turned}


def test_the_confusion_matrix_counts_and_shades_mistakes_on_a_scale_of_their_own():
    counts = np.array([[90, 10, 0], [0, 100, 0], [0, 40, 160]])
    axes = plots.plot_confusion(counts, "abc", "held-out").axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["10", "100", "160", "40", "90"]
    mistakes, right = (image.get_array().filled(-1) for image in axes.images)
    np.testing.assert_array_equal(mistakes, [[-1, 0.1, -1], [-1, -1, -1], [-1, 0.2, -1]])
    np.testing.assert_array_equal(right, [[0.9, -1, -1], [-1, 1, -1], [-1, -1, 0.8]])
    assert axes.images[0].get_clim()[1] == pytest.approx(0.3)


def test_precision_is_not_hidden_under_recall():
    axes = plots.plot_per_class(np.array([0.5, 1.0]), np.array([0.5, 1.0]), "ab", "test").axes[0]
    recall, precision = axes.get_lines()
    assert not set(recall.get_ydata()) & set(precision.get_ydata())


def test_of_many_classes_those_with_the_lowest_recall_are_drawn_the_lowest_on_top():
    recall = np.linspace(1, 0, 100)
    recall[99] = np.nan
    figure = plots.plot_per_class(recall, recall, [f"c{i}" for i in range(100)], "test")
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [f"c{i}" for i in range(98, 73, -1)]
    assert "the 25 of 100 classes with the lowest recall" in axes.get_title()
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_no_percentage_is_below_zero_or_above_a_hundred(value):
    same = np.full(3, value)
    axes = plots.plot_per_class(same, same, "abc", "test").axes[0]
    left, right = axes.get_xlim()
    assert 0 <= left <= 100 * value <= right <= 100
    assert right - left >= 1


def test_a_class_that_nobody_is_taken_for_is_drawn():
    found = said(8, 2, 0)
    found.labels[1] = 0
    found.log_probabilities[:] = found.log_probabilities[0]
    precision, recall = precision_and_recall(found)
    assert np.isnan(precision[1])
    assert misplaced_texts(plots.plot_per_class(precision, recall, ["a", "b"], "test")) == []


def test_bins_of_few_images_are_pale_empty_ones_are_absent_and_zero_is_a_line():
    found = Calibration(
        edges=np.linspace(0, 1, 5),
        confidence=np.array([np.nan, 0.4, 0.6, 0.9]),
        accuracy=np.array([np.nan, 0.0, 1.0, 0.9]),
        count=np.array([0, 2, 30, 9000]),
        error=0.0123,
    )
    figure = plots.plot_calibration(found, "test")
    bars = [bar for bar in figure.axes[0].patches if bar.get_alpha() is not None]
    assert [bar.get_height() for bar in bars] == [0, 100, 90]
    alphas = [bar.get_alpha() for bar in bars]
    assert alphas == sorted(alphas)
    assert alphas[0] < 0.2
    assert alphas[2] == 1
    assert all(bar.get_linewidth() > 0 for bar in bars)  # without an edge, 0% would be invisible
    assert [text.get_text() for text in figure.axes[1].texts] == ["2", "30", "9,000"]
    assert "expected calibration error (ECE) 1.2 points" in figure.texts[0].get_text()
    assert misplaced_texts(figure) == []


@pytest.mark.parametrize("wrong", [0, 1, 30])
def test_calibration_is_drawn_of_any_predictions(wrong):
    figure = plots.plot_calibration(calibration(said(30, 3, wrong)), "test")
    assert misplaced_texts(figure) == []
