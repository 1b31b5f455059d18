import json
import re
import socket

import numpy as np
import pytest
import run
import torch
from helpers import (
    BOUNDS,
    ROOT,
    SMALL,
    compare,
    ended,
    no_pictures_of_predictions,
    read,
    rows,
    stopped,
    write_folder,
)
from PIL import Image
from safetensors.torch import load_file

from s11_fastai import linear_one_cycle, load_images, load_run
from s11_fastai.callbacks.recording import EpochRow, best_of
from s11_fastai.callbacks.stopping import StopOnDivergence
from s11_fastai.environment import git_revision_of_code, pick_device
from s11_fastai.runs.lock import RunFolder


def test_the_run_folder_holds_what_the_design_says(finished):
    out, _ = finished
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        "config.json",
        "env.json",
        "lr_bounds.json",
        "classes.json",
        "history.csv",
        "steps.csv",
        "results.json",
        "model.safetensors",
        "best.safetensors",
        "predictions.csv",
        "report.html",
        ".lock",
        *(f"figures/{name}.png" for name in ("samples", "augmented", "lr_find", "schedule")),
        *(f"figures/{name}.png" for name in ("loss", "accuracy", "misclassified", "gradcam")),
        *(f"figures/{name}.png" for name in ("gradcam_layers", "top_losses", "confusion")),
        *(f"figures/{name}.png" for name in ("per_class", "calibration", "confused_pairs")),
    }


def test_history_and_steps_agree(finished):
    out, learn = finished
    history, steps = rows(out / "history.csv"), rows(out / "steps.csv")
    assert list(history[0]) == list(EpochRow._fields)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["step"] for row in steps] == list(range(12))
    sizes = [16, 16, 16, 2]
    for i, row in enumerate(history):
        own = steps[4 * i : 4 * i + 4]
        mean = sum(s["loss"] * n for s, n in zip(own, sizes, strict=True)) / 50
        assert row["train_loss"] == pytest.approx(mean, rel=1e-12)
        assert row["lr"] == own[-1]["lr"]
        assert row["seconds"] > 0
    bounds = read(out / "lr_bounds.json")
    low, high = bounds["lr_min"], bounds["lr_max"]
    expected = linear_one_cycle(np.arange(12) / 12, low, high, low, 1 / 3)
    np.testing.assert_allclose([s["lr"] for s in steps], expected, rtol=1e-12)
    assert {s["momentum"] for s in steps} == {0.9}
    assert learn.recorder.hps["lr"] == [s["lr"] for s in steps]


def test_results_and_weights(finished, pets):
    out, learn = finished
    history, results = rows(out / "history.csv"), read(out / "results.json")
    accuracies = [row["valid_accuracy"] for row in history]
    assert results == {
        "params": sum(p.numel() for p in learn.model.parameters()),
        "epochs": 3,
        "final_accuracy": accuracies[-1],
        "best_accuracy": max(accuracies),
        "best_epoch": accuracies.index(max(accuracies)) + 1,
        "lr_min": read(out / "lr_bounds.json")["lr_min"],
        "lr_max": read(out / "lr_bounds.json")["lr_max"],
        "seed": 0,
        "data": "pets",
        "evaluated_on": "test",
    }
    final = load_file(out / "model.safetensors")
    for name, value in learn.model.state_dict().items():
        assert torch.equal(final[name], value)
    assert learn.validate()[1] == results["final_accuracy"]


def test_the_environment_names_the_data_and_no_machine(finished, pets):
    env = read(finished[0] / "env.json")
    assert env["data_fingerprint"] == load_images(pets).fingerprint
    assert {"python", "fastai", "torch", "device", "threads", "processes"} <= set(env)
    if git_revision_of_code() is not None:
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", env["git_revision"])
    text = json.dumps(env)
    assert str(ROOT) not in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)


def test_the_same_seed_gives_the_same_files_to_the_byte(finished, pets, tmp_path):
    run.main(["--data", str(pets), "--out", str(tmp_path / "b"), *SMALL])
    for name in ("model.safetensors", "best.safetensors", "steps.csv", "lr_bounds.json"):
        assert (tmp_path / "b" / name).read_bytes() == (finished[0] / name).read_bytes(), name
    run.main(["--data", str(pets), "--out", str(tmp_path / "c"), *SMALL, *BOUNDS, "--seed", "1"])
    assert (tmp_path / "c/steps.csv").read_bytes() != (finished[0] / "steps.csv").read_bytes()


def test_the_best_epochs_weights_are_kept_and_of_equals_the_earliest(pets, tmp_path, monkeypatch):
    """Accuracies and weights of four epochs are made up."""
    accuracies, values = iter([0.5, 0.7, 0.7, 0.6]), iter(range(1, 5))

    def made_up(self):
        self.learn.model.fc.bias.data.fill_(next(values))
        self.recorder.values[-1][2] = next(accuracies)

    monkeypatch.setattr(StopOnDivergence, "after_epoch", made_up, raising=False)
    out = tmp_path / "r"
    run.main(["--data", str(pets), "--out", str(out), *SMALL, *BOUNDS, "--epochs", "4"])
    assert read(out / "results.json")["best_epoch"] == 2
    assert set(load_file(out / "best.safetensors")["fc.bias"].tolist()) == {2.0}


