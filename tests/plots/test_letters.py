import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from helpers import misplaced_texts, said
from matplotlib.font_manager import fontManager

from s11_fastai.plots import letters, plot_misclassified
from s11_fastai.plots.letters import families, fitted, inches, plain

CAT, DOG = "\u732b", "\u72ac"


@pytest.fixture
def no_other_fonts(monkeypatch):
    """A computer with matplotlib's own fonts alone, that has said nothing yet."""
    own = [entry for entry in fontManager.ttflist if "DejaVu" in entry.name]
    monkeypatch.setattr(fontManager, "ttflist", own)
    caches = letters._others, letters._letters_by_family, letters._say_once, fitted
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def a_font_of(letter: str, path) -> None:
    """A font of one letter, a black box."""
    pen = TTGlyphPen(None)
    for i, point in enumerate([(0, 0), (0, 900), (900, 900), (900, 0)]):
        (pen.lineTo if i else pen.moveTo)(point)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "box"])
    font.setupCharacterMap({ord(letter): "box"})
    font.setupGlyf({".notdef": pen.glyph(), "box": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "box": (1000, 0)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "One Letter", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)


def one_mistake(names: list[str]):
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    return plot_misclassified(pixels, said(2, 2, 1).take(np.arange(1)), names, "test", 1)


@pytest.mark.parametrize("name", ["$x$", "a$b", "$", "$$", r"\$a$"])
def test_dollars_are_no_formulas(name):
    figure = one_mistake([name, "dog"])
    figure.canvas.draw()  # raises where it is one that cannot be read
    (caption,) = figure.axes[0].texts
    shown, is_formula = caption._preprocess_math(caption.get_text().split("\n")[1])
    assert (shown, is_formula) == (f"is {name} (0%)", False)


@pytest.mark.parametrize("room", [0.3, 1.0, 2.0])
def test_a_long_name_is_cut_to_its_room_and_keeps_both_ends(room):
    name = "a_name_of_a_class_of_forty_five_letters_no_07"
    text = fitted(name, room, 11)
    assert inches(text, 11) <= room
    assert inches(name, 11) > 2
    assert "\N{HORIZONTAL ELLIPSIS}" in text
    assert text[0] == "a"
    assert room < 1 or text.endswith("07")
    assert fitted("cat", room, 11) == "cat"
    assert fitted("cat$", 1, 11) == plain("cat$") == r"cat\$"


def test_letters_that_no_font_has_are_said_once(no_other_fonts):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            figure = one_mistake([CAT, DOG])
            figure.canvas.draw()
    assert len(caught) == 1
    assert "no font on this computer has" in str(caught[0].message)


def test_a_font_that_has_the_letters_is_found_and_used(no_other_fonts, tmp_path):
    a_font_of(CAT, tmp_path / "one.ttf")
    fontManager.addfont(tmp_path / "one.ttf")
    assert families("cat") == families("$\xe9") != families(CAT)
    assert families(CAT)[-1] == "One Letter"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = one_mistake([CAT, "dog"])
        assert misplaced_texts(figure) == []
        figure.canvas.draw()
    assert "One Letter" in figure.axes[0].texts[0].get_fontfamily()
