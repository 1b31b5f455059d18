"""A run that was stopped goes on to the same end, to the bit."""

import json
import os
import re
import shutil
import signal
from contextlib import suppress
from functools import partial

import pytest
import run
import torch
from helpers import SMALL, compare, ended, newest, no_pictures_of_predictions, rows, stopped

from s11_fastai import load_run
from s11_fastai.callbacks.checkpoint import Resume, SaveCheckpoints
from s11_fastai.callbacks.progress import EpochTable
from s11_fastai.runs.checkpoints import Checkpoints
from s11_fastai.runs.lock import RunFolder
from s11_fastai.runs.records import read_records
from s11_fastai.storage import read_tensors, write_tensors

pytestmark = pytest.mark.usefixtures("fewer_pictures")


# An epoch has four batches of training, then two of evaluation.
@pytest.mark.parametrize("batch", [0, 2, 3, 4, 5, 8, 17])
def test_wherever_it_stops_it_ends_the_same_to_the_bit(undisturbed, tmp_path, batch):
    whole, learn, argv = undisturbed
    assert stopped(argv, tmp_path / "r", batch) == 130
    resumed = run.main([*argv, "--out", str(tmp_path / "r"), "--resume"])
    assert compare(whole, tmp_path / "r") == []
    for name in ("lrs", "losses", "iters", "values", "hps"):
        assert getattr(resumed.recorder, name) == getattr(learn.recorder, name), name
    assert resumed.recorder.smooth_loss.value == learn.recorder.smooth_loss.value


def test_several_stops_and_no_setting_given_again(undisturbed, tmp_path, capsys):
    whole, _, argv = undisturbed
    out = tmp_path / "r"
    assert stopped(argv, out, 1, signal.SIGTERM) == 143
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].endswith(f"experiments/run.py --out {out} --resume")
    for batch in (1, 1, 4, 2):
        assert stopped([], out, batch) == 130
        assert "going on after" in capsys.readouterr().out
    run.main(["--out", str(out), "--resume"])
    assert compare(whole, out) == []


def test_without_the_position_the_end_is_another(undisturbed, tmp_path, monkeypatch):
    """The comparison can fail."""
    whole, _, argv = undisturbed
    stopped(argv, tmp_path / "r", 8)
    begin = Resume.__init__

    def from_the_epochs_beginning(self, state):
        begin(self, state and state | {"loader": state["loader"] | {"first_batch": 0}})

    monkeypatch.setattr(Resume, "__init__", from_the_epochs_beginning)
    with suppress(SystemExit):  # it has more steps than its tables can hold
        run.main(["--out", str(tmp_path / "r"), "--resume"])
    assert {"model.safetensors", "steps.csv"} <= set(compare(whole, tmp_path / "r"))


@pytest.mark.parametrize("part", ["optimiser", "right", "smooth_loss"])
def test_each_part_of_the_state_is_needed(undisturbed, tmp_path, part):
    whole, learn, argv = undisturbed
    stopped(argv, tmp_path / "r", 7)  # in the second epoch's training
    file = newest(tmp_path / "r")
    tensors, about = read_tensors(file)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if part in name.split("."):
            tensor.zero_()
    text = json.dumps(about)
    if part == "right":
        text, n = re.subn(r'\["right", \d+\]', '["right", 0]', text)
        assert n == 1
    write_tensors(file, tensors, json.loads(text))
    resumed = run.main(["--out", str(tmp_path / "r"), "--resume"])
    same = compare(whole, tmp_path / "r") == []
    assert not (same and resumed.recorder.losses == learn.recorder.losses)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("env", "data"), "\x1b[2J", "'data' must be printable text"),
        (("learner", "train_iter"), "x", "'train_iter' must be a whole number"),
        (("learner", "callbacks"), {}, "KeyError"),
        (("learner", "optimiser"), 5, "does not belong to this fit"),
        (("learner", "optimiser"), {"state": {}, "param_groups": [{}]}, "has no lr"),
        (("learner", "batch"), 2, "its rows are not those of its place"),
        (("learner", "epoch"), 1, "its rows are not those of its place"),
    ],
)
def test_a_checkpoint_of_a_stranger_is_one_line(undisturbed, tmp_path, capsys, place, value, says):
    out, argv = tmp_path / "r", undisturbed[2]
    stopped(argv, out, 3)
    capsys.readouterr()
    checkpoints = Checkpoints(out / "checkpoint")
    state = checkpoints.newest()
    state[place[0]][place[1]] = value
    checkpoints.write(state)
    code, said = ended(["--out", out, "--resume"], capsys)
    assert code == 2
    assert says in said.replace("--", "")


