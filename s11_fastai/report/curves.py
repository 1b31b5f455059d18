"""The curves of a run: their data, for PNG and page alike, and where the page draws it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict

from matplotlib.ticker import LogLocator, MaxNLocator

from s11_fastai.plots.curves import (
    ACCURACY,
    LOSS,
    RANGE_TEST,
    SCHEDULE,
    Line,
    Names,
    highest_shown_loss,
    range_test_limits,
)
from s11_fastai.report import reference_log as reference
from s11_fastai.runs.records import Records

_MOST_POINTS = 400

Range = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One picture of curves as data; the page draws all `lines`, the PNG those of the run alone.

    The key of a line is its CSS class: "train", "valid", or "reference" and another word. `x_text`
    and `y_text` are formats of what the pointer shows. The ranges are those of the axes where they
    do not follow from the lines. `marks` are vertical lines: where each lies, and its label.
    """

    names: Names
    lines: Mapping[str, Line]
    x_text: str
    y_text: str
    x_range: Range | None = None
    y_range: Range | None = None
    log_x: bool = False
    marks: tuple[tuple[float, str], ...] = ()

    @property
    def fault(self) -> str:
        """Why it cannot be drawn: without steps, or with the losses of an epoch that diverged."""
        lines = self.lines.values()
        if not all(len(line.y) for line in lines):
            return "there are no values"
        finite = all(math.isfinite(value) for line in lines for value in (*line.x, *line.y))
        return "" if finite else "a value is NaN or infinite"


def accuracy(records: Records) -> Curve | None:
    """The accuracy after each epoch, in percent; None before the first epoch is over."""
    if not records.history:
        return None
    lines = _both_splits(records, "accuracy", scale=100)
    lines |= _reference(records, "test", reference.TEST_ACCURACY, scale=100)
    lines |= _reference(records, "train", reference.TRAIN_ACCURACY, scale=100)
    return Curve(ACCURACY, lines, "epoch {:.0f}", "{:.2f}%", x_range=(1, records.config["epochs"]))


def loss(records: Records) -> Curve | None:
    """The loss of each epoch, in nats; None before the first epoch is over."""
    if not records.history:
        return None
    lines = _both_splits(records, "loss")
    train, valid = lines["train"].y, lines["valid"].y
    return Curve(
        LOSS,
        lines,
        "epoch {:.0f}",
        "{:.4f}",
        x_range=(1, records.config["epochs"]),
        y_range=(min(*train, *valid), highest_shown_loss(train, valid)),
    )


def schedule(records: Records) -> Curve | None:
    """The learning rate of each step; None before the first epoch is over."""
    if not records.history:
        return None
    lrs = [step.lr for step in records.steps]
    per_epoch = len(lrs) / len(records.history)
    lines = {"valid": Line("lr", [i / per_epoch for i in range(len(lrs))], lrs)}
    lines |= _reference(records, "lr", reference.LR)
    return Curve(
        SCHEDULE,
        lines,
        "epoch {:.2f}",
        "{:.3g}",
        x_range=(0, records.config["epochs"]),
        y_range=(0, max((y for line in lines.values() for y in line.y), default=0)),
    )


def range_test(records: Records) -> Curve | None:
    """The smoothed loss at each learning rate; None where there was no range test."""
    bounds = records.bounds
    if not bounds or not bounds.lrs:
        return None
    return Curve(
        RANGE_TEST,
        {"valid": Line("loss", bounds.lrs, bounds.losses)},
        "lr {:.3g}",
        "{:.4f}",
        y_range=range_test_limits(bounds.losses),
        log_x=True,
        marks=(
            (bounds.lr_min, f"LRMIN {bounds.lr_min:.3g}"),
            (bounds.lr_max, f"LRMAX {bounds.lr_max:.3g}"),
        ),
    )


# In the order of the page, by the names of their files in `figures/`.
CURVES: dict[str, Callable[[Records], Curve | None]] = {
    "accuracy": accuracy,
    "loss": loss,
    "schedule": schedule,
    "lr_find": range_test,
}


