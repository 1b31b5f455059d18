import numpy as np
import pytest
from helpers import misplaced_texts

from s11_fastai.plots import plot_augmented, plot_samples

PIXELS = np.zeros((120, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("n_classes", [2, 10, 60])
@pytest.mark.parametrize("form", ["{}", "a_name_of_a_class_of_forty_five_letters_no_{:02d}"])
def test_samples_of_any_number_of_classes_fit(n_classes, form):
    names, labels = [form.format(i) for i in range(n_classes)], np.arange(120) % n_classes
    figure = plot_samples(PIXELS, labels, names, [f"#{i}" for i in range(120)])
    assert misplaced_texts(figure) == []
    expected = "Training images, the first of each class"
    if n_classes > 20:
        expected = f"Training images of 20 of the {n_classes} classes"
    assert figure.texts[0].get_text() == expected


def test_samples_stand_in_rows_with_the_names_of_their_classes_and_marks():
    figure = plot_samples(
        PIXELS[:5], np.arange(5) % 3, ["a", "b", "$c"], [f"#{i}" for i in range(5)]
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["a", "#0", "#3", "b", "#1", "#4", r"\$c", "#2"]
    assert len(figure.axes[0].images) == 5


def test_the_original_is_marked_and_the_augmented_ones_are_named():
    figure = plot_augmented(PIXELS[0], PIXELS[:16], "pad-crop and Cutout", "#77")
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.texts] == [
        "original",
        *(f"epoch {epoch}" for epoch in range(1, 17)),
    ]
    (frame,) = axes.patches
    left, _, bottom, _ = axes.images[0].get_extent()
    assert (frame.get_x(), frame.get_y() + frame.get_height()) == pytest.approx((left, bottom))
    assert {"#77", "pad-crop"} <= set(figure.texts[0].get_text().split())
    assert misplaced_texts(figure) == []
