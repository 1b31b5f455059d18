from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import random_images
from matplotlib.figure import Figure

from s11_fastai import S11ResNet, get_dls, s11_learner
from s11_fastai.report import pictures
from s11_fastai.report.page import write_page
from s11_fastai.report.pictures import (
    PICTURES,
    Evaluation,
    Inputs,
    Picture,
    draw_images,
    draw_predictions,
    draw_records,
)
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
    draw_images(Folder(tmp_path), images, seed=0)
    assert drawn(tmp_path) == names_of(Evaluation) | names_of(Inputs)


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
