"""The page's curves: numbers in, coordinates and labels out; the template draws them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.ticker import LogLocator, MaxNLocator

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 16, 14, 50
_MOST_POINTS = 400


@dataclass(frozen=True)
class Series:
    """One line: its name, its CSS class, and its values in the axes' units."""

    name: str
    kind: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """A set of lines over one x axis, placed in a box of WIDTH by HEIGHT.

    `x_ticks` and `y_ticks` are (place, label); `lines` have points, an SVG attribute, and for the
    pointer `at`, each point's x, y and label; `marks` are vertical lines (place, label).
    """

    key: str
    title: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[dict]
    marks: list[tuple[float, str]]

    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM


def chart(
    key: str,
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    x_text: Callable[[float], str] = "{:g}".format,
    y_text: Callable[[float], str] = "{:.3g}".format,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> Chart:
    """Place the series; `x_text` and `y_text` say a value as the pointer shows it."""
    series = [_thinned(s) for s in series]
    xs = [x for s in series for x in s.x] + [x for x, _ in marks]
    first, last = x_range or (min(xs), max(xs))
    ys = [y for s in series for y in s.y]
    low, high = y_range or (min(ys), max(ys))
    if low == high:
        low, high = low - 0.5, high + 0.5
    to_x = _scale(first, last, _LEFT, WIDTH - _RIGHT, log=log_x)
    to_y = _scale(low, high, HEIGHT - _BOTTOM, _TOP)
    x_locator = LogLocator(numticks=8) if log_x else MaxNLocator(8, integer=x_label == "epoch")
    return Chart(
        key,
        title,
        x_label,
        y_label,
        [(to_x(x), f"{x:g}") for x in x_locator.tick_values(first, last) if first <= x <= last],
        [(to_y(y), f"{y:g}") for y in MaxNLocator(5).tick_values(low, high) if low <= y <= high],
        [
            {
                "name": s.name,
                "kind": s.kind,
                "points": " ".join(f"{to_x(x)},{to_y(y)}" for x, y in zip(s.x, s.y, strict=True)),
                "at": [
                    [to_x(x), to_y(y), x_text(x), y_text(y)] for x, y in zip(s.x, s.y, strict=True)
                ],
            }
            for s in series
        ],
        [(to_x(x), label) for x, label in marks],
    )


def _scale(low: float, high: float, start: float, end: float, log: bool = False) -> Callable:
    """Values to places, to a tenth of a pixel; what lies outside of the range, lies outside."""
    change = math.log if log else float
    low, high = change(low), change(high)
    span = high - low or 1.0

    def place(value: float) -> float:
        return round(start + (change(value) - low) / span * (end - start), 1)

    return place


def _thinned(series: Series) -> Series:
    """At most about 400 points, the first, the last and the highest among them."""
    n = len(series.x)
    step = -(-n // _MOST_POINTS)
    if step <= 1:
        return series
    peak = max(range(n), key=series.y.__getitem__)
    kept = sorted({*range(0, n, step), n - 1, peak})
    return Series(
        series.name, series.kind, [series.x[i] for i in kept], [series.y[i] for i in kept]
    )
