"""The page of runs beside each other: their curves, results and settings, made into one file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from matplotlib.ticker import MaxNLocator

from s11_fastai.errors import S11Error
from s11_fastai.plots.curves import ACCURACY, LOSS, SCHEDULE, ComparedRuns, Line, Names
from s11_fastai.report import facts
from s11_fastai.report.curves import (
    ERROR,
    NATS,
    OF_EPOCH,
    PERCENT,
    RATE,
    WITHIN_EPOCH,
    Curve,
    kept_places,
)
from s11_fastai.report.groups import (
    Group,
    common_epochs,
    differing_settings,
    epochs_of,
    images_of,
    measurements,
    names_of,
)
from s11_fastai.report.templating import template
from s11_fastai.runs.records import Records
from s11_fastai.storage import Folder
from s11_fastai.streams import one_line

# Numbers in the data of one picture: with ten letters each, four pictures fit into 4 MB.
_MOST_NUMBERS = 60_000
# As many colours, and as many kinds of dashes, as `comparison.css` has.
_COLOURS = 10

# x and, of shape (runs, points), y of each group that has any, by its key.
Values = Mapping[str, tuple[np.ndarray, np.ndarray]]


class Strip(NamedTuple):
    """The last accuracies of a group on one line: the places, from 0 to 100, of a point for each
    run, of their mean and, of several, of one standard deviation below and above; and in words."""

    points: list[float]
    mean: float
    reach: list[float]
    words: str


class RunRow(NamedTuple):
    """What the page says of one run; `page` is the address of the run's own, where there is one."""

    key: str
    name: str
    page: str | None
    seed: int
    results: list[str]


def write_comparison(path: Path, groups: Sequence[Group]) -> Path:
    """Write the page of groups of runs; where it is. Raises OSError, and as `compared`.

    It links to the pages of the runs, where they have one, from where it lies itself.
    """
    curves = curves_of_groups(groups)
    runs = [run for group in groups for run in group.runs]
    strips, ticks = strips_of(groups)
    page = template("comparison.html").render(
        groups=groups,
        kinds={group.key: kind_of(i, group) for i, group in enumerate(groups)},
        charts={name: (curve, curve.as_json()) for name, curve in curves.items() if curve},
        left_out=[name for name, curve in curves.items() if not curve],
        epochs=max(run.settings.epochs for run in runs),
        latest=max(len(run.history) for run in runs),
        reference=None,
        strips=strips,
        ticks=ticks,
        results={group.key: [epochs_of(group.runs), *measurements(group.runs)] for group in groups},
        runs=_run_rows(groups, path),
        images=images_of(groups)[0],
        settings=_settings(groups),
        last_change=max(map(facts.last_change, runs)),
    )
    return Folder(path.parent).write(path.name, page)


def compared(groups: Sequence[Group]) -> dict[str, ComparedRuns]:
    """Accuracies and losses of the groups by key, for as many epochs as all runs of one have.

    A run of which no epoch is over does not count; raises S11Error where that is so of all.
    """
    found = {}
    for group in groups:
        if rows := common_epochs(group.runs):
            right = [[row.valid_accuracy for row in history] for history in rows]
            losses = [[row.valid_loss for row in history] for history in rows]
            own = ComparedRuns(group.label, 100 * np.asarray(right), np.asarray(losses))
            found[group.key] = own
    if not found:
        raise S11Error("no epoch of these runs is over: there is no curve to draw")
    return found


def curves_of_groups(groups: Sequence[Group]) -> dict[str, Curve | None]:
    """The curves of the page, a line for each group; None where no group has a finite value.

    Learning rates are among them where the groups differ in them. Raises as `compared`.
    """
    found = compared(groups)
    epochs = {key: np.arange(1, runs.losses.shape[1] + 1) for key, runs in found.items()}
    right = {key: (epochs[key], runs.accuracies) for key, runs in found.items()}
    wrong = {key: (x, 100 - y) for key, (x, y) in right.items()}
    losses = {key: (epochs[key], runs.losses) for key, runs in found.items()}
    last = max(group.runs[0].settings.epochs for group in groups)
    of_epochs: dict[str, Any] = {"x_text": OF_EPOCH, "x_range": (1, last)}
    percent, nats = {"y_text": PERCENT, **of_epochs}, {"y_text": NATS, **of_epochs}
    curves = {
        "accuracy": _curve(groups, ACCURACY, right, **percent),
        "error": _curve(groups, ERROR, wrong, log_y=True, **percent),
        "loss": _curve(groups, LOSS, losses, other_losses(groups), log_y=True, **nats),
    }
    rates = {group.key: values for group in groups if (values := _rates(group))}
    if len(rates) == 1 or len({y.mean(axis=0).tobytes() for _, y in rates.values()}) > 1:
        of_steps: dict[str, Any] = {"x_text": WITHIN_EPOCH, "y_text": RATE, "x_range": (0, last)}
        curves["schedule"] = _curve(groups, SCHEDULE, rates, log_y=False, **of_steps)
    return curves


