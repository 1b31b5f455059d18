import json
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import run
import torch
from fastai.interpret import ClassificationInterpretation
from helpers import BOUNDS, SMALL, read, stopped
from PIL import Image

from s11_fastai import learner, load_run
from s11_fastai.errors import S11Error
from s11_fastai.runs import load
from s11_fastai.runs.records import read_records

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def opened(finished):
    return load_run(finished[0], device="cpu")


def test_images_that_have_moved_are_asked_for(undisturbed, tmp_path):
    out = shutil.copytree(undisturbed[0], tmp_path / "r")
    config = read(out / "config.json")
    (out / "config.json").write_text(json.dumps(config | {"data": "images/that/were"}))
    with pytest.raises(S11Error, match="not at images/that/were: give `data`, where they are now"):
        load_run(out, device="cpu")
    assert load_run(out, data=config["data"], device="cpu").dls.c == 2


def test_it_is_the_learner_that_was_trained(pets, tmp_path):
    trained = run.main(["--data", str(pets), "--out", str(tmp_path / "r"), *SMALL])
    opened = load_run(tmp_path / "r", device="cpu")
    for name, value in opened.model.state_dict().items():
        assert torch.equal(value, trained.model.state_dict()[name]), name
    for name in ("lrs", "losses", "iters"):
        assert getattr(opened.recorder, name) == getattr(trained.recorder, name), name
    assert opened.recorder.hps["lr"] == trained.recorder.hps["lr"]
    assert list(map(list, opened.recorder.values)) == list(map(list, trained.recorder.values))
    assert opened.recorder.metric_names == trained.recorder.metric_names
    assert not opened.model.training
    results = read(tmp_path / "r/results.json")
    assert opened.validate()[1] == results["final_accuracy"]  # which empties fastai's recorder


def test_a_run_opens_on_a_device_that_lacks_its_precision(undisturbed, tmp_path, monkeypatch):
    def of_an_older_gpu(name, device):
        if name == "bf16":
            raise S11Error("this GPU does not compute in bfloat16")
        return "fp16" if name == "auto" else name

    out = shutil.copytree(undisturbed[0], tmp_path / "r")
    config = read(out / "config.json") | {"precision": "bf16"}
    (out / "config.json").write_text(json.dumps(config))
    assert load_run(out, device="cpu").precision == "bf16"
    for module in (learner, load):
        monkeypatch.setattr(module, "pick_precision", of_an_older_gpu)
    assert load_run(out, device="cpu").precision == "fp16"


def test_nothing_is_unpickled(finished, pets, tmp_path, monkeypatch):
    stopped(["--data", str(pets), *SMALL, *BOUNDS], tmp_path / "r", 8)
    for name in ("pickle.Unpickler", "pickle.load", "pickle.loads", "torch.load"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("a pickle is read"))
    for out in (finished[0], tmp_path / "r"):
        assert load_run(out, device="cpu").dls.c == 2


def test_weights_of_another_name_are_refused(finished):
    with pytest.raises(S11Error, match="bset"):
        load_run(finished[0], weights="bset", device="cpu")


def test_best_weights_are_those_of_the_best_epoch(finished):
    out, _ = finished
    learn, results = load_run(out, weights="best", device="cpu"), read(out / "results.json")
    assert learn.validate()[1] == results["best_accuracy"]


def test_what_a_fastai_user_types_works(finished, capsys):
    opened = load_run(finished[0], device="cpu")
    opened.recorder.plot_sched()
    opened.recorder.plot_loss()
    opened.show_results(max_n=4)
    with opened.no_bar():
        found = ClassificationInterpretation.from_learner(opened)
        found.plot_top_losses(9)
        found.plot_confusion_matrix()
        assert found.confusion_matrix().sum() == 20
        assert all(actual != predicted for actual, predicted, _ in found.most_confused())
    assert f"{sum(p.numel() for p in opened.model.parameters()):,}" in str(opened.summary())
    matplotlib.pyplot.close("all")


