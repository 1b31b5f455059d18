"""What is the same run and may go on, and what is another and is refused."""

import json
import shutil

import pytest
import run
import torch
from helpers import compare, newest, read, stopped
from PIL import Image

from s11_fastai import environment
from s11_fastai.runs.checkpoints import Checkpoints
from s11_fastai.storage import read_tensors, write_tensors

pytestmark = pytest.mark.usefixtures("fewer_pictures")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("all damaged", "holds no checkpoint that can be read"),
        ("none left", "has lost its checkpoints"),
        ("another network", "of another network: layer9.weight has shape (3,) there and None here"),
        ("another format", "has format 's11-checkpoint-0'"),
        ("no config", "config.json is damaged or of another version"),
    ],
)
def test_what_cannot_go_on_is_one_line_and_changes_nothing(
    undisturbed, tmp_path, capsys, how, says
):
    _, _, argv = undisturbed
    out = tmp_path / "r"
    stopped(argv, out, 8)
    tensors, about = read_tensors(newest(out))
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    if how == "all damaged":
        for file in (out / "checkpoint").iterdir():
            file.write_bytes(b"")
    elif how == "none left":
        shutil.rmtree(out / "checkpoint")
    elif how == "another network":
        checkpoints = Checkpoints(out / "checkpoint")
        state = checkpoints.newest()
        state["learner"]["model"]["layer9.weight"] = torch.zeros(3)
        checkpoints.write(state)
    elif how == "another format":
        write_tensors(newest(out), tensors, about | {"format": "s11-checkpoint-0"})
    else:
        (out / "config.json").write_bytes(b"{")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run.main(["--out", str(out), "--resume", "--data", argv[1]])
    assert stop.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert says in said
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_setting_that_differs_is_refused_with_both_values(undisturbed, tmp_path, capsys):
    _, _, argv = undisturbed
    out = tmp_path / "r"
    stopped(argv, out, 3)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for given, says in {
        ("--width", "2"): "--width 2 differs from the run's 1",
        ("--epochs", "9", "--wd", "0"): "--epochs 9 differs from the run's 3; --wd 0.0 differs",
        ("--epochs", "1"): "--epochs 1 differs from the run's 3",  # before what it would need
        ("--lr-min", "0.002"): "--lr-min 0.002 differs from the run's 0.001",
        ("--demo",): "--width 16 differs",
    }.items():
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run.main(["--out", str(out), "--resume", *given])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    (out / "config.json").write_text(json.dumps(read(out / "config.json") | {"seed": 7}))
    with pytest.raises(SystemExit) as stop:
        run.main(["--out", str(out), "--resume"])
    assert "--seed 7 differs from the run's 0" in capsys.readouterr().err
    del before[out / "config.json"]
    assert {p: p.read_bytes() for p in before} == before


def test_moved_images_are_the_same_data_and_changed_ones_are_refused(
    undisturbed, pets, tmp_path, capsys
):
    whole, _, argv = undisturbed
    moved = shutil.copytree(pets, tmp_path / "pets")
    stopped(argv, tmp_path / "r", 3)
    shutil.copytree(tmp_path / "r", tmp_path / "s")
    run.main(["--data", str(moved), "--out", str(tmp_path / "r"), "--resume"])
    assert compare(whole, tmp_path / "r") == ["config.json"]
    assert read(tmp_path / "r/config.json")["data"] == str(moved)
    Image.new("RGB", (32, 32)).save(moved / "train/cat/0000.png")
    with pytest.raises(SystemExit) as stop:
        run.main(["--data", str(moved), "--out", str(tmp_path / "s"), "--resume"])
    assert stop.value.code == 2
    assert "the images' fingerprint" in capsys.readouterr().err


def test_another_environment_goes_on_and_is_noted(undisturbed, tmp_path, monkeypatch, capsys):
    _, _, argv = undisturbed
    stopped(argv, tmp_path / "r", 3)
    monkeypatch.setattr(environment, "version", lambda name: "0.0")
    run.main(["--out", str(tmp_path / "r"), "--resume"])
    assert "torch was" in (said := capsys.readouterr().out)
    assert "not identical to the bit" in said
    (noted,) = read(tmp_path / "r/env.json")["resumed"]
    assert noted["step"] == 4
    assert noted["torch"][1] == "0.0"


def test_another_revision_is_only_told(undisturbed, tmp_path, monkeypatch, capsys):
    whole, _, argv = undisturbed
    stopped(argv, tmp_path / "r", 3)
    monkeypatch.setattr(environment, "git_revision_of_code", lambda: "f" * 40)
    run.main(["--out", str(tmp_path / "r"), "--resume"])
    said = capsys.readouterr().out
    assert "git_revision was" in said
    assert "not identical" not in said
    assert compare(whole, tmp_path / "r") == ["env.json"]
