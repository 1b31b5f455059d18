"""Data as people have it: what is taken for what, and what is asked where that is not plain."""

import os
import shutil

import pytest
from helpers import pack, refused_data, write_folder

from s11_fastai import load_images
from s11_fastai.errors import S11Error
from s11_fastai.sources import tree


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "val"),
        ("train", "valid"),
        ("train", "validation"),
        ("Train", "Test"),
        ("TRAIN", "Validation"),
        ("training", "testing"),
        ("training_set", "test_set"),
        ("Training Data", "Testing Data"),
        ("seg_train", "seg_test"),
        ("train-images", "val_images"),
        ("trainset", "TestSet"),
    ],
)
def test_parts_of_other_names(image_folder, tmp_path, train, test):
    before = load_images(image_folder)
    assert before.notes == ()
    (image_folder / "train").rename(image_folder / "x")
    (image_folder / "test").rename(image_folder / "y")
    (image_folder / "x").rename(image_folder / train)
    (image_folder / "y").rename(image_folder / test)
    for data in (image_folder, tmp_path, pack(image_folder, tmp_path / "packed.tgz")):
        images = load_images(data)
        assert images.fingerprint == before.fingerprint
        top = "" if data == image_folder else "pets/"
        assert images.notes == (f"read as: trained on {top}{train}/, test part {top}{test}/",)


def test_a_test_part_goes_before_a_validation_part_and_labels_before_both(image_folder):
    before = load_images(image_folder).fingerprint
    shutil.copytree(image_folder / "train", image_folder / "valid")
    images = load_images(image_folder)
    assert images.fingerprint == before
    assert images.notes == ("read as: trained on train/, test part test/, not read: valid/",)
    shutil.rmtree(image_folder / "valid")
    (image_folder / "test").rename(image_folder / "valid")
    (image_folder / "test").mkdir()
    shutil.copy(image_folder / "valid/cat/0000.png", image_folder / "test")
    images = load_images(image_folder)
    assert images.fingerprint == before
    assert images.notes == ("read as: trained on train/, test part valid/, not read: test/",)


def nested(image_folder, tmp_path, *parts):
    """Move each part of a folder into a folder of its own name."""
    for part in parts:
        (image_folder / part).rename(tmp_path / "part")
        (image_folder / part).mkdir()
        (tmp_path / "part").rename(image_folder / part / part)


def test_parts_in_a_folder_of_their_own_name(image_folder, tmp_path):
    before = load_images(image_folder).fingerprint
    nested(image_folder, tmp_path, "train", "test")
    (image_folder / "train/readme.txt").write_text("mine")
    for data in (image_folder, tmp_path, pack(image_folder, tmp_path / "packed.tgz")):
        images = load_images(data)
        assert images.fingerprint == before
        top = "" if data == image_folder else "pets/"
        read, left_out = images.notes
        assert read == f"read as: trained on {top}train/train/, test part {top}test/test/"
        assert (
            left_out
            == "left out, as no image of a class: 1 of 19 files, the first train/readme.txt"
        )


def test_a_test_part_without_classes_leaves_the_validation_part(image_folder, tmp_path):
    before = load_images(image_folder).fingerprint
    (image_folder / "test").rename(image_folder / "val")
    shutil.copytree(image_folder / "val/cat", image_folder / "test/unknown")
    for _ in range(2):
        images = load_images(image_folder)
        assert images.fingerprint == before
        assert images.notes == ("read as: trained on train/, test part val/, not read: test/",)
        nested(image_folder, tmp_path, "test")
    shutil.rmtree(image_folder / "val")
    assert WITHOUT_TEST in refused_data(image_folder)
    assert load_images(image_folder, holdout=4).notes == (
        "read as: trained on train/, no test part, not read: test/",
    )
    shutil.rmtree(image_folder / "test/test")
    shutil.copytree(image_folder / "train/cat", image_folder / "test/cat")
    assert "they differ in dog" in refused_data(image_folder)


def test_a_plain_name_goes_before_one_with_a_word_beside(image_folder):
    before = load_images(image_folder).fingerprint
    shutil.copytree(image_folder / "train", image_folder / "train_set")
    assert load_images(image_folder).fingerprint == before
    assert [tree.part_of(name) for name in ("train station", "bullet-train", "data", "Set")] == [
        ""
    ] * 4