def test_the_best_of_nothing_is_none():
    assert best_of([]) is None


def test_each_epoch_is_on_disk_when_it_is_over(pets, tmp_path, monkeypatch):
    write = RunFolder.write

    def stop_in_epoch_3(self, name, data):
        if name == "history.csv" and len(data.splitlines()) == 1 + 3:
            raise KeyboardInterrupt
        write(self, name, data)

    monkeypatch.setattr(RunFolder, "write", stop_in_epoch_3)
    with pytest.raises(KeyboardInterrupt):
        run.main(["--data", str(pets), "--out", str(tmp_path / "r"), *SMALL, *BOUNDS])
    assert [row["epoch"] for row in rows(tmp_path / "r/history.csv")] == [1, 2]
    assert len(rows(tmp_path / "r/steps.csv")) == 8


def test_the_page_escapes_names_and_lacks_a_range_test_that_was_not_run(tmp_path, rng):
    evil = write_folder(tmp_path / "<b>pets", rng)
    run.main(["--data", str(evil), "--out", str(tmp_path / "r"), *SMALL, *BOUNDS])
    page = (tmp_path / "r/report.html").read_text()
    assert "&lt;b&gt;pets" in page
    assert "<b>" not in page
    assert 'id="chart-lr_find"' not in page
    assert not (tmp_path / "r/figures/lr_find.png").exists()


def test_a_range_test_that_was_cut_off_starts_again(finished, pets, tmp_path, capsys):
    whole, _ = finished
    argv = ["--data", str(pets), *SMALL]
    assert stopped(argv, tmp_path / "r", 50) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "r/lr_bounds.json").exists()  # it stopped at once
    run.main(["--out", str(tmp_path / "r"), "--resume"])
    assert compare(whole, tmp_path / "r") == []


def test_holdout_evaluates_training_images_and_says_so_everywhere(pets, tmp_path, capsys):
    out = tmp_path / "held"
    argv = ["--data", str(pets), "--out", str(out), *SMALL, *BOUNDS, "--holdout", "10"]
    learn = run.main(argv)
    assert read(out / "results.json")["evaluated_on"] == "held-out"
    text = capsys.readouterr().out
    assert "40 training and 10 held-out images" in text
    assert "held-out loss" in text
    assert "of the held-out images" in text
    assert not re.search(r"test (images|loss|acc)", text)
    assert "held-out images" in (out / "report.html").read_text()
    shown = {image.tobytes() for image in load_images(pets).train.images}
    assert {i.tobytes() for i in learn.dls.train.images.valid.images} <= shown


def test_data_without_a_test_part_trains_with_holdout_and_opens_again(pets, tmp_path, capsys):
    argv = ["--data", str(pets / "train"), "--out", str(tmp_path / "r"), *SMALL, *BOUNDS]
    code, said = ended(argv, capsys)
    assert code == 2
    assert "add it, or give --holdout, the number of training images" in said
    with no_pictures_of_predictions():
        run.main([*argv, "--epochs", "2", "--holdout", "10"])
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "read as: 2 folders, each a class, no test part"
    opened = load_run(tmp_path / "r", device="cpu").dls.train.images
    assert (len(opened.train.labels), len(opened.valid.labels)) == (40, 10)


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for cuda, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert pick_device(None).type == expected
    assert pick_device("cpu").type == "cpu"


@pytest.mark.slow
def test_the_demo_ends_above_97_percent(tmp_path):
    run.main(["--demo", "--out", str(tmp_path / "demo")])
    assert read(tmp_path / "demo/results.json")["final_accuracy"] > 0.97


def test_pictures_of_any_size_train_at_another_side_and_say_so(tmp_path, rng, capsys):
    data, out = write_folder(tmp_path / "pets", rng, n_train=9), tmp_path / "r"
    for path in data.rglob("0000.png"):
        Image.open(path).resize((50, 70)).save(path)
    (data / "train/cat/notes.txt").write_text("mine")
    learn = run.main(["--data", str(data), "--resize", "40", "--out", str(out), *SMALL, *BOUNDS])
    said = capsys.readouterr().out.splitlines()
    assert (
        said[1] == "left out, as no image of a class: 1 of 25 files, the first train/cat/notes.txt"
    )
    assert said[2] == (
        "24 of 24 images are cut to a square and resized to 40x40: 20 of 32x32, 4 of 50x70"
    )
    assert learn.dls.one_batch()[0].shape == (16, 3, 40, 40)
    assert read(out / "config.json")["resize"] == 40
    opened = load_run(out, device="cpu")
    assert opened.validate()[1] == read(out / "results.json")["final_accuracy"]
    with opened.no_bar():
        picture, *_, probabilities = opened.predict(data / "test/dog/0000.png", with_input=True)
        assert torch.equal(probabilities, opened.predict(3)[2])
    assert picture.shape == (3, 40, 40)
    code, error = ended(["--out", out, "--resume", "--resize", "48"], capsys)
    assert code == 2
    assert "--resize 48 differs from the run's 40" in error
