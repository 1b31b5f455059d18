"""Items of datasets: indices and pictures; and what of them leaves with a Learner."""

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.interpret import ClassificationInterpretation
from fastai.learner import load_learner
from fastai.vision.core import TensorImage
from helpers import random_images
from PIL import Image

from s11_fastai import S11ResNet, get_dls, load_images, s11_learner
from s11_fastai.data.transforms import NormalizeBytes
from s11_fastai.errors import S11Error
from s11_fastai.interpret import misclassified, predict, top_losses

KB = 1000
OVER_THE_WEIGHTS = 100 * KB  # classes, statistics, and how fastai's parts are put together


@pytest.fixture(scope="module")
def images():
    return random_images(np.random.default_rng(0))


@pytest.fixture(scope="module")
def learn(images):
    torch.manual_seed(0)
    dls = get_dls(images, bs=16, device="cpu")
    learn = s11_learner(dls, S11ResNet(dls.c, 2))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.01)
        learn.show_results(show=False)
        learn.get_preds()
        yield learn


def test_the_place_of_a_mistake_is_the_index_of_its_image(learn, images):
    found = predict(learn.model, learn.dls.valid)
    shown = ClassificationInterpretation.from_learner(learn)
    for index in (*misclassified(found, 2), *top_losses(found, 2), *shown.top_losses(2)[1]):
        picture, *_, probabilities = learn.predict(index, with_input=True)
        np.testing.assert_array_equal(picture.permute(1, 2, 0), images.valid.images[int(index)])
        expected = np.exp(found.log_probabilities[int(index)])
        np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
        assert learn.dls.valid.items[int(index)] == index
    first = learn.predict(24, with_input=True)[0].permute(1, 2, 0)
    np.testing.assert_array_equal(first, images.train.images[0])
    assert shown.top_losses(2, items=True)[2][0] == shown.top_losses(2)[1][0]


@pytest.mark.parametrize("index", [-1, 64, 10**12, np.int64(-3), torch.tensor(64)])
def test_an_index_of_no_image_is_one_plain_error(learn, index):
    said = rf"no image {int(index)}: indices go from 0 to 63, the test images from 0 to 23"
    for ask in (learn.predict, lambda i: learn.dls.test_dl([i]).one_batch()):
        with pytest.raises(S11Error, match=said):
            ask(index)


@pytest.mark.parametrize("item", [True, np.True_, (0, 1), [0, 1], None, 0.5, (np.zeros(3),), "x"])
def test_what_is_neither_index_nor_picture_is_one_plain_error(learn, item):
    for ask in (learn.predict, lambda i: learn.dls.test_dl([i]).one_batch()):
        with pytest.raises(S11Error, match="is no picture") as error:
            ask(item)
        assert "\n" not in str(error.value)