def test_the_best_weights_come_back_with_the_checkpoint(undisturbed, tmp_path):
    _, _, argv = undisturbed
    out = tmp_path / "r"
    stopped(argv, out, 13)
    best, history = (out / "best.safetensors"), (out / "history.csv")
    kept = best.read_bytes(), history.read_bytes()
    best.unlink()
    history.write_text("")
    stopped([], out, 0)
    assert (best.read_bytes(), history.read_bytes()) == kept


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_stop_between_the_two_tables_loses_nothing(undisturbed, tmp_path, monkeypatch, epoch):
    whole, _, argv = undisturbed
    write, out = RunFolder.write, tmp_path / "r"

    def cut_off(self, name, data):
        if name == "steps.csv" and len(data.splitlines()) == 1 + 4 * epoch:
            raise KeyboardInterrupt
        write(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run.main([*argv, "--out", str(out)])
    assert len(rows(out / "history.csv")) == epoch
    records = read_records(out)
    assert (len(records.history), len(records.steps)) == (epoch - 1, 4 * (epoch - 1))
    assert len(load_run(out, device="cpu").recorder.lrs) == 4 * (epoch - 1)
    run.main(["--out", str(out), "--resume"])
    assert compare(whole, out) == []


def test_resume_begins_a_run_and_leaves_a_finished_one_as_it_is(undisturbed, tmp_path, capsys):
    whole, _, argv = undisturbed
    out = tmp_path / "r"
    run.main([*argv, "--out", str(out), "--resume"])
    assert compare(whole, out) == []
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert run.main([*argv, "--out", str(out), "--resume"]) is None
    said = capsys.readouterr().out
    assert f"{out} is finished: final accuracy" in said
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("*") if p.is_file()}
    assert after == before


def test_a_signal_before_the_run_began_leaves_nothing(pets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "s11_fastai.sources.cached", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(SystemExit) as stop:
        run.main(["--data", str(pets), "--out", str(tmp_path / "r"), *SMALL])
    assert stop.value.code == 143
    assert capsys.readouterr().err == "run.py: stopped; there was nothing to keep yet\n"
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.fixture(scope="module")
def at_its_end(undisturbed, tmp_path_factory):
    """A run that was killed when all but results.json was written."""
    out = tmp_path_factory.mktemp("runs") / "r"
    write = RunFolder.write

    def killed(self, name, data):
        if name == "results.json":
            raise KeyboardInterrupt
        write(self, name, data)

    with no_pictures_of_predictions(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            run.main([*undisturbed[2], "--out", str(out)])
    return out


@pytest.mark.parametrize("missing", ["model.safetensors", "figures/loss.png", "history.csv"])
def test_what_is_missing_of_an_unfinished_run_is_made_again(
    undisturbed, at_its_end, tmp_path, missing
):
    out = shutil.copytree(at_its_end, tmp_path / "r")
    (out / missing).unlink()
    run.main(["--out", str(out), "--resume"])
    assert compare(undisturbed[0], out) == []
    assert not (out / "checkpoint").exists()


def damage(out, how):
    if how == "missing":
        (out / "best.safetensors").unlink()
    elif how == "checksum":
        data = (out / "model.safetensors").read_bytes()
        (out / "model.safetensors").write_bytes(data[:-1] + b"x")
    elif how == "cut":
        lines = (out / "history.csv").read_text().splitlines()
        (out / "history.csv").write_text("\n".join(lines[:-1]) + "\n")
    elif how == "empty":
        (out / "steps.csv").write_text("")


FLAWS = {
    "missing": "best.safetensors is missing",
    "checksum": "model.safetensors has another checksum",
    "cut": "2 of 3 epochs",
    "empty": "steps.csv is damaged",
}


@pytest.mark.parametrize("how", FLAWS)
def test_a_finished_run_is_mended_from_its_checkpoint_where_it_has_one(
    undisturbed, at_its_end, tmp_path, capsys, how
):
    whole, _, _ = undisturbed
    out = shutil.copytree(whole, tmp_path / "r")
    shutil.copytree(at_its_end / "checkpoint", out / "checkpoint")
    damage(out, how)
    run.main(["--out", str(out), "--resume"])
    said = capsys.readouterr().out
    assert FLAWS[how] in said
    assert "going on after 12 steps" in said
    assert compare(whole, out) == []
    assert not (out / "checkpoint").exists()


@pytest.mark.parametrize(
    ("place", "value"), [("best", {"fc.bias": 5}), ("bounds", {}), ("learner", {})]
)
def test_one_that_is_of_no_use_costs_a_finished_run_nothing(
    undisturbed, at_its_end, tmp_path, capsys, place, value
):
    out = shutil.copytree(undisturbed[0], tmp_path / "r")
    checkpoints = Checkpoints(shutil.copytree(at_its_end / "checkpoint", out / "checkpoint"))
    checkpoints.write(checkpoints.newest() | {place: value})
    damage(out, "missing")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert ended(["--out", out, "--resume"], capsys)[0] == 2
    after = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)} <= {
        out / "report.html"
    }


