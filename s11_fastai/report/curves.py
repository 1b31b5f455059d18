"""The curves of a run as data: the page draws them with `curves.js`, the PNG files in `plots/`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any, NamedTuple

from s11_fastai.lr_bounds import half_of_the_fall
from s11_fastai.plots.curves import (
    ACCURACY,
    LOSS,
    RANGE_TEST,
    SCHEDULE,
    Line,
    Names,
    range_test_end,
    range_test_limits,
)
from s11_fastai.report import reference_log as reference
from s11_fastai.runs.records import Records

_MOST_POINTS = 3000

ERROR = Names("Error of each epoch", "epoch", "error, %")
STEP_LOSS = Names("Training loss of each step", "epoch", "loss, nats")
MOMENTUM = Names("Momentum of each step", "epoch", "momentum")

Range = tuple[float, float]


class Text(NamedTuple):
    """How a value is written: so many `digits` behind the point, or with `significant` digits."""

    before: str = ""
    digits: int = 0
    after: str = ""
    significant: bool = False


OF_EPOCH, WITHIN_EPOCH = Text("epoch "), Text("epoch ", 2)
PERCENT, NATS, RATE = Text("", 2, "%"), Text("", 4), Text("", 3, significant=True)


class Mark(NamedTuple):
    """A straight line across a picture, at a value of the axis "x" or "y", or a "point" at (x, y),
    whose label stands below the picture.

    `kind` is its colour: "bound", "rule", "target" or "best".
    """

    axis: str
    at: float
    label: str
    kind: str
    y: float | None = None


@dataclass(frozen=True)
class Curve:
    """One picture of curves as data.

    The key of a line is its CSS class: "train", "valid", "rate", or "reference" or "group" and
    other words. Ranges are those of the axes where they do not follow from what is shown. `log_y`
    says how the y axis begins, where a person may switch it; None is a linear one for good. With
    `cap`, a linear axis ends at 1.5 times the highest training value, as in `plots/`, and what lies
    beyond stands at its edge. Lines of steps can be smoothed (`smooth`). `note` is what else there
    is to say. Curves of one `legend` switch their lines off and on together.
    """

    names: Names
    lines: Mapping[str, Line]
    x_text: Text
    y_text: Text
    x_range: Range | None = None
    y_range: Range | None = None
    log_x: bool = False
    log_y: bool | None = None
    cap: bool = False
    smooth: bool = False
    marks: tuple[Mark, ...] = ()
    note: str = ""
    legend: str = ""

    @property
    def fault(self) -> str:
        """Why it cannot be drawn: without steps, or with the losses of an epoch that diverged."""
        lines = self.lines.values()
        if not all(len(line.y) for line in lines):
            return "there are no values"
        values = [v for line in lines for part in (line.x, line.y, *line.runs) for v in part]
        values += [v for mark in self.marks for v in (mark.at, mark.y or 0)]
        return "" if all(map(math.isfinite, values)) else "a value is NaN or infinite"

    def as_json(self) -> dict[str, Any]:
        """What `curves.js` reads; raises ValueError where the curve has a `fault`."""
        if self.fault:
            raise ValueError(self.fault)
        return {
            "x": self._axis(self.x_text, self.x_range, self.log_x, self.names.x),
            "y": self._axis(self.y_text, self.y_range, self.log_y, self.names.y),
            "cap": self.cap,
            "smooth": self.smooth,
            "legend": self.legend,
            "lines": [_line(kind, line) for kind, line in self.lines.items()],
            "marks": [mark._asdict() for mark in self.marks],
        }

    @staticmethod
    def _axis(text: Text, values: Range | None, log: bool | None, name: str) -> dict[str, Any]:
        return {"text": text._asdict(), "range": values, "log": bool(log), "name": name}


def _line(kind: str, line: Line) -> dict[str, Any]:
    """A line as `curves.js` reads it; a mean has its runs' values and their standard deviation."""
    data: dict[str, Any] = {
        "kind": kind,
        "name": line.name,
        "x": _short(line.x),
        "y": _short(line.y),
    }
    if line.runs:
        data["runs"] = [_short(values) for values in line.runs]
        data["deviation"] = _short([stdev(values) for values in zip(*line.runs, strict=True)])
    return data


