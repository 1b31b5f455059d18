"""The page's curves: which there are, and where their lines lie; the template draws them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.ticker import LogLocator, MaxNLocator

from s11_fastai.lr_bounds import LRBounds
from s11_fastai.plots.style import highest_loss
from s11_fastai.report import reference_log as reference
from s11_fastai.runs.records import Records

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


def charts_of(records: Records) -> list[Chart]:
    """Accuracy, loss and lr of the epochs that are over, and the range test where there was one."""
    found = []
    if records.history:
        found += [_accuracy(records), _loss(records), _lr(records)]
    if records.bounds and records.bounds.lrs:
        found.append(_range_test(records.bounds))
    return found


def _accuracy(records: Records) -> Chart:
    return chart(
        "accuracy",
        "Accuracy of each epoch",
        "epoch",
        "accuracy, %",
        _both_parts(records, "accuracy", scale=100)
        + _reference(records, test=reference.TEST_ACCURACY, train=reference.TRAIN_ACCURACY),
        x_text="epoch {:.0f}".format,
        x_range=(1, records.config["epochs"]),
        y_text="{:.2f}%".format,
    )


def _loss(records: Records) -> Chart:
    lines = _both_parts(records, "loss")
    lowest = min(min(line.y) for line in lines)
    return chart(
        "loss",
        "Loss of each epoch",
        "epoch",
        "loss, nats",
        lines,
        x_text="epoch {:.0f}".format,
        x_range=(1, records.config["epochs"]),
        y_text="{:.4f}".format,
        y_range=(lowest, highest_loss(*(line.y for line in lines))),
    )


def _lr(records: Records) -> Chart:
    steps, per_epoch = records.steps, len(records.steps) / len(records.history)
    places = [i / per_epoch for i in range(len(steps))]
    lines = [Series("lr", "valid", places, [step.lr for step in steps])]
    lines += _reference(records, lr=reference.LR)
    return chart(
        "lr",
        "Learning rate of each step",
        "epoch",
        "learning rate",
        lines,
        x_text="epoch {:.2f}".format,
        x_range=(0, records.config["epochs"]),
        y_range=(0, max(max(line.y) for line in lines)),
    )


def _range_test(bounds: LRBounds) -> Chart:
    # The end of the test is a wall; what matters is the valley before it.
    lowest = min(bounds.losses)
    height = max(bounds.losses[: bounds.losses.index(lowest) + 1]) - lowest
    return chart(
        "lr_find",
        "Learning-rate range test",
        "learning rate",
        "training loss, smoothed",
        [Series("loss", "valid", bounds.lrs, bounds.losses)],
        x_text="lr {:.3g}".format,
        y_text="{:.4f}".format,
        y_range=(lowest - 0.1 * height, lowest + 1.4 * height),
        log_x=True,
        marks=[
            (bounds.lr_min, f"LRMIN {bounds.lr_min:.3g}"),
            (bounds.lr_max, f"LRMAX {bounds.lr_max:.3g}"),
        ],
    )


def _both_parts(records: Records, quantity: str, scale: float = 1) -> list[Series]:
    epochs = [row.epoch for row in records.history]
    return [
        Series(
            name, part, epochs, [scale * getattr(r, f"{part}_{quantity}") for r in records.history]
        )
        for name, part in (("train", "train"), (records.evaluated_on, "valid"))
    ]


def _reference(records: Records, **logs: tuple[float, ...]) -> list[Series]:
    """The reference's log as far as the run's plan, where it is of the same images; in percent."""
    if not records.is_cifar10:
        return []
    logs = {name: log[: records.config["epochs"]] for name, log in logs.items()}
    return [
        Series(
            f"reference, {name}",
            f"reference {name}",
            range(1, len(log) + 1),
            [value if name == "lr" else 100 * value for value in log],
        )
        for name, log in logs.items()
    ]