def test_files_in_folders_of_their_class_are_evaluated(learn, images, tmp_path):
    files = []
    for i in range(24):
        files.append(tmp_path / images.classes[images.valid.labels[i]] / f"{i}.png")
        files[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(images.valid.images[i]).save(files[-1])
    assert list(learn.validate(dl=learn.dls.test_dl(files, with_labels=True))) == pytest.approx(
        list(learn.validate())
    )
    for wrong in (files[0].rename(tmp_path / "0.png"), np.zeros((4, 4))):
        with pytest.raises(S11Error, match="has no label"):
            learn.dls.test_dl([wrong], with_labels=True).one_batch()


def test_a_class_of_accented_letters_is_found_however_its_folder_is_written(images, tmp_path):
    images = replace(images, classes=("caf\u00e9", *images.classes[1:]))
    learn = s11_learner(get_dls(images, bs=8, device="cpu"), S11ResNet(3, 1))
    file = tmp_path / "cafe\u0301" / "1.png"
    file.parent.mkdir()
    Image.fromarray(images.valid.images[0]).save(file)
    _, labels = learn.dls.test_dl([file], with_labels=True).one_batch()
    assert labels.tolist() == [0]


def test_a_file_below_a_folder_of_its_class_is_of_the_nearest_one(images, tmp_path):
    cat, dog = images.classes[:2]
    learn = s11_learner(get_dls(images, bs=8, device="cpu"), S11ResNet(3, 1))
    files = [tmp_path / cat / "indoor/1.png", tmp_path / cat / dog / "2.png"]
    for file in files:
        file.parent.mkdir(parents=True)
        Image.fromarray(images.valid.images[0]).save(file)
    _, labels = learn.dls.test_dl(files, with_labels=True).one_batch()
    assert labels.tolist() == [0, 1]


def size_of(weights) -> int:
    return sum(value.nbytes for value in weights.values())


def test_what_is_exported_has_no_pixel_and_no_label(learn, images, tmp_path):
    learn.export(tmp_path / "model.pkl")
    data = (tmp_path / "model.pkl").read_bytes()
    assert len(data) < size_of(learn.model.state_dict()) + OVER_THE_WEIGHTS
    floats = torch.cat([x for x, _ in learn.dls.valid]).numpy()
    runs = [image.tobytes()[at : at + 12] for image in images.valid.images for at in (0, 999)]
    runs += [image.tobytes()[at : at + 12] for image in images.train.images for at in (0, 999)]
    runs += [x[0, 3].tobytes()[:16] for x in floats]
    runs += [part.labels.tobytes()[:80] for part in (images.train, images.valid)]
    for run in runs:  # pickle's older protocols write bytes as text
        assert run not in data
        assert run.decode("latin1").encode() not in data
    opened = load_learner(tmp_path / "model.pkl")
    assert len(opened.dls.train_ds) == len(opened.dls.valid_ds) == 0
    assert opened.dls.train.augment.images.train.images.size == 0
    left = opened.dls.train.images
    assert (left.classes, left.name, left.fingerprint) == (images.classes, "", "")
    assert (left.shape, left.train.images.size, left.valid.labels.size) == ((32, 32), 0, 0)
    with pytest.raises(S11Error, match="an exported Learner has no images"):
        opened.predict(0)
    assert len(learn.dls.train_ds) == 40  # which the Learner that was exported keeps
    assert learn.dls.train.one_batch()[0].shape == (16, 3, 32, 32)


def test_new_pictures_are_augmented_alike_before_and_after_an_export(learn, images, tmp_path):
    learn.export(tmp_path / "model.pkl")
    opened = load_learner(tmp_path / "model.pkl")
    said = []
    for each in (learn, opened):
        random.seed(0)
        with each.no_bar():
            said.append(each.tta(dl=each.dls.test_dl(list(images.valid.images[:6])), n=2)[0])
    assert torch.equal(*said)


def test_other_batch_transforms_take_the_place_of_the_augmentation(learn):
    normalize = NormalizeBytes([0.5] * 3, [0.5] * 3)
    new = learn.dls.train.new(shuffle=False, after_batch=[normalize])
    pixels = learn.dls.train.images.train.images[:16]
    expected = normalize(TensorImage(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    assert torch.equal(new.one_batch()[0], expected)
    augment = learn.dls.train.augment
    assert learn.dls.train.new(after_batch=[normalize], augment=augment).augment is augment
    assert learn.dls.train.new().augment is augment


ELSEWHERE = """
import io, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from fastai.learner import load_learner
folder, *files = sys.argv[1:]
learn = load_learner(folder + "/model.pkl")
with learn.no_bar():
    data = Path(files[0]).read_bytes()
    image = Image.open(io.BytesIO(data))
    found = [learn.predict(x)[2] for x in (files[0], data, io.BytesIO(data), image)]
    found += [learn.predict(np.asarray(image))[2]]
    found += list(learn.get_preds(dl=learn.dls.test_dl(files))[0])
torch.save(torch.stack(found), folder + "/found.pt")
"""


def test_the_digits_are_exported_small_and_predicted_in_another_process(tmp_path):
    torch.manual_seed(0)
    dls = get_dls(load_images("digits"), 64, device="cpu")
    learn = s11_learner(dls, S11ResNet(dls.c, 4))
    learn.export(tmp_path / "model.pkl")
    size = (tmp_path / "model.pkl").stat().st_size
    assert size < size_of(learn.model.state_dict()) + OVER_THE_WEIGHTS
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i, file in enumerate(files):
        Image.fromarray(dls.valid.images.valid.images[i]).save(file)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE, str(tmp_path), *files],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with learn.no_bar():
        expected = learn.get_preds(dl=dls.test_dl(range(3)))[0]
    found = torch.load(tmp_path / "found.pt")
    torch.testing.assert_close(found, expected[[0, 0, 0, 0, 0, 0, 1, 2]])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_need_no_fork(method):
    code = f"""
import multiprocessing
from s11_fastai import get_dls, load_images
if __name__ == "__main__":
    multiprocessing.set_start_method("{method}")
    images = load_images("digits")
    alone, helped = (get_dls(images, 64, num_workers=n).train for n in (0, 1))
    for (x, y), (v, w) in zip(alone, helped, strict=True):
        assert x.equal(v) and y.equal(w)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
