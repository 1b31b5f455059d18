"""`predictions.json`: how a run's network does on each class, and of which weights that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from s11_fastai import interpret
from s11_fastai.runs.records import readable
from s11_fastai.storage import Folder

FILE = "predictions.json"
_MOST_CONFUSED = 8
_COUNTS = ("images", "predicted", "correct")


@dataclass(frozen=True)
class ClassCounts:
    """Of one class: how many images are of it, are called so, and both."""

    name: str
    images: int
    predicted: int
    correct: int

    @property
    def recall(self) -> float | None:
        return self.correct / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        return self.correct / self.predicted if self.predicted else None


@dataclass(frozen=True)
class PredictionRecord:
    """What the pictures of predictions show, in numbers.

    `weights` are "final", "best" or, of a run that is not over, "checkpoint"; `split` is what the
    evaluated images are called; `confused` holds (actual, predicted, count) of the most frequent
    mistakes.
    """

    weights: str
    split: str
    classes: tuple[ClassCounts, ...]
    confused: tuple[tuple[str, str, int], ...]

    @property
    def images(self) -> int:
        return sum(each.images for each in self.classes)

    @property
    def correct(self) -> int:
        return sum(each.correct for each in self.classes)


def record_of(
    counts: np.ndarray, names: Sequence[str], weights: str, split: str
) -> PredictionRecord:
    """The record of a confusion matrix: counts, int (C, C), a row for each actual class."""
    pairs = interpret.confused_pairs(counts, _MOST_CONFUSED)
    return PredictionRecord(
        weights,
        split,
        tuple(
            ClassCounts(name, int(counts[i].sum()), int(counts[:, i].sum()), int(counts[i, i]))
            for i, name in enumerate(names)
        ),
        tuple((names[actual], names[predicted], n) for actual, predicted, n in pairs),
    )


def write_record(folder: Folder, record: PredictionRecord) -> None:
    """Write it into the folder of a run. Raises OSError and S11Error."""
    folder.write(FILE, json.dumps(asdict(record), indent=1) + "\n")


def read_record(path: Path) -> PredictionRecord | None:
    """The record in the folder of a run, None where it is missing or damaged."""
    found = readable(path / FILE)
    try:
        classes = tuple(
            ClassCounts(
                str(each["name"]), *(int(each[k]) for k in ("images", "predicted", "correct"))
            )
            for each in found["classes"]
        )
        confused = tuple((str(a), str(b), int(n)) for a, b, n in found["confused"])
        return PredictionRecord(str(found["weights"]), str(found["split"]), classes, confused)
    except (LookupError, TypeError, ValueError, OverflowError):
        return None
