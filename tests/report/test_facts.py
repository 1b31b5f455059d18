import json
import os
import shutil
from dataclasses import replace

import pytest

from s11_fastai.report import facts
from s11_fastai.report.classes import read_record
from s11_fastai.runs.records import read_records


def test_the_key_figures_are_those_of_the_records(finished):
    records = read_records(finished[0])
    rows = [row._replace(seconds=65.0) for row in records.history]
    found = dict(facts.key_figures(replace(records, history=rows)))
    last = rows[-1]
    losses = f"{last.train_loss:.4f} train, {last.valid_loss:.4f} test"
    assert found["Loss"] == f"{losses}, with label smoothing 0.2"
    assert found["Time"] == "3 min 15 s for 3 epochs"
    assert found["Speed"] == "1 training images a second, evaluation included"
    assert found["Precision"] in ("float32 in training", "bfloat16 in training")
    assert facts.key_figures(replace(records, history=[])) == []
    unknown = replace(records, env={}, history=rows[:1])
    assert [name for name, _ in facts.key_figures(unknown)] == ["Loss", "Time"]


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(2.34, "2.3 s"), (59.7, "1 min 0 s"), (3599.9, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds, says):
    assert facts.duration(seconds) == says


def test_how_a_run_stands_follows_from_its_folder(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "r")
    assert facts.state_of(read_records(out)) == "finished"
    (out / "results.json").unlink()
    assert facts.state_of(read_records(out)) == "stopped"
    (out / facts.DIVERGED_FILE).write_text(json.dumps({"why": "the loss became nan"}))
    assert facts.state_of(read_records(out)) == "diverged"
    (out / facts.DIVERGED_FILE).write_text(json.dumps({"why": 7}))
    assert facts.state_of(read_records(out)) == "stopped"


def test_the_last_change_is_that_of_the_last_record(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "r")
    for seconds, name in enumerate(("config.json", "history.csv", "results.json"), 1_000_000):
        os.utime(out / name, (seconds, seconds))
    records = read_records(out)
    for seconds, name in ((1_000_002, "results.json"), (1_000_001, "history.csv")):
        assert facts.last_change(records) == seconds
        (out / name).unlink()
    assert facts.last_change(records) == 1_000_000


def test_of_which_weights_the_pictures_are(finished):
    record = read_record(finished[0])
    assert facts.weights_in_words(record) == "the weights after the last epoch, 3"
    best = facts.weights_in_words(replace(record, weights="best", epoch=2))
    assert best == "the weights of the best epoch, 2"
    for epoch, words in ((2, " in epoch 2"), (None, "")):
        found = facts.weights_in_words(replace(record, weights="checkpoint", epoch=epoch))
        assert found == f"the weights of a checkpoint{words}"


def test_the_files_beside_the_page_are_all_that_are_there(finished):
    records = read_records(finished[0])
    named = {name.rstrip("/") for name, _ in facts.files_beside(records, "finished")}
    there = {path.name for path in finished[0].iterdir() if not path.name.startswith(".")}
    assert named == there - {"report.html"}
    assert "predictions.csv" in named
    nowhere = replace(records, path=finished[0] / "none")
    assert [name for name, _ in facts.files_beside(nowhere, "finished")] == ["results.json"]
    assert facts.files_beside(nowhere, "stopped") == []
