"""The records of a run folder, read back: whatever state the run is in."""

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

from s11_fastai.callbacks.recording import EpochRow, StepRow, best_of
from s11_fastai.errors import S11Error
from s11_fastai.lr_bounds import LRBounds
from s11_fastai.runs.schema import (
    BOUNDS,
    CHECKPOINT,
    ENV,
    FIT,
    HISTORY,
    MAX_TABLE,
    RESULTS,
    STEPS,
    check_fields,
    check_kinds,
    damaged,
    read_json,
    read_whole,
    shown,
)
from s11_fastai.runs.settings import Settings, holds_run, read_config


@dataclass(frozen=True)
class Records:
    """What a run folder says: the run's settings and environment, and what came of it so far.

    `history` and `steps` hold the epochs that are over; `results` is None until the run is.
    """

    path: Path
    settings: Settings
    env: dict
    bounds: LRBounds | None
    history: list[EpochRow]
    steps: list[StepRow]
    results: dict | None

    @property
    def config(self) -> dict:
        """The settings as plain values."""
        return self.settings.as_dict()

    @property
    def data(self) -> str:
        """What the images are called."""
        return self.env.get("data") or (self.results or {}).get("data") or "images"

    @property
    def evaluated_on(self) -> str:
        return "held-out" if self.settings.holdout else "test"

    @property
    def best(self) -> EpochRow | None:
        return best_of(self.history)

    @property
    def is_cifar10(self) -> bool:
        """Whether the images are CIFAR-10's, in whatever copy that is known."""
        return self.data.split(",")[0] == "CIFAR-10"

    @property
    def throughput(self) -> float | None:
        """Training images a second over all epochs, with the time that evaluation took."""
        seconds = sum(row.seconds for row in self.history)
        images = self.env.get("train_images")
        return images * len(self.history) / seconds if images and seconds else None


def check_holds_run(path: Path) -> None:
    """Raise S11Error for a folder that holds no run."""
    if not holds_run(path):
        raise S11Error(f"{path} holds no run: give a folder that experiments/run.py has made")


def read_records(path: Path) -> Records:
    """The records in a run folder, whatever state the run is in: what is not there yet is no error.

    Raises S11Error, naming the file and the field, where something else stands in a record than
    `schema` says, and for a folder that holds no run.
    """
    check_holds_run(path)
    settings, env = read_config(path), read_json(path / "env.json", ENV, required=False) or {}
    results = _results(path)
    # In the other order than they are written, by a run that may go on.
    steps, history = from_csv(StepRow, path / "steps.csv"), from_csv(EpochRow, path / "history.csv")
    epochs = _whole_epochs(path, settings, env, results, len(history), len(steps))
    return Records(
        path=path,
        settings=settings,
        env=env,
        bounds=_bounds(path),
        history=history[:epochs],
        steps=steps,
        results=results,
    )


# A run that goes on from its checkpoint writes its records again: damaged ones count as none there.


def results_or_none(path: Path) -> dict | None:
    """The results of the run in a folder; None where it has not come to its end or is damaged."""
    with suppress(OSError, S11Error):
        return _results(path)
    return None


def bounds_or_none(path: Path) -> LRBounds | None:
    """The bounds of the run in a folder; None where they are not there yet or are damaged."""
    with suppress(OSError, S11Error):
        return _bounds(path)
    return None


def env_or_empty(path: Path) -> dict:
    """The environment of the run in a folder; nothing of it where it is missing or damaged."""
    with suppress(OSError, S11Error):
        return read_json(path / "env.json", ENV, required=False) or {}
    return {}


def _results(path: Path) -> dict | None:
    return read_json(path / "results.json", RESULTS)


def _bounds(path: Path) -> LRBounds | None:
    file = path / "lr_bounds.json"
    found = read_json(file, BOUNDS)
    try:
        return None if found is None else parse_bounds(found)
    except ValueError as error:
        raise damaged(file, str(error)) from error