def accuracy(records: Records) -> Curve | None:
    """The accuracy after each epoch, in percent; None before the first epoch is over."""
    if not records.history:
        return None
    lines = _both_splits(records, "accuracy", scale=100)
    lines |= _reference(records, "test", [100 * value for value in reference.TEST_ACCURACY])
    lines |= _reference(records, "train", [100 * value for value in reference.TRAIN_ACCURACY])
    return Curve(
        ACCURACY,
        lines,
        OF_EPOCH,
        PERCENT,
        x_range=_epochs(records, first=1),
        marks=_best_and_target(records, lambda percent: percent),
    )


def error(records: Records) -> Curve | None:
    """The part of the images that are wrong after each epoch, in percent: where nearly all are
    right, it still tells one epoch from the next."""
    if (right := accuracy(records)) is None:
        return None
    lines = {
        kind: line._replace(y=[100 - value for value in line.y])
        for kind, line in right.lines.items()
    }
    return Curve(
        ERROR,
        lines,
        OF_EPOCH,
        PERCENT,
        x_range=right.x_range,
        log_y=True,
        marks=_best_and_target(records, lambda percent: 100 - percent),
    )


def loss(records: Records) -> Curve | None:
    """The loss of each epoch, in nats; None before the first epoch is over."""
    if not records.history:
        return None
    lines = _both_splits(records, "loss")
    return Curve(
        LOSS,
        lines,
        OF_EPOCH,
        NATS,
        x_range=_epochs(records, first=1),
        log_y=True,
        cap=True,
        note=_smoothing(records),
    )


def step_loss(records: Records) -> Curve | None:
    """The loss of each batch, in nats; None before the first epoch is over."""
    if not records.history:
        return None
    line, n = _of_steps(records, "loss", [step.loss for step in records.steps], _means)
    return Curve(
        STEP_LOSS,
        {"train": line},
        WITHIN_EPOCH,
        NATS,
        x_range=_epochs(records),
        log_y=True,
        smooth=True,
        note=" ".join(
            [*([f"Each point is the mean of {n} steps."] if n > 1 else []), _smoothing(records)]
        ).strip(),
    )


def _smoothing(records: Records) -> str:
    """What the losses of a run are not to be compared with, nothing where there is none."""
    part = records.settings.label_smoothing
    return f"With label smoothing {part:g}, as it is trained." if part else ""


def schedule(records: Records) -> Curve | None:
    """The learning rate of each step; None before the first epoch is over."""
    if not records.history:
        return None
    line, _ = _of_steps(records, "lr", [step.lr for step in records.steps], _thinned)
    momenta = {step.momentum for step in records.steps}
    return Curve(
        SCHEDULE,
        {"rate": line} | _reference(records, "lr", reference.LR),
        WITHIN_EPOCH,
        RATE,
        x_range=_epochs(records),
        log_y=False,
        note=f"Momentum is {momenta.pop():g} throughout." if len(momenta) == 1 else "",
    )


def momentum(records: Records) -> Curve | None:
    """The momentum of each step; None where it never changes."""
    momenta = [step.momentum for step in records.steps]
    if not records.history or len(set(momenta)) <= 1:
        return None
    line, _ = _of_steps(records, "momentum", momenta, _thinned)
    return Curve(MOMENTUM, {"rate": line}, WITHIN_EPOCH, RATE, x_range=_epochs(records))