def kind_of(i: int, group: Group) -> str:
    """The CSS classes of the lines of the `i`th group: a colour, and dashes that go with it.

    After ten groups the colours come again, with other dashes.
    """
    return f"group c{i % _COLOURS} d{(i + i // _COLOURS) % _COLOURS} {group.key}"


def strips_of(groups: Sequence[Group]) -> tuple[dict[str, Strip], list[tuple[str, float]]]:
    """The accuracies of each group that has any, by its key, after the last epoch that all its runs
    have, and the ticks of their common axis: words and place."""
    finals = {
        group.key: [100 * rows[-1].valid_accuracy for rows in common_epochs(group.runs)]
        for group in groups
    }
    words = {group.key: measurements(group.runs)[0] for group in groups}
    spans = {key: _mean_and_reach(own) for key, own in finals.items() if own}
    shown = [value for key, span in spans.items() for value in (*span, *finals[key])]
    room = 0.06 * (max(shown) - min(shown)) or 1.0
    low, high = min(shown) - room, max(shown) + room

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    strips = {}
    for key, (mean, *reach) in spans.items():
        points = [place(value) for value in finals[key]]
        strips[key] = Strip(points, place(mean), [place(value) for value in reach], words[key])
    ticks = [value for value in MaxNLocator(4).tick_values(low, high) if low <= value <= high]
    return strips, [(f"{value:g}", place(value)) for value in ticks]


def _mean_and_reach(values: Sequence[float]) -> list[float]:
    """The mean; of several values also what is one standard deviation below and above it."""
    mean = fmean(values)
    if len(values) == 1:
        return [mean]
    return [mean, mean - stdev(values), mean + stdev(values)]


def other_losses(groups: Sequence[Group]) -> str:
    """Why losses are not to be compared, where they are not."""
    kinds = {group.runs[0].settings.label_smoothing for group in groups}
    return "Losses with different label smoothing are not to be compared." if len(kinds) > 1 else ""


def _curve(
    groups: Sequence[Group], names: Names, values: Values, note: str = "", **more: Any
) -> Curve | None:
    """A line for each group that has a finite value, of more points than a page can hold every so
    many."""
    numbers = sum(len(x) * (3 + len(y)) for x, y in values.values())
    every = -(-numbers // _MOST_NUMBERS)
    lines, cut = {}, []
    for i, group in enumerate(groups):
        if group.key not in values:
            continue
        x, y = values[group.key]
        part = _longest_stretch(np.isfinite(y.mean(axis=0)))
        if len(x[part]) < len(x):
            cut.append(group.key)
        if len(x[part]):
            lines[kind_of(i, group)] = _line(group, x[part], y[:, part], every)
    if cut:
        left = f"Not every value of {', '.join(cut)} is finite: the longest stretch that is so is"
        note = f"{note} {left} drawn.".lstrip()
    return Curve(names, lines, note=note, legend="groups", **more) if lines else None


def _longest_stretch(is_so: np.ndarray) -> slice:
    """Where the most neighbours are so; nowhere if none is."""
    edges = np.flatnonzero(np.diff(np.r_[False, is_so, False]))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts)) if len(starts) else None
    return slice(0, 0) if longest is None else slice(starts[longest], ends[longest])


def _line(group: Group, x: np.ndarray, y: np.ndarray, every: int) -> Line:
    """The mean of the runs, y of shape (runs, points), and the runs where there are several."""
    mean = y.mean(axis=0)
    kept = kept_places(mean.tolist(), every)
    runs = y[:, kept].tolist() if len(y) > 1 else ()
    return Line(group.key, x[kept].tolist(), mean[kept].tolist(), one_line(group.name), runs)


def _rates(group: Group) -> tuple[np.ndarray, np.ndarray] | None:
    """The epochs at which the steps of a group's runs begin, and the lr of each, (runs, steps)."""
    runs = [run for run in group.runs if run.history and run.steps]
    if not runs:
        return None
    length = min(len(run.steps) for run in runs)
    lrs = np.asarray([[step.lr for step in run.steps[:length]] for run in runs])
    return np.arange(length) * len(runs[0].history) / len(runs[0].steps), lrs


def _run_rows(groups: Sequence[Group], page: Path) -> list[RunRow]:
    both = [(group, run) for group in groups for run in group.runs]
    names = names_of([run.path for _, run in both])
    return [
        RunRow(
            group.key,
            name,
            _address(run.path / "report.html", page.parent),
            run.settings.seed,
            [_epochs(run), *measurements([run])],
        )
        for (group, run), name in zip(both, names, strict=True)
    ]


def _epochs(run: Records) -> str:
    return epochs_of([run]) + (", diverged" if facts.state_of(run) == "diverged" else "")


def _settings(groups: Sequence[Group]) -> dict[str, list[str]]:
    """What differs between the groups: the images and the settings."""
    images = images_of(groups)
    return ({"images": images} if len(set(images)) > 1 else {}) | differing_settings(groups)


def _address(file: Path, folder: Path) -> str | None:
    """The address of a file on a page in the folder; None where there is no such file."""
    try:
        relative = os.path.relpath(file, folder)
    except ValueError:  # on Windows, from another drive
        return None
    return quote(os.fsencode(Path(relative).as_posix())) if file.is_file() else None
