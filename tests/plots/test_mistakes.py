"""The pictures of mistakes: none, one, few, many; few and many classes, names of all kinds."""

import numpy as np
import pytest
from helpers import misplaced_texts, said

from s11_fastai import plots

LONG = [f"a_name_of_a_class_of_forty_five_letters_no_{i:02d}" for i in range(100)]


def pictures(wrong: int, names: list[str], n: int = 60, size: tuple[int, int] = (32, 32)) -> dict:
    """Every picture of mistakes, of the first up to 25 of those that are wrong."""
    found, pixels = said(n, len(names), wrong), np.zeros((n, *size, 3), np.uint8)
    few = found.take(np.arange(min(wrong, 25)))
    shown, marks = pixels[: len(few.labels)], np.array([f"#{i}" for i in range(len(few.labels))])
    maps = np.ones((len(shown), 4, 4))
    pairs = [(i, (i + 1) % len(names), 5) for i in range(min(wrong, 8, len(names)))]
    return {
        "misclassified": plots.plot_misclassified(shown, few, names, "held-out", wrong, marks),
        "top_losses": plots.plot_top_losses(
            pixels[:25], found.take(np.arange(25)), names, "test", [f"#{i}" for i in range(25)]
        ),
        "grad_cam": plots.plot_grad_cam(shown, maps, maps, few, names, "layer3", marks),
        "layers": plots.plot_grad_cam_layers(shown[:5], {"prep": maps}, few, names, marks)
        if wrong < 6
        else None,
        "pairs": plots.plot_confused_pairs(
            pairs,
            [pixels[: 1 if wrong < 6 else 5]] * len(pairs),
            names,
            "test",
            [marks] * len(pairs),
        ),
    }


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def title(figure) -> str:
    return figure.texts[0].get_text()


@pytest.mark.parametrize(
    ("wrong", "names"),
    [(0, LONG[:2]), (1, ["cat", "dog"]), (1, LONG[:2]), (3, LONG[:10]), (40, LONG)],
)
def test_no_text_lies_on_another_or_leaves_the_picture(wrong, names):
    found = {name: figure for name, figure in pictures(wrong, names).items() if figure}
    assert {name: misplaced_texts(figure) for name, figure in found.items()} == {
        name: [] for name in found
    }


def test_text_on_text_and_outside_is_seen():
    figure = plots.plot_top_losses(np.zeros((1, 8, 8, 3), np.uint8), said(1, 2, 1), "xy", "test")
    figure.text(0.5, 0.5, "a" * 300, ha="center")
    figure.text(0.5, 0.5, "b")
    assert len(misplaced_texts(figure)) == 2


@pytest.mark.parametrize("wrong", [0, 1, 2, 3, 40])
def test_how_many_are_misclassified_is_said_plainly(wrong):
    figure = pictures(wrong, ["a", "b", "c"])["misclassified"]
    assert "held-out" in title(figure)
    expected = {
        0: "No",
        1: "The misclassified",
        2: "Both",
        3: "All 3",
        40: "25 of 40 misclassified",
    }
    assert title(figure).startswith(expected[wrong])
    assert len(figure.axes[0].images if figure.axes else []) == min(wrong, 25)


def test_captions_name_the_predicted_and_the_actual_class_and_the_image():
    pixels, found = np.zeros((2, 32, 32, 3), np.uint8), said(9, 3, 2).take(np.arange(2))
    figure = plots.plot_misclassified(pixels, found, "xyz", "test", 2, ["#7", "cat/0008.png"])
    assert words(figure) == [
        "said y (100%)\nis x (0%)",
        "#7",
        "said z (100%)\nis y (0%)",
        "cat/0008.png",
    ]
    maps = np.ones((2, 4, 4))
    figure = plots.plot_grad_cam(pixels, maps, maps, found, "xyz", "layer3", ["#7", "#8"])
    assert words(figure) == [
        *("#7", "said (100%)\ny", "is (0%)\nx"),
        *("#8", "said (100%)\nz", "is (0%)\ny"),
    ]
    assert "layer3, on logits" in title(figure)
    pairs = [(0, 1, 1200), (1, 2, 1)]
    figure = plots.plot_confused_pairs(pairs, [pixels[:1]] * 2, "xyz", "test", [["#7"], ["#8"]])
    assert words(figure) == ["x\ntaken for y\n1,200 times", "#7", "y\ntaken for z\nonce", "#8"]


def test_a_high_loss_of_a_right_prediction_is_said_to_be_one():
    pixels, found = np.zeros((2, 32, 32, 3), np.uint8), said(3, 3, 1).take(np.arange(2))
    figure = plots.plot_top_losses(pixels, found, "xyz", "test", ["#0", "#1"])
    assert words(figure) == [
        *("loss 20.00\nsaid y (100%)\nis x (0%)", "#0"),
        *("loss 0.00\nright: y (100%)", "#1"),
    ]
    assert (
        title(figure) == "The 2 highest losses of the test images, 1 of them of right predictions"
    )
    none = plots.plot_top_losses(pixels[:0], found.take(np.arange(0)), "xyz", "test")
    assert title(none) == "No test image was evaluated"
    one = [plots.plot_top_losses(pixels[:1], found.take([i]), "xyz", "test") for i in (0, 1)]
    said_of_one = "The highest loss of the test images"
    assert list(map(title, one)) == [said_of_one, f"{said_of_one}, of a right prediction"]


@pytest.mark.parametrize("size", [(32, 32), (48, 24), (24, 48)])
def test_a_map_covers_its_image_whatever_its_size(size):
    found = pictures(1, ["x", "y"], size=size)
    for name, first in (("grad_cam", 1), ("layers", 1)):
        image, heat = found[name].axes[0].images[first : first + 2]
        assert heat.get_extent() == image.get_extent()
        left, right, bottom, top = image.get_extent()
        assert (bottom - top) / (right - left) == pytest.approx(size[0] / size[1])


def test_both_maps_of_an_image_share_one_scale_and_leave_the_image_visible():
    pixels, found = np.zeros((2, 32, 32, 3), np.uint8), said(9, 3, 2).take(np.arange(2))
    hot, warm = np.full((2, 4, 4), 4.0), np.full((2, 4, 4), 1.0)
    hot[0, 0, 0] = 0
    shown = plots.plot_grad_cam(pixels, hot, warm, found, "xyz", "layer3").axes[0].images
    predicted, actual = shown[2], shown[4]
    assert predicted.get_array().max() == 1
    assert (actual.get_array() == 0.25).all()
    assert predicted.get_alpha()[0, 0] == 0  # where there is no heat, the image is bare
    assert predicted.get_alpha().max() == pytest.approx(0.8)
    assert (actual.get_alpha() == 0.2).all()
    nothing = np.zeros((2, 4, 4))
    shown = plots.plot_grad_cam(pixels, nothing, nothing, found, "xyz", "layer3").axes[0].images
    assert (shown[2].get_alpha() == 0).all()


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (5, (1, 5)), (6, (2, 3)), (25, (5, 5))])
def test_rows_of_images_are_as_full_as_can_be(n, shape):
    figure = pictures(n, ["x", "y"])["misclassified"]
    places = [image.get_extent() for image in figure.axes[0].images]
    assert (len({p[3] for p in places}), len({p[0] for p in places})) == shape
