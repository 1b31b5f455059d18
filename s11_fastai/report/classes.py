"""`classes.json`: how a run's network does on each class, and of which weights that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s11_fastai import interpret
from s11_fastai.errors import S11Error
from s11_fastai.runs.schema import CLASSES, CLASSES_EPOCH, read_json
from s11_fastai.storage import Folder

FILE = "classes.json"
MOST_CONFUSED = 8
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
class ClassRecord:
    """What the pictures of predictions show, in numbers.

    `weights` are "final", "best" or, of a run that is not over, "checkpoint"; the last epoch that
    they have seen any of is `epoch`, where that is known; `split` is what the evaluated images are
    called; `confused` holds (actual, predicted, count) of the most frequent mistakes.
    """

    weights: str
    split: str
    classes: tuple[ClassCounts, ...]
    confused: tuple[tuple[str, str, int], ...]
    epoch: int | None = None

    @property
    def images(self) -> int:
        return sum(each.images for each in self.classes)

    @property
    def correct(self) -> int:
        return sum(each.correct for each in self.classes)


def record_of(
    counts: np.ndarray, names: Sequence[str], weights: str, split: str, epoch: int | None = None
) -> ClassRecord:
    """The record of a confusion matrix: counts, int (C, C), a row for each actual class."""
    images, predicted, correct = counts.sum(axis=1), counts.sum(axis=0), np.diag(counts)
    columns = zip(names, images.tolist(), predicted.tolist(), correct.tolist(), strict=True)
    pairs = interpret.confused_pairs(counts, MOST_CONFUSED)
    return ClassRecord(
        weights,
        split,
        tuple(ClassCounts(*values) for values in columns),
        tuple((names[actual], names[predicted], n) for actual, predicted, n in pairs),
        epoch,
    )


def write_record(folder: Folder, record: ClassRecord) -> None:
    """Write it into the folder of a run. Raises OSError and S11Error."""
    values = {
        "weights": record.weights,
        "epoch": record.epoch,
        "split": record.split,
        "classes": [each.name for each in record.classes],
        **{name: [getattr(each, name) for each in record.classes] for name in _COUNTS},
        "confused": [list(pair) for pair in record.confused],
    }
    folder.write_json(FILE, values)


def read_record(path: Path) -> ClassRecord | None:
    """The record in the folder of a run, None where it is missing or damaged."""
    try:
        found = read_json(path / FILE, CLASSES)
        if found is None:
            return None
        columns = zip(found["classes"], *(found[name] for name in _COUNTS), strict=True)
        classes = tuple(ClassCounts(*values) for values in columns)
        confused = tuple((actual, predicted, n) for actual, predicted, n in found["confused"])
        epoch = found.get("epoch")
        if not CLASSES_EPOCH.holds(epoch):
            return None
    except (S11Error, OSError, ValueError):
        return None
    return ClassRecord(found["weights"], found["split"], classes, confused, epoch)