def _both_splits(records: Records, quantity: str, scale: float = 1) -> dict[str, Line]:
    epochs = [row.epoch for row in records.history]
    return {
        split: Line(
            name, epochs, [scale * getattr(row, f"{split}_{quantity}") for row in records.history]
        )
        for split, name in (("train", "train"), ("valid", records.evaluated_on))
    }


def _reference(
    records: Records, name: str, log: tuple[float, ...], scale: float = 1
) -> dict[str, Line]:
    """The reference's log for as many epochs as the run has, where the images are the same."""
    if not records.is_cifar10:
        return {}
    values = [scale * value for value in log[: records.config["epochs"]]]
    epochs = range(1, len(values) + 1)
    return {f"reference {name}": Line(f"reference, {name}", epochs, values)}


class PlacedLine(TypedDict):
    """A line on the page: its points as SVG writes them, and for the pointer x, y and the values
    of each point as text."""

    name: str
    kind: str
    points: str
    at: list[tuple[float, float, str, str]]


@dataclass(frozen=True)
class Chart:
    """A Curve in its box on the page: ticks and marks are (place, label)."""

    curve: Curve
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[PlacedLine]
    marks: list[tuple[float, str]]

    width, height = 640, 320
    left, right, top, bottom = 76, 640 - 16, 14, 320 - 50


def place(curve: Curve) -> Chart:
    """Where everything of a curve lies; raises ValueError where it has a `fault`."""
    xs = [x for line in curve.lines.values() for x in line.x] + [x for x, _ in curve.marks]
    ys = [y for line in curve.lines.values() for y in line.y]
    if curve.fault:
        raise ValueError(curve.fault)
    x_range = curve.x_range or (min(xs), max(xs))
    y_range = curve.y_range or (min(ys), max(ys))
    if y_range[0] == y_range[1]:
        y_range = y_range[0] - 0.5, y_range[1] + 0.5
    to_x = _scale(x_range, Chart.left, Chart.right, log=curve.log_x)
    to_y = _scale(y_range, Chart.bottom, Chart.top)
    x_ticks = LogLocator(numticks=8) if curve.log_x else MaxNLocator(8, integer=_in_epochs(curve))
    return Chart(
        curve,
        _ticks(x_ticks, x_range, to_x),
        _ticks(MaxNLocator(5), y_range, to_y),
        [_place_line(kind, line, curve, to_x, to_y) for kind, line in curve.lines.items()],
        [(to_x(x), label) for x, label in curve.marks],
    )


def _in_epochs(curve: Curve) -> bool:
    return curve.names.x == "epoch"


def _ticks(
    locator: LogLocator | MaxNLocator, values: Range, to_place: Callable[[float], float]
) -> list[tuple[float, str]]:
    low, high = values
    return [(to_place(v), f"{v:g}") for v in locator.tick_values(low, high) if low <= v <= high]


def _place_line(kind: str, line: Line, curve: Curve, to_x: Callable, to_y: Callable) -> PlacedLine:
    at = [
        (to_x(x), to_y(y), curve.x_text.format(x), curve.y_text.format(y))
        for x, y in _thinned(line)
    ]
    points = " ".join(f"{x},{y}" for x, y, *_ in at)
    return {"name": line.name, "kind": kind, "points": points, "at": at}


def _scale(values: Range, start: float, end: float, log: bool = False) -> Callable[[float], float]:
    """From a value to its place, to a tenth of a pixel; from outside of the range to outside."""
    change: Callable[[float], float] = math.log if log else float
    low, high = map(change, values)
    span = high - low or 1.0

    def to_place(value: float) -> float:
        return round(start + (change(value) - low) / span * (end - start), 1)

    return to_place


def _thinned(line: Line) -> list[tuple[float, float]]:
    """The points of a line, at most about 400: the first, the last and the highest among them."""
    points = list(zip(line.x, line.y, strict=True))
    step = -(-len(points) // _MOST_POINTS)
    if step <= 1:
        return points
    peak = max(range(len(points)), key=line.y.__getitem__)
    kept = sorted({*range(0, len(points), step), len(points) - 1, peak})
    return [points[i] for i in kept]