def test_any_picture_can_be_predicted(opened, pets, tmp_path):
    path = pets / "test/dog/0000.png"
    large = Image.open(path).resize((320, 320), Image.Resampling.NEAREST)
    large.save(tmp_path / "large.jpg")
    with opened.no_bar():
        index = 10  # the first dog of the test images
        expected = opened.predict(index)
        for item in (path, str(path), Image.open(path), np.asarray(Image.open(path))):
            name, number, probabilities = opened.predict(item)
            assert (name, int(number)) == (expected[0], int(expected[1]))
            torch.testing.assert_close(probabilities, expected[2])
        assert opened.predict(tmp_path / "large.jpg")[0] in ("cat", "dog")
        assert opened.predict(np.zeros((40, 60), np.uint8))[2].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("item", "says"),
    [("nowhere.png", "nowhere.png is no picture"), (np.ones((2, 2)) * 9, "float64")],
)
def test_what_is_no_picture_is_told(opened, item, says):
    with pytest.raises(S11Error, match=says):
        opened.predict(item)


def test_an_interrupted_run_opens_with_its_newest_weights(pets, tmp_path):
    argv = ["--data", str(pets), *SMALL, *BOUNDS]
    stopped(argv, tmp_path / "r", 8)
    learn = load_run(tmp_path / "r", device="cpu")
    assert len(learn.recorder.lrs) == 4  # of the one epoch that is over
    resumed = run.main(["--out", str(tmp_path / "r"), "--resume"])
    assert not torch.equal(learn.model.fc.weight, resumed.model.fc.weight)
    learn.fit_one_cycle(1, 0.001)  # it can go on as any Learner does


def spoil(out, how):
    if how == "no run":
        (out / "config.json").unlink()
    elif how == "another version":
        config = read(out / "config.json") | {"warp": 9}
        (out / "config.json").write_text(json.dumps(config))
    elif how == "damaged weights":
        data = (out / "model.safetensors").read_bytes()
        (out / "model.safetensors").write_bytes(data[:-1] + b"x")
    elif how == "no best":
        (out / "best.safetensors").unlink()
    elif how == "no weights":
        (out / "model.safetensors").unlink()
    elif how == "no weights yet":
        (out / "model.safetensors").unlink()
        (out / "results.json").unlink()
    elif how == "another width":
        config = read(out / "config.json") | {"width": 2}
        (out / "config.json").write_text(json.dumps(config))
    elif how == "damaged history":
        (out / "history.csv").write_text("epoch,loss\n1,2\n")
    elif how == "other images":
        env = read(out / "env.json") | {"data_fingerprint": "0" * 64}
        (out / "env.json").write_text(json.dumps(env))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no run", "holds no run"),
        ("another version", "config.json is damaged or of another version"),
        (
            "damaged weights",
            "has another checksum than .* bring back a copy",
        ),
        ("no best", "best.safetensors is missing: while .* bring back a copy"),
        ("no weights", "model.safetensors is missing: while .* bring back a copy"),
        ("no weights yet", "has no final weights yet"),
        ("another width", "weights of another network"),
        ("damaged history", "history.csv is damaged"),
        ("other images", "fingerprint .* differs from the run's 000000000000"),
    ],
)
def test_what_cannot_be_opened_is_one_line(finished, tmp_path, how, says):
    out = shutil.copytree(finished[0], tmp_path / "r")
    spoil(out, how)
    with pytest.raises(S11Error, match=says) as error:
        load_run(out, weights="best" if how == "no best" else "final", device="cpu")
    assert "\n" not in str(error.value)


def test_images_that_moved_are_given(finished, pets, tmp_path):
    moved = shutil.copytree(pets, tmp_path / "elsewhere")
    assert (
        load_run(finished[0], data=moved, device="cpu").validate()
        == load_run(finished[0], device="cpu").validate()
    )


def test_a_run_of_an_older_version_opens():
    """Written by version 0.1.0, before label smoothing, logit scale and precision were settings."""
    path = Path(__file__).parent / "run-0.1"
    learn = load_run(path, device="cpu")
    results = read(path / "results.json")
    assert len(learn.recorder.lrs) == 24
    # Another processor's last digits may turn an image that stands between two classes.
    assert learn.validate()[1] == pytest.approx(results["final_accuracy"], abs=1 / 355)
    records = read_records(path)
    assert (records.settings.label_smoothing, records.settings.logit_scale) == (0.0, 1.0)


def test_a_setting_that_this_version_does_not_know_is_named(tmp_path):
    out = shutil.copytree(Path(__file__).parent / "run-0.1", tmp_path / "r")
    config = read(out / "config.json") | {"warp": 9}
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(S11Error, match=r"'warp': no such setting in this version"):
        load_run(out, device="cpu")
