"""Kaggle's `trainLabels.csv`: the class of each image, by its id."""

import csv
import io
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from s11_fastai.errors import S11Error
from s11_fastai.sources.tree import Tree
from s11_fastai.streams import few

_MAX_BYTES, _MAX_LINES = 64 << 20, 2_000_000


def by_label(tree: Tree, part: str, labels: str, where: Path) -> dict[str, list[str]]:
    """The names of the files in the folder `part` of each class in the list `labels`, sorted.

    An id is a file's name, or that without its suffix. Files that are not in the list are left out.
    Raises S11Error for a list that cannot be read, and for ids of which there is no file.
    """
    given = _read(tree, labels, where)
    classes: dict[str, list[str]] = {label: [] for label in given.values()}
    left = set(given)
    for name in sorted(tree.files):
        path = PurePosixPath(name)
        key = path.name if path.name in given else path.stem
        if path.parts[0] == part and key in given:
            classes[given[key]].append(name)
            left.discard(key)
    if left:
        raise S11Error(
            f"{where}: {len(left):,} of {len(given):,} images in {labels} are not in {part}/, the "
            f"first {few([min(left)])}: add them, or take them out of the list"
        )
    return classes


def _read(tree: Tree, labels: str, where: Path) -> dict[str, str]:
    """The class of each id."""
    given: dict[str, str] = {}
    try:
        text = io.StringIO(tree.read(labels, _MAX_BYTES).decode("utf-8-sig"))
        rows = csv.reader(text)
        if [word.strip().lower() for word in next(rows, [])] != ["id", "label"]:
            raise ValueError("its first line is not id,label")
        for row in rows:
            if rows.line_num > _MAX_LINES:
                raise ValueError(f"it has more than {_MAX_LINES:,} lines")
            fields = [field.strip() for field in row]
            if not any(fields):
                continue
            if len(fields) != 2 or not all(fields):
                raise ValueError(f"line {rows.line_num} is no id and label")
            key, label = fields[0], normalize("NFC", fields[1])
            if given.setdefault(key, label) != label:
                raise ValueError(f"line {rows.line_num} has another label for {key!a}")
        if not given:
            raise ValueError("it is empty")
    except (ValueError, csv.Error) as error:
        raise S11Error(f"{where}: {labels} is no list of labels ({error}): mend it") from error
    return given