def range_test(records: Records) -> Curve | None:
    """The smoothed loss at each learning rate; None where there was no range test."""
    bounds = records.bounds
    if not bounds or not bounds.lrs:
        return None
    half = half_of_the_fall(bounds.lrs, bounds.losses)
    return Curve(
        RANGE_TEST,
        {"train": Line("loss", bounds.lrs, bounds.losses)},
        Text("lr ", 3, significant=True),
        NATS,
        x_range=(bounds.lrs[0], range_test_end(bounds.lrs, bounds.losses, bounds.lr_max)),
        y_range=range_test_limits(bounds.losses),
        log_x=True,
        marks=(
            Mark("y", half.loss, "half of the fall", "rule"),
            Mark("x", bounds.lr_min, f"LRMIN {bounds.lr_min:.3g}", "bound"),
            Mark("x", bounds.lr_max, f"LRMAX {bounds.lr_max:.3g}", "bound"),
        ),
        # In numbers of this run: its bounds may be given, or found by an older version's rule.
        note=f"The loss has made half of its fall at lr {half.lr:.3g}. LRMAX is "
        f"{bounds.lr_max / half.lr:.3g} times that, and LRMIN is LRMAX / {bounds.ratio:.3g}. "
        f"The test ended at lr {bounds.lrs[-1]:.3g} with a loss of {bounds.losses[-1]:.3g}.",
    )


# In the order of the page. Those that a run has as PNG have the names of their files there.
CURVES: dict[str, Callable[[Records], Curve | None]] = {
    "accuracy": accuracy,
    "error": error,
    "loss": loss,
    "step_loss": step_loss,
    "schedule": schedule,
    "momentum": momentum,
    "lr_find": range_test,
}


def _epochs(records: Records, first: int = 0) -> Range:
    return first, records.settings.epochs


def _both_splits(records: Records, quantity: str, scale: float = 1) -> dict[str, Line]:
    epochs = [row.epoch for row in records.history]
    return {
        split: Line(
            name, epochs, [scale * getattr(row, f"{split}_{quantity}") for row in records.history]
        )
        for split, name in (("train", "train"), ("valid", records.evaluated_on))
    }


def _best_and_target(records: Records, to_y: Callable[[float], float]) -> tuple[Mark, ...]:
    """The best epoch and, on the test images of CIFAR-10, the assignment's target."""
    best = records.best
    assert best is not None
    percent = 100 * best.valid_accuracy
    label = f"best: epoch {best.epoch}, {to_y(percent):.2f}%"
    marks = [Mark("point", best.epoch, label, "best", to_y(percent))]
    if records.is_cifar10 and not records.settings.holdout:
        target = to_y(100 * reference.TARGET)
        marks.append(Mark("y", target, f"target {target:g}%", "target"))
    return tuple(marks)


def _reference(records: Records, name: str, log: Sequence[float]) -> dict[str, Line]:
    """The reference's log, where the images are the same: by epoch where the run has as many, else
    by the part of the run that is over, and then its name says so."""
    if not records.is_cifar10:
        return {}
    own, theirs = records.settings.epochs, len(log)
    epochs = [epoch * own / theirs for epoch in range(1, theirs + 1)]
    where = "" if own == theirs else f", its {theirs} epochs as {own}"
    return {f"reference {name}": Line(f"reference {name}{where}", epochs, log)}


Points = list[tuple[float, float]]


def _of_steps(
    records: Records,
    name: str,
    values: Sequence[float],
    shorten: Callable[[Points, int], Points],
) -> tuple[Line, int]:
    """A line of a value for each step, over the epochs; and of how many steps each point is."""
    per_epoch = len(values) / len(records.history)
    points = [(i / per_epoch, value) for i, value in enumerate(values)]
    n = -(-len(points) // _MOST_POINTS)
    kept = shorten(points, n) if n > 1 else points
    return Line(name, [x for x, _ in kept], [y for _, y in kept]), n


def _means(points: Points, n: int) -> Points:
    """The mean of each `n` neighbours, at the place of the first."""
    groups = [points[i : i + n] for i in range(0, len(points), n)]
    return [(group[0][0], math.fsum(y for _, y in group) / len(group)) for group in groups]


def _thinned(points: Points, n: int) -> Points:
    return [points[i] for i in kept_places([y for _, y in points], n)]


def kept_places(values: Sequence[float], n: int) -> list[int]:
    """Where each `n`th of the values stands, and the first, the last and the highest."""
    highest = max(range(len(values)), key=values.__getitem__)
    return sorted({*range(0, len(values), n), len(values) - 1, highest})


def _short(values: Sequence[float]) -> list[float]:
    """Numbers with the six digits that a picture can show at most."""
    return [float(f"{value:.6g}") for value in values]
