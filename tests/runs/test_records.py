"""Records of a run that are damaged, or a stranger's; `tests/tools/fields.py` has them all."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers import read

from s11_fastai import load_run
from s11_fastai.callbacks.recording import EpochRow, StepRow
from s11_fastai.environment import environment
from s11_fastai.errors import S11Error
from s11_fastai.report.page import write_page
from s11_fastai.report.pictures import draw_records
from s11_fastai.runs import schema
from s11_fastai.runs.records import bounds_or_none, env_or_empty, read_records, results_or_none
from s11_fastai.runs.settings import Settings
from s11_fastai.storage import Folder
from s11_fastai.streams import printable

OLD = Path(__file__).parent / "run-0.1"


@pytest.fixture
def run(tmp_path) -> Path:
    return shutil.copytree(OLD, tmp_path / "r")


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(read(path) | values))


def test_the_schema_has_the_fields_that_runs_write(finished):
    out = finished[0]
    assert tuple(schema.HISTORY) == EpochRow._fields
    assert tuple(schema.STEPS) == StepRow._fields
    assert schema.BOUNDS.keys() == read(out / "lr_bounds.json").keys()
    assert schema.RESULTS.keys() == read(out / "results.json").keys()
    written = environment(torch.device("cpu"), "fp32").keys() | read(out / "env.json").keys()
    assert written <= schema.ENV.keys()


@pytest.mark.parametrize(
    ("file", "values", "says"),
    [
        ("config.json", {"width": "wide"}, "`width` must be a whole number from 1 to 1,000,000"),
        ("config.json", {"epochs": 10**30}, "`epochs` must be a whole number"),
        ("config.json", {"device": "\x1b[2J"}, r"`device` must be printable .*not '\\x1b\[2J'"),
        ("config.json", {"data": "a\0b"}, "`data` must be a path"),
        ("env.json", {"data": 5}, "'data' must be printable text .*, not 5"),
        ("env.json", {"data": "\x1b[31m"}, r"'data' must be printable text .*\\x1b"),
        ("env.json", {"train_images": "many"}, "'train_images' must be a whole number .*'many'"),
        ("env.json", {"train_images": True}, "'train_images' must be .*, not True"),
        ("env.json", {"extra": [{"a": "b\n"}]}, r"'b\\n' is no printable text"),
        ("lr_bounds.json", {"lr_max": float("inf")}, "'lr_max' must be a number .*, not inf"),
        ("lr_bounds.json", {"lr_max": 0.01}, "'lr_min' must be below 'lr_max'"),
        ("lr_bounds.json", {"lrs": [0.1, 0], "losses": [1, 1]}, "'lrs' must be a list"),
        ("lr_bounds.json", {"lrs": [0.1, 0.1], "losses": [1, 1]}, "'lrs' must grow"),
        ("lr_bounds.json", {"lrs": [0.1, 0.2], "losses": [1]}, "must be of one length"),
        ("lr_bounds.json", {"lrs": [1, 2], "losses": [1, 1e308]}, "'losses' must be a list"),
        ("results.json", {"final_accuracy": 1.1}, "'final_accuracy' must be .* 0 to 1, not 1.1"),
        ("results.json", {"evaluated_on": "moon"}, "must be one of test, held-out, not 'moon'"),
        ("results.json", {"best_epoch": 3}, "'best_epoch' is not among 2 epochs"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_file_and_field(run, file, values, says):
    change(run / file, **values)
    with pytest.raises(S11Error, match=rf"{file} is damaged .*{says}") as error:
        read_records(run)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("history.csv", "\n1,", "\n2,", "epoch 2 stands where 1 should"),
        ("history.csv", "\n2,", "\nx,", "a row is .*'x'.*, not numbers"),
        ("history.csv", "1.2536961970000675", "inf", "'seconds' must be .*, not inf"),
        ("history.csv", "1.2536961970000675", "-1", "'seconds' must be .*, not -1.0"),
        ("history.csv", ",0.09250000000000001,", ",0,", "'lr' must be a number from 1e-30"),
        ("history.csv", "0.12413314840499307", "1.5", "'train_accuracy' must be .* 0 to 1"),
        ("history.csv", "epoch,train", "epoch,\x1b[2Jtrain", r"its header is .*\\x1b"),
        ("steps.csv", "0.9,3.08", "0.9,1,3.08", "a row has 5 values and not 4"),
        ("steps.csv", "\n0,", "\n1,", "step 1 stands where 0 should"),
    ],
)
def test_a_wrong_cell_of_a_table_is_named(run, file, old, new, says):
    text = (run / file).read_text()
    assert old in text
    (run / file).write_text(text.replace(old, new, 1))
    with pytest.raises(S11Error, match=rf"{file} is damaged .*{says}") as error:
        read_records(run)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("file", ["history.csv", "steps.csv"])
def test_a_table_that_is_cut_short_is_not_taken_for_a_shorter_one(run, file):
    whole = (run / file).read_bytes()
    for end in (0, 20, len(whole) // 2, whole.rindex(b"\n", 0, -1) + 1, len(whole) - 1):
        (run / file).write_bytes(whole[:end])
        with pytest.raises(S11Error, match=r"(history|steps).csv is damaged"):
            read_records(run)


def test_what_settings_may_be_records_may_hold():
    """Rounded a little beyond it by the schedule."""
    for lr in (1e-20, 1e5):
        assert Settings(lr_max=lr).lr_max == lr
        assert schema.LR.holds(lr * (1 - 1e-4))
        assert schema.LR.holds(lr * (1 + 1e-4))
    odd = printable(255 * "\udcff")
    assert schema.ENV["data"].holds(odd)
    assert schema.RESULTS["data"].holds(odd)


def test_more_epochs_than_the_run_has_are_refused(run):
    with (run / "history.csv").open("a") as file:
        file.write("3,1,0.5,1,0.5,0.1,1\n")
    with pytest.raises(S11Error, match="3 of 2 epochs"):
        read_records(run)


def test_what_is_not_there_yet_is_no_error(run):
    for name in ("results.json", "steps.csv", "history.csv", "lr_bounds.json", "env.json"):
        (run / name).unlink()
        records = read_records(run)
        write_page(Folder(run), records, "stopped")
    assert (records.history, records.steps, records.bounds) == ([], [], None)


def test_a_finished_run_is_whole_without_its_steps(run):
    (run / "steps.csv").unlink()
    records = read_records(run)
    assert len(records.history) == 2
    page = write_page(Folder(run), records).read_text()
    assert "the curve schedule (there are no values)" in page
    learn = load_run(run, device="cpu")
    assert [row[2] for row in learn.recorder.values] == [r.valid_accuracy for r in records.history]
    assert learn.recorder.lrs == []


def test_the_losses_of_an_epoch_that_diverged_are_no_damage(run):
    text = (run / "history.csv").read_text()
    (run / "history.csv").write_text(text.replace("1.9687159061431885", "inf"))
    records = read_records(run)
    assert records.history[-1].valid_loss == float("inf")
    assert "the curve loss (a value is NaN" in write_page(Folder(run), records).read_text()
    draw_records(Folder(run), records)
    assert not (run / "figures/loss.png").exists()
    assert (run / "figures/accuracy.png").exists()


def test_what_a_resumed_run_writes_again_may_be_damaged(run):
    for name in ("results.json", "lr_bounds.json", "env.json"):
        (run / name).write_text("[" * 5_000)
    assert (results_or_none(run), bounds_or_none(run), env_or_empty(run)) == (None, None, {})


@pytest.mark.parametrize("file", ["config.json", "env.json", "steps.csv"])
def test_what_is_too_large_or_no_file_is_not_read(run, file):
    with (run / file).open("ab") as record:
        record.truncate(1 << 40)
    with pytest.raises(S11Error, match=rf"{file} is damaged .*it has more than"):
        read_records(run)
    (run / file).unlink()
    os.mkfifo(run / file)
    with pytest.raises(S11Error, match=rf"{file} is damaged .*no plain file"):
        read_records(run)


def test_a_width_that_the_weights_do_not_have_makes_no_network(run, monkeypatch):
    change(run / "config.json", width=3_000)

    def made(*_):
        raise AssertionError("a network was made")

    monkeypatch.setattr("s11_fastai.runs.load.learner_of", made)
    with pytest.raises(S11Error, match="weights of another network than width 3000 makes"):
        load_run(run, device="cpu")


def test_a_path_of_odd_letters_is_kept_and_shown_as_escapes(run):
    change(run / "config.json", data="a\x1b[2J\udcff")
    records = read_records(run)
    assert records.settings.data == "a\x1b[2J\udcff"
    text = write_page(Folder(run), records).read_text()
    assert "\x1b" not in text
    assert r"a\x1b[2J\udcff" in text
