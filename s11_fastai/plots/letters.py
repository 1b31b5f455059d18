"""Letters: names as plain text, how wide they are, cut to fit, and fonts for all scripts."""

import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

from s11_fastai.streams import is_printable

_NO_FONT = (
    "some names have letters that no font on this computer has, and are drawn without them: "
    "install a font that has them, as Noto Sans CJK for Chinese, Japanese and Korean"
)


def plain(name: str) -> str:
    """The name of a class or a run as text: matplotlib would read dollars as formulas."""
    return name.replace("$", r"\$")


def inches(text: str, size: float) -> float:
    """How wide one line of text is at a font size in points."""
    font = FontProperties(family=families(text), size=size)
    with without_glyph_warnings():
        return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


@lru_cache(maxsize=4096)
def fitted(name: str, room: float, size: float) -> str:
    """A name as plain text, at most `room` inches wide: the middle of a longer one is left out.

    Names that begin alike are told apart by their ends.
    """
    if inches(name, size) <= room:
        return plain(name)

    def cut(kept: int) -> str:
        end = kept // 3
        return f"{name[: kept - end]}…{name[len(name) - end :]}"

    kept = bisect_left(range(1, len(name)), True, key=lambda n: inches(cut(n), size) > room)
    return plain(cut(kept))


def families(text: str) -> list[str]:
    """The font families that draw a text: matplotlib's own and, for letters that it lacks, others.

    Where no font has them, a warning says so, once.
    """
    own = list(rcParams["font.family"])
    lacking = frozenset(c for c in text if ord(c) not in _letters_of_own_font() and is_printable(c))
    return [*own, *_others(lacking)] if lacking else own


def give_fonts(figure: Figure) -> None:
    """Let every text of a figure be drawn in fonts that have its letters."""
    for text in texts_of(figure):
        if not text.get_text().isascii():
            text.set_fontfamily(families(text.get_text()))


def texts_of(figure: Figure) -> Iterator[Text]:
    """All texts that a figure shows, empty ones among them."""
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    yield from figure.texts
    for axes in figure.axes:
        yield from (axes.title, *axes.texts)
        if axes.axison:  # else to ask for ticks is to make them, which takes long
            yield from (axes.xaxis.label, axes.yaxis.label)
            yield from (*axes.get_xticklabels(), *axes.get_yticklabels())
    for legend in legends:
        yield from legend.get_texts()


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """No warning for each text that lacks a letter: `families` has said it once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


@lru_cache(maxsize=1)
def _letters_of_own_font() -> frozenset[int]:
    return frozenset(FT2Font(findfont(FontProperties())).get_charmap())


@lru_cache(maxsize=256)
def _others(lacking: frozenset[str]) -> tuple[str, ...]:
    """Families that have these letters, those with the most of them first."""
    wanted, found = {ord(c) for c in lacking}, []
    while wanted:
        name, has = max(
            ((name, wanted & letters) for name, letters in _letters_by_family()),
            key=lambda family: len(family[1]),
            default=("", set()),
        )
        if not has:
            _say_once()
            break
        found.append(name)
        wanted -= has
    return tuple(found)


@lru_cache(maxsize=1)
def _letters_by_family() -> tuple[tuple[str, frozenset[int]], ...]:
    """The letters of each family of fonts; it takes a second where there are hundreds."""
    found = {}
    for entry in fontManager.ttflist:
        if entry.name in found or entry.name.startswith("Last Resort"):  # boxes for all letters
            continue
        try:
            found[entry.name] = frozenset(FT2Font(entry.fname).get_charmap())
        except (OSError, RuntimeError):  # no outlines, as in fonts of coloured emoji
            continue
    return tuple(found.items())


@lru_cache(maxsize=1)
def _say_once() -> None:
    warnings.warn(_NO_FONT, stacklevel=2)
