from dataclasses import replace

import numpy as np
import pytest
import torch

from s11_fastai.errors import S11Error
from s11_fastai.interpret import predict
from s11_fastai.model import S11ResNet
from s11_fastai.runs.load import load_run
from s11_fastai.runs.weights import Classifier, read_weights, round_to_float16, write_weights
from s11_fastai.sources import Split
from s11_fastai.storage import read_tensors, write_tensors

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(undisturbed):
    """A run's folder, and its Learner again."""
    return undisturbed[0], load_run(undisturbed[0], device="cpu")


@pytest.mark.parametrize("name", ["model.safetensors", "best.safetensors"])
def test_a_runs_weights_say_what_they_are_of(trained, name):
    folder, learn = trained
    about = read_tensors(folder / name)[1]
    assert (about["network"], about["width"], about["logit_scale"]) == ("S11ResNet", 1, 0.125)
    assert (about["classes"], about["side"]) == (["cat", "dog"], 32)
    pixels = learn.dls.valid.images.train.images / 255
    np.testing.assert_allclose(about["mean"], pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(about["std"], pixels.std((0, 1, 2)))


def test_from_the_file_alone_comes_what_the_run_predicts(trained):
    folder, learn = trained
    classifier = read_weights(folder / "model.safetensors", CPU)
    valid = learn.dls.valid.images.valid
    # Batches of another size may give other last digits.
    expected = predict(learn.model, learn.dls.valid.new(bs=len(valid.labels)))
    found = classifier.evaluate(valid)
    np.testing.assert_array_equal(found.log_probabilities, expected.log_probabilities)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(
        classifier.log_probabilities(valid.images), found.log_probabilities
    )


def test_published_weights_are_half_the_size_and_evaluate_as_they_did(trained, tmp_path):
    (folder, learn), path = trained, tmp_path / "half.safetensors"
    classifier = read_weights(folder / "model.safetensors", CPU)
    round_to_float16(classifier)
    expected = classifier.evaluate(learn.dls.valid.images.valid).log_probabilities
    write_weights(path, classifier, {"accuracy": 0.5})
    again = read_weights(path, CPU)
    assert again.claim == {"accuracy": 0.5}
    assert {t.dtype for t in read_tensors(path)[0].values()} == {torch.float16, torch.int64}
    assert {p.dtype for p in again.model.parameters()} == {torch.float32}
    found = again.evaluate(learn.dls.valid.images.valid).log_probabilities
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 3000},
        {"width": "wide"},
        {"width": 1e300},
        {"width": -1},
        {"classes": ["cat"]},
        {"classes": None},
        {"mean": "grey"},
        {"mean": [0.5]},
        {"side": 3},
        {"side": 2048},
        {"logit_scale": None},
        {"network": "another"},
        {"classes": ["cat", "\x1b[2J"]},
        {"classes": ["cat", 5]},
        {"claim": {"accuracy": "high"}},
        {"claim": "high"},
    ],
    ids=str,
)
def test_weights_of_another_kind_are_one_plain_error(trained, tmp_path, change):
    tensors, about = read_tensors(trained[0] / "model.safetensors")
    path = tmp_path / "model.safetensors"
    write_tensors(path, tensors, {**about, **change})
    with pytest.raises(S11Error, match=r"model.safetensors does not say .*give `weights`"):
        read_weights(path, CPU)


@pytest.mark.parametrize(
    "spoil",
    [lambda v: v * float("nan"), lambda v: v.to(torch.int8), lambda v: v.reshape(-1)],
    ids=["nan", "int8", "flat"],
)
def test_weights_that_are_no_numbers_of_the_network_are_refused(trained, tmp_path, spoil):
    tensors, about = read_tensors(trained[0] / "model.safetensors")
    tensors["prep.0.weight"] = spoil(tensors["prep.0.weight"])
    write_tensors(tmp_path / "model.safetensors", tensors, about)
    with pytest.raises(S11Error, match=r"other shapes|prep.0.weight is not of finite numbers"):
        read_weights(tmp_path / "model.safetensors", CPU)


@pytest.mark.parametrize(
    ("spoil", "about"),
    [(lambda v: v * 1e30, {}), (lambda v: v, {"std": [0, 0, 0]})],
    ids=["huge", "no deviation"],
)
def test_a_network_that_gives_no_numbers_names_nothing(trained, tmp_path, spoil, about):
    tensors, own = read_tensors(trained[0] / "model.safetensors")
    huge = {k: spoil(v) if v.is_floating_point() else v for k, v in tensors.items()}
    write_tensors(tmp_path / "model.safetensors", huge, {**own, **about})
    classifier = read_weights(tmp_path / "model.safetensors", CPU)
    with pytest.raises(S11Error, match="gives no finite numbers"):
        classifier.log_probabilities(np.zeros((1, 32, 32, 3), np.uint8))


def test_large_images_come_a_few_at_a_time(trained, monkeypatch):
    sizes, forward = [], S11ResNet.forward

    def noted(self, x):
        sizes.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(S11ResNet, "forward", noted)
    large = replace(Classifier.of(trained[1]), side=256)
    large.log_probabilities(np.zeros((9, 256, 256, 3), np.uint8))
    assert sizes == [8, 1]


def test_weights_of_before_and_no_weights_are_one_plain_error(trained, tmp_path):
    tensors, _ = read_tensors(trained[0] / "model.safetensors")
    write_tensors(tmp_path / "old.safetensors", tensors)
    with pytest.raises(S11Error, match=r"old.safetensors does not say which network"):
        read_weights(tmp_path / "old.safetensors", CPU)
    with pytest.raises(S11Error, match=r"none.safetensors is no file: give `weights`"):
        read_weights(tmp_path / "none.safetensors", CPU)
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(S11Error, match="is no file of this kind"):
        read_weights(tmp_path / "text.safetensors", CPU)


def test_images_of_another_shape_and_none_are_refused(trained):
    classifier = Classifier.of(trained[1])
    for shape, words in [((2, 28, 28, 3), "32x32, not 28x28"), ((0, 32, 32, 3), "no image")]:
        with pytest.raises(S11Error, match=words):
            classifier.evaluate(Split(np.zeros(shape, np.uint8), np.zeros(shape[0], np.int64)))
