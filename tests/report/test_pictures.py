import csv
from dataclasses import replace

import numpy as np
import pytest
import run
import torch
from helpers import no_pictures_of_predictions, random_images, stopped
from matplotlib.figure import Figure

from s11_fastai import S11ResNet, get_dls, s11_learner
from s11_fastai.data.per_image import albumentations_default
from s11_fastai.data.transforms import PadCropFlip
from s11_fastai.interpret import Predictions, top_losses
from s11_fastai.report import pictures
from s11_fastai.report.page import write_page
from s11_fastai.report.pictures import (
    PICTURES,
    Evaluation,
    Inputs,
    Picture,
    augmented_versions,
    draw_images,
    draw_predictions,
    draw_records,
)
from s11_fastai.report.predictions import COLUMNS, prediction_rows
from s11_fastai.runs.records import Records, read_records
from s11_fastai.storage import Folder


@pytest.fixture
def learn(rng):
    """A network that has learned nothing, with images of four classes."""
    torch.manual_seed(0)
    dls = get_dls(random_images(rng, classes=("ant", "bee", "cow", "doe")), bs=10, device="cpu")
    return s11_learner(dls, S11ResNet(dls.c, 1))


def names_of(source) -> set[str]:
    return {f"{picture.name}.png" for picture in PICTURES if picture.source is source}


def drawn(run) -> set[str]:
    return {path.name for path in (run / "figures").iterdir()}


def test_drawing_changes_neither_the_images_nor_the_mode_of_the_network(tmp_path, learn):
    images = pictures.images_of(learn)
    before = images.valid.images.copy()
    learn.model.train()
    draw_predictions(Folder(tmp_path), learn, seed=0)
    assert learn.model.training
    np.testing.assert_array_equal(images.valid.images, before)
    assert drawn(tmp_path) == names_of(Evaluation)
    draw_images(Folder(tmp_path), learn)
    assert drawn(tmp_path) == names_of(Evaluation) | names_of(Inputs)


def test_the_table_of_predictions_is_what_the_network_says_and_finds_each_image_again(
    tmp_path, learn
):
    draw_predictions(Folder(tmp_path), learn, seed=0)
    found = Evaluation(learn, seed=0).predictions
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["actual"] for row in rows] == [learn.dls.vocab[i] for i in found.labels]
    assert [row["predicted"] for row in rows] == [learn.dls.vocab[i] for i in found.classes]
    numbers = {name: np.array([row[name] for row in rows], np.float32) for name in COLUMNS[3:]}
    np.testing.assert_array_equal(numbers["probability"], found.probability(found.classes))
    np.testing.assert_array_equal(numbers["loss"], found.losses)
    for row in (rows[0], rows[-1]):
        name, _, probabilities = learn.predict(int(row["index"]))
        assert name == row["predicted"]
        assert probabilities.max() == pytest.approx(float(row["probability"]), rel=1e-4)
    actual = [learn.dls.valid.images.labels_of(np.array([int(r["index"])]))[0] for r in rows]
    np.testing.assert_array_equal(actual, found.labels)


def test_a_resumed_run_writes_the_same_table(undisturbed, tmp_path, monkeypatch):
    _, learn, argv = undisturbed
    with no_pictures_of_predictions():
        assert stopped(argv, tmp_path / "r", batch=6) == 130
        resumed = run.main([*argv, "--out", str(tmp_path / "r"), "--resume"])
    monkeypatch.setattr(pictures, "PICTURES", ())
    tables = []
    for name, each in (("whole", learn), ("resumed", resumed)):
        (tmp_path / name).mkdir()
        draw_predictions(Folder(tmp_path / name), each, seed=0)
        tables.append((tmp_path / name / "predictions.csv").read_bytes())
    assert tables[0] == tables[1]
    assert tables[0].count(b"\n") == 21


def test_names_with_commas_quotes_and_other_letters_survive_the_table():
    found, names = (
        Predictions(np.log(np.float32([[0.25, 0.75]])), np.array([0])),
        ['a,"b"', "\u732b"],
    )
    (row,) = csv.DictReader(prediction_rows(found, np.array([7]), names).splitlines())
    assert list(row.values())[:4] == ["7", 'a,"b"', "\u732b", "0.75"]


