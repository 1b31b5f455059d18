"""The rows of a run's tables, `history.csv` and `steps.csv`."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from s11_fastai.errors import S11Error


class EpochRow(NamedTuple):
    """One row of `history.csv`: losses in nats, accuracies as fractions, the epoch's last lr."""

    epoch: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float
    lr: float
    seconds: float


class StepRow(NamedTuple):
    """One row of `steps.csv`; steps count from 0, the loss is the batch's own."""

    step: int
    lr: float
    momentum: float
    loss: float


Row = TypeVar("Row", EpochRow, StepRow)


def best_of(history: Sequence[EpochRow]) -> EpochRow | None:
    """The epoch with the highest accuracy on the evaluated images, of equals the earliest."""
    return max(history, key=lambda row: row.valid_accuracy, default=None)


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
        raise S11Error(
            f"{path} is damaged ({error}): --resume writes it again where the run has a checkpoint"
        ) from error
