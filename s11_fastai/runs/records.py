"""The records of a run folder, read back: whatever state the run is in."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from s11_fastai.callbacks.recording import EpochRow, StepRow, best_of
from s11_fastai.errors import S11Error
from s11_fastai.lr_bounds import LRBounds
from s11_fastai.runs.settings import Settings, read_config

# What brings back a file of a run that is missing or damaged.
WAY_BACK = (
    "while the run has a checkpoint, resuming it writes it again; else bring back a copy, or make "
    "the run again in another folder"
)
_RESULTS = {
    "params": int,
    "final_accuracy": float,
    "best_accuracy": float,
    "best_epoch": int,
    "data": str,
    "evaluated_on": str,
}


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


def holds_run(path: Path) -> bool:
    """Whether a run has begun in the folder."""
    return (path / "config.json").exists()


def check_holds_run(path: Path) -> None:
    """Raise S11Error for a folder that holds no run."""
    if not holds_run(path):
        raise S11Error(f"{path} holds no run: give a folder that experiments/run.py has made")


def read_records(path: Path) -> Records:
    """The records in a run folder; raises S11Error for a folder that holds no run, or a damaged."""
    check_holds_run(path)
    settings, env = read_config(path), readable(path / "env.json")
    history, steps = from_csv(EpochRow, path / "history.csv"), from_csv(StepRow, path / "steps.csv")
    images = env.get("train_images")
    if type(images) is int and images > 0:
        # A stop may have come between the two files: the epochs that both have are whole.
        per_epoch = -(-images // settings.bs)
        epochs = min(len(history), len(steps) // per_epoch)
        history, steps = history[:epochs], steps[: epochs * per_epoch]
    return Records(
        path=path,
        settings=settings,
        env=env,
        bounds=read_bounds(path),
        history=history,
        steps=steps,
        results=read_results(path),
    )


def read_results(path: Path) -> dict | None:
    """The results of the run in a folder, or None where it has not come to its end."""
    results = readable(path / "results.json")
    sound = all(type(results.get(name)) is kind for name, kind in _RESULTS.items())
    return results if sound else None


def readable(path: Path) -> dict:
    """The values of a JSON file; none where it is missing or damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_bounds(path: Path) -> LRBounds | None:
    """The bounds of the run in a folder, or None where they have not been found yet."""
    found = readable(path / "lr_bounds.json")
    try:
        low, high = float(found["lr_min"]), float(found["lr_max"])
        lrs, losses = (tuple(map(float, found[name])) for name in ("lrs", "losses"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return LRBounds(low, high, lrs, losses) if 0 < low < high and len(lrs) == len(losses) else None


Row = TypeVar("Row", EpochRow, StepRow)


def to_csv(kind: type[Row], rows: Sequence[Row]) -> str:
    """A header and the rows, with every digit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(kind._fields)
    writer.writerows(rows)
    return text.getvalue()


def from_csv(kind: type[Row], path: Path) -> list[Row]:
    """The rows in a file, none where there is no file; raises S11Error where it is damaged."""
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
            if tuple(header) != kind._fields:
                raise ValueError(f"its header is {header}")
            return [kind(int(first), *map(float, rest)) for first, *rest in rows]
    except (ValueError, TypeError, csv.Error) as error:
        raise S11Error(f"{path} is damaged ({error}): {WAY_BACK}") from error