@pytest.mark.parametrize("how", FLAWS)
def test_without_one_it_is_an_error_that_says_what_helps(undisturbed, tmp_path, capsys, how):
    out = shutil.copytree(undisturbed[0], tmp_path / "r")
    damage(out, how)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    code, said = ended(["--out", out, "--resume"], capsys)
    assert code == 2
    assert "the run is finished, but" in said
    assert FLAWS[how] in said
    assert "bring back a copy, or make the run again" in said
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_checkpoints_that_a_finished_run_has_left_go(undisturbed, at_its_end, tmp_path):
    whole, _, _ = undisturbed
    out = shutil.copytree(whole, tmp_path / "r")
    shutil.copytree(at_its_end / "checkpoint", out / "checkpoint")
    assert run.main(["--out", str(out), "--resume"]) is None
    assert not (out / "checkpoint").exists()
    assert compare(whole, out) == []


def test_what_does_not_read_back_keeps_its_checkpoints(undisturbed, tmp_path, monkeypatch, capsys):
    whole, _, argv = undisturbed
    out, write = tmp_path / "r", RunFolder.write

    def changed_by_somebody(self, name, data):
        path = write(self, name, data)
        if name == "model.safetensors":
            write_tensors(path, {"x": torch.zeros(1)})
        return path

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", changed_by_somebody)
        with pytest.raises(SystemExit) as stop:
            run.main([*argv, "--out", str(out)])
    assert stop.value.code == 2
    assert "does not hold what was written there" in capsys.readouterr().err
    assert not (out / "results.json").exists()
    run.main(["--out", str(out), "--resume"])
    assert compare(whole, out) == []


def test_checkpoints_come_by_the_clock_at_each_epochs_end_and_the_last_two_stay(
    undisturbed, tmp_path, monkeypatch
):
    written, kept, minutes = [], [], iter(range(1000))
    write = Checkpoints.write

    def noted(self, state):
        write(self, state)
        written.append((state["epoch"], state["batch"]))
        kept[:] = sorted(file.name for file in self.path.iterdir())

    monkeypatch.setattr(Checkpoints, "write", noted)
    minute_by_minute = partial(SaveCheckpoints, clock=lambda: 60.0 * next(minutes))
    monkeypatch.setattr("s11_fastai.runs.run.SaveCheckpoints", minute_by_minute)
    out = tmp_path / "r"
    run.main([*undisturbed[2], "--out", str(out), "--checkpoint-minutes", "3"])
    ends = [(epoch, 0) for epoch in range(4)]
    assert [at for at in written if at[1] == 0] == ends
    # The clock is looked at after each batch of training and after each writing.
    assert [at for at in written if at[1]] == [(e, 3) for e in range(3)]
    assert kept == [
        "epoch-000002-batch-000003.safetensors",
        "epoch-000003-batch-000000.safetensors",
    ]


def test_over_a_damaged_checkpoint_it_goes_on_from_the_one_before(undisturbed, tmp_path, capsys):
    whole, _, argv = undisturbed
    out = tmp_path / "r"
    stopped(argv, out, 8)
    damaged = newest(out)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    run.main(["--out", str(out), "--resume"])
    said = capsys.readouterr().out
    assert f"{damaged.name} has another checksum than it was written with; going on from" in said
    assert "going on after 4 steps" in said
    assert compare(whole, out) == []


def test_a_learner_without_a_start_begins_at_the_beginning(undisturbed, tmp_path):
    _, _, argv = undisturbed
    stopped(argv, tmp_path / "r", 8)
    learn = run.main(["--out", str(tmp_path / "r"), "--resume"])
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 0.01)
    assert len(learn.recorder.lrs) == 4


def test_momentum_comes_back_in_the_memory_order_of_its_weight(undisturbed, tmp_path, monkeypatch):
    _, _, argv = undisturbed
    stopped([*argv, "--width", "4"], tmp_path / "r", 3)
    seen = []

    def look(self):
        for parameter, kept in self.learn.opt.opt.state.items():
            seen.append(kept["momentum_buffer"].stride() == parameter.stride())
            assert not torch.equal(kept["momentum_buffer"], torch.zeros_like(parameter))

    monkeypatch.setattr(EpochTable, "before_train", look, raising=False)
    run.main(["--out", str(tmp_path / "r"), "--resume"])
    assert seen
    assert all(seen)
