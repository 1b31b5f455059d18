import json

import numpy as np
import pytest

from s11_fastai.report.classes import read_record, record_of, write_record
from s11_fastai.storage import Folder

COUNTS = np.array([[3, 1, 0], [0, 2, 0], [0, 4, 0]])


def test_a_record_counts_each_class_and_the_frequent_mistakes(tmp_path):
    record = record_of(COUNTS, ("ant", "bee", "cow"), "best", "held-out")
    ant, bee, cow = record.classes
    assert (ant.images, ant.predicted, ant.correct, ant.recall, ant.precision) == (4, 3, 3, 0.75, 1)
    assert (bee.recall, bee.precision) == (1, 2 / 7)
    assert (cow.recall, cow.precision) == (0, None)
    assert record.confused == (("cow", "bee", 4), ("ant", "bee", 1))
    assert (record.correct, record.images) == (5, 10)
    write_record(Folder(tmp_path), record)
    assert read_record(tmp_path) == record


@pytest.mark.parametrize(
    "damage",
    [{}, {"classes": 7}, {"images": [1, 2]}, {"weights": "?"}, {"confused": [["ant", "bee", {}]]}],
)
def test_a_damaged_record_is_none(tmp_path, damage):
    assert read_record(tmp_path) is None
    write_record(Folder(tmp_path), record_of(COUNTS, ("ant", "bee", "cow"), "final", "test"))
    file = tmp_path / "classes.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage if damage else 7))
    assert read_record(tmp_path) is None
