"""Whether two run folders hold the same records, to the byte."""

import csv
from pathlib import Path


def compare(reference: Path, path: Path) -> list[str]:
    """The files that differ, or are in one folder only; of the history all but the seconds."""
    skipped = {"report.html", ".lock"}
    theirs, ours = (
        {
            p.relative_to(top).as_posix(): p
            for p in top.rglob("*")
            if p.is_file() and p.name not in skipped and p.parent.name != "checkpoint"
        }
        for top in (reference, path)
    )
    wrong = sorted(theirs.keys() ^ ours.keys())
    for name in sorted(theirs.keys() & ours.keys()):
        if content(theirs[name]) != content(ours[name]):
            wrong.append(name)
    wrong += [p.name for p in path.rglob(".*.part")]
    return wrong


def content(path: Path) -> object:
    if path.name != "history.csv":
        return path.read_bytes()
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