def parse_bounds(values: object) -> LRBounds:
    """The bounds that such values describe; raises ValueError where they describe none."""
    check_fields(values, BOUNDS)
    fields = cast(dict, values)
    lrs, losses = (tuple(map(float, fields[name])) for name in ("lrs", "losses"))
    bounds = LRBounds(float(fields["lr_min"]), float(fields["lr_max"]), lrs, losses)
    if bounds.lr_min >= bounds.lr_max:
        raise ValueError("'lr_min' must be below 'lr_max'")
    if len(lrs) != len(losses) or len(lrs) == 1:
        raise ValueError("'lrs' and 'losses' must be of one length, and not of 1")
    if any(low >= high for low, high in pairwise(lrs)):
        raise ValueError("'lrs' must grow")
    return bounds


def check_state(state: Mapping[str, Any]) -> None:
    """Raise ValueError where what a checkpoint holds is not the state of a run."""
    check_kinds(state, CHECKPOINT)
    check_kinds(state["learner"], FIT)
    check_fields(state["env"], ENV, required=False)
    parse_bounds(state["bounds"])


def _whole_epochs(
    path: Path, settings: Settings, env: dict, results: dict | None, epochs: int, steps: int
) -> int:
    """How many epochs both tables have, whose rows are given.

    A stop may have come between the two files of an epoch. A finished run may be published without
    its steps. Raises S11Error where the tables do not belong together.
    """
    planned, finished = settings.epochs, results is not None
    if results and results["best_epoch"] > planned:
        raise damaged(path / "results.json", f"'best_epoch' is not among {planned:,} epochs")
    if epochs > planned or (finished and epochs not in (0, planned)):
        raise damaged(path / "history.csv", f"it has {epochs:,} of {planned:,} epochs")
    if not steps:
        return epochs if finished else 0
    images = env.get("train_images")  # which the first versions did not note
    per_epoch = -(-images // settings.bs) if images else max(steps // max(epochs, 1), 1)
    both, rest = divmod(steps, per_epoch)
    if rest or not 0 <= epochs - both <= (0 if finished else 1):
        raise damaged(path / "steps.csv", f"{steps:,} steps are not those of {epochs:,} epochs")
    return both


Row = TypeVar("Row", EpochRow, StepRow)
_COLUMNS = {EpochRow: HISTORY, StepRow: STEPS}


def to_csv(kind: type[Row], rows: Sequence[Row]) -> str:
    """A header and the rows, with every digit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(kind._fields)
    writer.writerows(rows)
    return text.getvalue()


def from_csv(kind: type[Row], path: Path) -> list[Row]:
    """The rows in a file, none where there is no file; raises S11Error where it is damaged."""
    try:
        content = read_whole(path, MAX_TABLE)
        return [] if content is None else _rows(kind, content)
    except (ValueError, csv.Error) as error:
        raise damaged(path, str(error)) from error


def _rows(kind: type[Row], content: str) -> list[Row]:
    header, *lines = csv.reader(io.StringIO(content)) if content else [[]]
    if tuple(header) != kind._fields:
        raise ValueError(f"its header is {shown(header)}")
    if not content.endswith("\n"):
        raise ValueError("its last row is cut short")
    rows = [_row(kind, line) for line in lines]
    first = 0 if kind is StepRow else 1
    for i, row in enumerate(rows, first):
        if row[0] != i:
            raise ValueError(f"{kind._fields[0]} {row[0]:,} stands where {i:,} should")
    return rows


def _row(kind: type[Row], line: list[str]) -> Row:
    columns = _COLUMNS[kind]
    if len(line) != len(columns):
        raise ValueError(f"a row has {len(line):,} values and not {len(columns)}")
    try:
        row = kind(int(line[0]), *map(float, line[1:]))
    except ValueError:
        raise ValueError(f"a row is {shown(line)}, not numbers") from None
    for value, (name, check) in zip(row, columns.items(), strict=True):
        if not check.holds(value):
            raise ValueError(f"{name!r} must be {check.words}, not {shown(value)}")
    return row
