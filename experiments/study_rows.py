"""The rows of a study: one for each run that is over, in a CSV file for each table."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from s11_fastai.errors import S11Error
from s11_fastai.runs.schema import FRACTION, LR, shown

COLUMNS = (
    *("variant", "seed", "flags", "data", "evaluated_on", "images", "precision", "epochs"),
    *("lr_min", "lr_max", "final_accuracy", "best_accuracy", "train_accuracy"),
    *("valid_loss", "git_revision"),
)
# What the page is made of.
NEEDED = {*COLUMNS[:8], "lr_max", "train_accuracy", "final_accuracy"} - {"images"}
_NUMBERS = {"train_accuracy": FRACTION, "final_accuracy": FRACTION, "lr_max": LR}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a study so far; raises S11Error where they are no such rows."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            check_row(row)
    except (ValueError, csv.Error) as error:
        raise S11Error(f"{path} is damaged ({error}): mend it, or bring back a copy") from error
    return rows


def check_row(row: dict[str, str]) -> None:
    """Raise ValueError, naming the column, for a row that no page can show."""
    if None in row or None in row.values():
        raise ValueError("a row has another number of values than the header")
    if not NEEDED <= row.keys() <= set(COLUMNS):
        raise ValueError(f"its columns are {shown(list(row))}")
    words = shlex.split(row["flags"])
    if len(words) % 2:
        raise ValueError(f"'flags' must be flags with their values, not {shown(row['flags'])}")
    held_out = dict(zip(words[::2], words[1::2], strict=True)).get("--holdout")
    for name, count in (("images", row.get("images")), ("--holdout", held_out)):
        if count and not (count.isascii() and count.isdigit() and len(count) < 10):
            raise ValueError(f"{name!r} must be a number of images, not {shown(count)}")
    for name, check in _NUMBERS.items():
        if row[name] and not check.holds(float(row[name])):
            raise ValueError(f"{name!r} must be {check.words}, not {shown(row[name])}")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """All rows, whole or not at all."""
    from s11_fastai.storage import write_atomically

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