def test_data_two_folders_deep(image_folder, tmp_path):
    before = load_images(image_folder).fingerprint
    (tmp_path / "up/deep").mkdir(parents=True)
    moved = image_folder.rename(tmp_path / "up/deep/pets")
    images = load_images(tmp_path / "up")
    assert images.fingerprint == before
    assert images.notes == ("read as: trained on deep/pets/train/, test part deep/pets/test/",)
    assert load_images(pack(tmp_path / "up/deep", tmp_path / "up.tgz")).fingerprint == before
    shutil.copytree(moved, tmp_path / "up/deep/others")
    assert "holds 2 sets of images, deep/others/, deep/pets/: give one" in refused_data(
        tmp_path / "up"
    )
    assert load_images(moved.parent / "pets").fingerprint == before


def test_two_folders_that_may_mean_the_same(image_folder):
    shutil.copytree(image_folder / "train", image_folder / "Train")
    assert "has Train, train, which may mean the same" in refused_data(image_folder)
    shutil.rmtree(image_folder / "Train")
    (image_folder / "test").rename(image_folder / "val")
    shutil.copytree(image_folder / "val", image_folder / "valid")
    assert "has val, valid, which may mean the same" in refused_data(image_folder)


WITHOUT_TEST = (
    "has no test/ (nor val/ or valid/) with a folder of images for each class: add it, or"
)


def test_a_training_part_alone_needs_holdout(image_folder, tmp_path):
    shutil.rmtree(image_folder / "test")
    for data in (image_folder, pack(image_folder, tmp_path / "packed.tgz")):
        for _ in range(2):  # the second time there is a cache
            assert f"{WITHOUT_TEST} give `holdout`" in refused_data(data)
            images = load_images(data, holdout=4)
            assert (len(images.train.labels), len(images.valid.labels)) == (8, 4)
            assert images.evaluated_on == "held-out"
        top = "" if data == image_folder else "pets/"
        assert images.notes == (f"read as: trained on {top}train/, no test part",)


def test_folders_of_classes_alone_need_holdout(image_folder, tmp_path):
    train = load_images(image_folder).train
    classes = (image_folder / "train").rename(tmp_path / "flowers")
    shutil.rmtree(image_folder)
    (classes / "notes.txt").write_text("mine")
    for data in (classes, pack(classes, tmp_path / "packed.tgz")):
        assert WITHOUT_TEST in refused_data(data)
        images = load_images(data, holdout=2)
        assert images.classes == ("cat", "dog")
        assert sorted([*images.train.labels, *images.valid.labels]) == sorted(train.labels)
        assert "2 folders, each a class" in images.notes[0]
    write_run(classes)
    again = load_images(classes, holdout=2)
    assert again.fingerprint == images.fingerprint
    assert again.notes == ("read as: 2 folders, each a class, no test part, not read: runs/",)


def write_run(top):
    """What a run leaves below the data that it is given."""
    (top / "runs/first/figures").mkdir(parents=True)
    shutil.copy(top / "cat/0000.png", top / "runs/first/figures/samples.png")
    (top / "runs/first/results.json").write_text("{}")


def test_what_is_no_data_is_shown_with_the_ways_out(tmp_path):
    for name in ("b", "a", "c/d"):
        (tmp_path / name).mkdir(parents=True)
    for i in range(4):
        (tmp_path / f"{i}.jpg").touch()
    said = refused_data(tmp_path)
    assert "(it holds a/, b/, c/, 0.jpg, 1.jpg and 2 more): give the folder that has" in said
    assert said.endswith("or one with a folder for each of two or more classes")


def test_what_lies_beside_a_folder_of_classes_is_named(image_folder, tmp_path):
    """cat's two folders are classes there, as nobody says that cat and dog are."""
    (tmp_path / "up/dog").mkdir(parents=True)
    for year in ("2019", "2020"):
        shutil.copytree(image_folder / "train/cat", tmp_path / "up/cat" / year)
    shutil.copytree(image_folder / "train/dog", tmp_path / "up/dog/all")
    (note,) = load_images(tmp_path / "up", holdout=2).notes
    assert note == "read as: 2 folders, each a class, in cat/, no test part, not read: dog/"