def test_every_image_in_a_picture_carries_its_index(learn):
    found = Evaluation(learn, seed=0)
    by_name = {picture.name: picture for picture in PICTURES}

    def marks(name: str, source: object) -> list[str]:
        texts = by_name[name].draw(source).axes[0].texts
        return [text.get_text() for text in texts if text.get_text().startswith("#")]

    wrong = found.mark(found.wrong)
    assert 0 < len(set(wrong)) == len(wrong) == found.wrong.size <= 25
    assert marks("misclassified", found) == marks("gradcam", found) == wrong
    assert marks("gradcam_layers", found) == wrong[:5]
    assert marks("top_losses", found) == found.mark(top_losses(found.predictions, 25))
    assert len(marks("confused_pairs", found)) > 5
    first_of_training = learn.dls.train.indices[0]
    assert f"#{first_of_training}" in marks("samples", Inputs(learn))


def test_of_no_mistake_the_network_sees_no_image(learn):
    assert pictures.as_the_network_sees(learn, np.empty(0, int)).shape == (0, 3, 32, 32)


def test_the_augmented_image_is_what_the_epochs_of_this_run_show(rng):
    images = random_images(rng)
    dls = get_dls(images, 40, device="cpu", seed=5, augment=PadCropFlip(pad=2, hole=4))
    learn = s11_learner(dls, S11ResNet(dls.c, 1))
    versions = augmented_versions(learn, 3, n=2)
    for epoch, version in enumerate(versions):
        dls.train.set_epoch(epoch)
        batch, _ = next(iter(dls.train))
        shown = dls.train.after_batch.decode(batch).permute(0, 2, 3, 1).numpy()
        assert (version == shown).all(axis=(1, 2, 3)).sum() == 1
    assert (versions[0] != versions[1]).any()


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        (PadCropFlip(), "pad-crop, flip and Cutout"),
        (PadCropFlip(flip=False), "pad-crop and Cutout"),
        (PadCropFlip(hole=0, flip=False), "pad-crop"),
        (albumentations_default(), "a pipeline of Albumentations"),
    ],
)
def test_the_augmented_image_says_how(rng, augment, words):
    dls = get_dls(random_images(rng), 40, device="cpu", augment=augment)
    figure = pictures._augmented(Inputs(s11_learner(dls, S11ResNet(dls.c, 1))))
    assert figure.texts[0].get_text().endswith(f": {words}")


def test_without_augmentation_there_is_no_picture_of_it(rng, tmp_path):
    dls = get_dls(random_images(rng), 40, device="cpu", augment=None)
    draw_images(Folder(tmp_path), s11_learner(dls, S11ResNet(dls.c, 1)))
    assert drawn(tmp_path) == {"samples.png"}


def test_what_each_picture_needs_is_computed_once(learn, monkeypatch):
    from s11_fastai import interpret

    calls, predict = [], interpret.predict
    monkeypatch.setattr(interpret, "predict", lambda *a: calls.append(a) or predict(*a))
    found = Evaluation(learn, seed=0)
    for picture in PICTURES:
        if picture.source is Evaluation:
            picture.draw(found)
    assert len(calls) == 1


def test_a_run_draws_every_picture_of_the_table(finished):
    assert drawn(finished[0]) == {f"{picture.name}.png" for picture in PICTURES}


def test_a_new_picture_is_one_function_and_one_line_of_the_table(finished, tmp_path, monkeypatch):
    records = read_records(finished[0])

    def one_number(records: Records) -> Figure:
        figure = Figure()
        figure.text(0.5, 0.5, str(len(records.history)))
        return figure

    new = Picture("epochs", Records, one_number, "How many epochs are over")
    monkeypatch.setattr(pictures, "PICTURES", (*PICTURES, new))
    (tmp_path / "config.json").write_text((finished[0] / "config.json").read_text())
    draw_records(Folder(tmp_path), records)
    assert drawn(tmp_path) == names_of(Records) | {"epochs.png"}
    page = write_page(Folder(tmp_path), read_records(tmp_path), "stopped").read_text()
    assert "<figcaption>How many epochs are over</figcaption>" in page


def test_nothing_is_drawn_of_a_run_that_has_no_epoch_and_no_range_test(finished, tmp_path):
    records = read_records(finished[0])
    empty = replace(records, history=[], steps=[], bounds=None)
    draw_records(Folder(tmp_path), empty)
    assert not (tmp_path / "figures").exists()