def test_a_test_part_in_a_neighbours_folder_does_not_hide_a_folder_of_classes(
    image_folder, tmp_path
):
    (image_folder / "train").rename(tmp_path / "up")
    (tmp_path / "up/a").mkdir()
    shutil.move(image_folder / "test", tmp_path / "up/a/test")
    (tmp_path / "up/pictures").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "up" / name).rename(tmp_path / "up/pictures" / name)
    (note,) = load_images(tmp_path / "up", holdout=2).notes
    assert note.startswith("read as: 2 folders, each a class, in pictures/, no test part")
    shutil.rmtree(tmp_path / "up/pictures")
    assert f"{tmp_path / 'up/a'} has no train/" in refused_data(tmp_path / "up")


def test_a_class_that_is_called_as_a_part_is_told_how_to_be_one(image_folder):
    (image_folder / "train/cat").rename(image_folder / "car")
    (image_folder / "train/dog").rename(image_folder / "dog")
    shutil.rmtree(image_folder / "test")
    shutil.copy(image_folder / "car/0000.png", image_folder / "train")
    said = refused_data(image_folder)
    assert "has no train/ with a folder" in said
    assert "if one of these is a class, put all classes into a folder train/" in said


def test_a_test_part_alone_is_named_as_a_folder_of_classes(image_folder):
    shutil.rmtree(image_folder / "train")
    said = refused_data(image_folder)
    assert f"or give {image_folder / 'test'}, which has classes" in said
    assert load_images(image_folder / "test", holdout=2).classes == ("cat", "dog")


def test_parts_of_other_classes_are_told_by_a_few(image_folder):
    for i in range(20):
        shutil.copytree(image_folder / "train/cat", image_folder / f"train/c{i:02}")
    said = refused_data(image_folder)
    assert "differ in c00, c01, c02, c03, c04 and 15 more: mend that, or rename test/" in said


def test_a_training_part_without_classes_or_labels(image_folder, tmp_path):
    train = tmp_path / "flat/train"
    train.mkdir(parents=True)
    shutil.copy(image_folder / "train/cat/0000.png", train)
    said = refused_data(train.parent)
    assert "has no train/ with a folder of images for each class: add it, or Kaggle's" in said


@pytest.fixture
def kaggle(image_folder, tmp_path):
    """The training images of `image_folder` as Kaggle lays them out."""
    top = tmp_path / "kaggle"
    for part in ("train", "test"):
        (top / part).mkdir(parents=True)
    rows = ["id,label"]
    for i, path in enumerate(sorted(image_folder.glob("train/*/*")), 1):
        shutil.copy(path, top / f"train/{i:02}.png")
        rows.append(f"{i:02},{path.parent.name}")
    shutil.copy(path, top / "test/1.png")
    (top / "trainLabels.csv").write_text("\n".join(rows) + "\n")
    (top / "sampleSubmission.csv").write_text("id,label\n1,cat\n")
    return top


def test_kaggles_list_of_labels(image_folder, kaggle, tmp_path):
    shutil.rmtree(image_folder / "test")
    expected = load_images(image_folder, holdout=4)
    for data in (kaggle, pack(kaggle, tmp_path / "packed.tar", "w")):
        assert WITHOUT_TEST in refused_data(data)
        images = load_images(data, holdout=4)
        assert images.fingerprint == expected.fingerprint
        assert (images.valid.images == expected.valid.images).all()
        top = "" if data == kaggle else "kaggle/"
        assert images.notes == (
            f"read as: trained on {top}train/ with the labels of trainLabels.csv, no test part, "
            "not read: test/",
        )


@pytest.mark.parametrize("beside", [(), ("a", "b")])
def test_a_list_goes_before_folders_that_are_no_classes(kaggle, tmp_path, beside):
    """The training images unpacked into a folder of that name, or with others beside them."""
    before = load_images(kaggle, holdout=4)
    if beside:
        for name in beside:
            shutil.copytree(kaggle / "test", kaggle / "train" / name)
    else:
        nested(kaggle, tmp_path, "train")
    again = load_images(kaggle, holdout=4)
    assert (again.classes, again.fingerprint) == (before.classes, before.fingerprint)


def test_folders_of_classes_go_before_a_list(image_folder):
    before = load_images(image_folder).fingerprint
    (image_folder / "trainLabels.csv").write_text("id,label\n")
    assert load_images(image_folder).fingerprint == before


def test_blanks_around_the_fields_of_a_list_mean_nothing(kaggle):
    before = load_images(kaggle, holdout=4)
    labels = kaggle / "trainLabels.csv"
    first, *rows = labels.read_text().split()
    rows = [f" {row.replace(',', ' , ')}{' ' * (i % 2)}" for i, row in enumerate(rows)]
    labels.write_text("\n".join([first, *rows, " , ", " "]) + "\n")
    again = load_images(kaggle, holdout=4)
    assert (again.classes, again.fingerprint) == (before.classes, before.fingerprint)


def test_a_list_of_other_images(kaggle):
    (kaggle / "train/13.png").symlink_to("12.png")
    assert load_images(kaggle, holdout=4).notes[1].startswith("left out, as no image of a class: 1")
    (kaggle / "train/12.png").unlink()
    (kaggle / "train/13.png").unlink()
    with pytest.raises(
        S11Error, match=r"1 of 12 images in trainLabels.csv are not in train/, .*12"
    ):
        load_images(kaggle, holdout=4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "its first line is not id,label"),
        (b"name,class\n01,cat\n", "its first line is not id,label"),
        (b"id,label\n", "it is empty"),
        (b"id,label\n01,cat,dog\n", "line 2 is no id and label"),
        (b"id,label\n01,\n", "line 2 is no id and label"),
        (b"id,label\n ,cat\n", "line 2 is no id and label"),
        (b"id,label\n01,cat\n01,dog\n", "line 3 has another label for '01'"),
        (b"id,label\n01,\xff\n", "can't decode"),
        (b"id,label\n" + b"\n" * 2_000_000, "more than 2,000,000 lines"),
    ],
)
def test_a_list_that_is_none(kaggle, text, says):
    (kaggle / "trainLabels.csv").write_bytes(text)
    with pytest.raises(S11Error, match=f"trainLabels.csv is no list of labels .*{says}"):
        load_images(kaggle, holdout=4)


def test_both_unicode_forms_of_a_name_are_one_class(image_folder, tmp_path, rng):
    composed, decomposed = "caf\xe9", "cafe\u0301"
    (image_folder / "train/cat").rename(image_folder / "train" / composed)
    (image_folder / "test/cat").rename(image_folder / "test" / decomposed)
    images = load_images(image_folder)
    assert images.classes == (composed, "dog")
    other = write_folder(tmp_path / "other", rng, classes=(decomposed, "dog"))
    shutil.copytree(other / "train" / decomposed, image_folder / "train" / decomposed)
    images = load_images(image_folder)
    assert images.classes == (composed, "dog")
    assert images.train.labels.tolist() == [0] * 12 + [1] * 6


def test_only_what_may_be_data_is_listed(image_folder, tmp_path, monkeypatch):
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(
        tree.os, "scandir", lambda folder: (listed.append(folder), scandir(folder))[1]
    )
    assert "does not exist" in refused_data(tmp_path / "nowhere")
    assert listed == []
    (image_folder / "runs/first/figures").mkdir(parents=True)
    load_images(image_folder)
    assert not [folder for folder in listed if "first" in str(folder)]


def test_pictures_without_a_suffix_make_their_folder_a_class(image_folder):
    """Their content tells, as it does below train/."""
    top = image_folder / "train"
    classes = load_images(image_folder).classes
    for name in classes[1:]:
        for path in (top / name).iterdir():
            path.rename(path.with_suffix(""))
    (top / "scripts").mkdir()
    (top / "scripts/LICENSE").write_text("text")
    images = load_images(top, holdout=2)
    assert images.classes == classes
    note = f"{len(classes)} folders, each a class, no test part, not read: scripts/"
    assert images.notes == (f"read as: {note}",)
