import shutil

import numpy as np
import pytest
from helpers import refused_data
from PIL import Image

from s11_fastai import load_images
from s11_fastai.sources.digits import load_digits


def test_a_folder_is_read_in_the_order_of_its_names(image_folder):
    images = load_images(image_folder)
    assert images.classes == ("cat", "dog")
    assert images.name == "pets"
    assert (images.train.images.shape, images.valid.images.shape) == (
        (12, 32, 32, 3),
        (6, 32, 32, 3),
    )
    assert images.train.labels.tolist() == [0] * 6 + [1] * 6
    pixels = np.asarray(Image.open(image_folder / "test/dog/0002.png"))
    np.testing.assert_array_equal(images.valid.images[5], pixels)
    assert images.train.images.dtype == np.uint8
    assert images.train.labels.dtype == np.int64


def test_greyscale_palette_alpha_and_16_bit_become_rgb(image_folder):
    grey = np.arange(1024, dtype=np.uint8).reshape(32, 32)
    where = image_folder / "train/cat"
    Image.fromarray(grey).save(where / "a.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(where / "b.png")
    Image.fromarray(np.dstack([grey] * 3 + [grey // 2])).save(where / "c.png")
    Image.fromarray(grey).convert("P").save(where / "d.png")
    images = load_images(image_folder).train.images[6:10]
    for image in images:
        np.testing.assert_array_equal(image, np.dstack([grey] * 3))


def test_jpeg_is_read_as_pillow_reads_it(image_folder, rng):
    path = image_folder / "train/cat/a.jpg"
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    np.testing.assert_array_equal(
        load_images(image_folder).train.images[6], np.asarray(Image.open(path))
    )


def test_a_folder_may_lie_one_deeper_and_hold_other_files(image_folder, tmp_path):
    (image_folder / "labels.txt").write_text("cat\ndog\n")
    (image_folder / "train/cat/.DS_Store").write_bytes(b"finder")
    assert load_images(tmp_path).fingerprint == load_images(image_folder).fingerprint


def test_no_such_path(tmp_path):
    assert "does not exist" in refused_data(tmp_path / "nowhere")
    assert "does not exist" in refused_data("")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_part(image_folder, part):
    shutil.rmtree(image_folder / part)
    assert f"no {part}/" in refused_data(image_folder)


def test_an_empty_folder(tmp_path):
    assert "neither" in refused_data(tmp_path)


def test_an_empty_class(image_folder):
    (image_folder / "train" / "eel").mkdir()
    (image_folder / "test" / "eel").mkdir()
    assert "train/eel" in refused_data(image_folder)


def test_classes_that_differ(image_folder):
    (image_folder / "test/dog").rename(image_folder / "test/fox")
    assert "dog, fox" in refused_data(image_folder)


def test_files_that_are_no_images_are_named_and_counted(image_folder):
    for name in ("0001.png", "0003.png"):
        (image_folder / "train/dog" / name).write_bytes(b"nothing")
    message = refused_data(image_folder)
    assert "2 of 18 files" in message
    assert "train/dog/0001.png" in message


def test_a_truncated_image(image_folder):
    path = image_folder / "test/cat/0000.png"
    path.write_bytes(path.read_bytes()[:200])
    assert "test/cat/0000.png" in refused_data(image_folder)


def test_another_size(image_folder):
    Image.new("RGB", (28, 28)).save(image_folder / "train/cat/0000.png")
    assert "28x28" in refused_data(image_folder)


def test_digits_are_split_stratified_and_fixed():
    images = load_images("digits")
    assert (len(images.train.labels), len(images.valid.labels)) == (1442, 355)
    shares = np.bincount(images.valid.labels) / np.bincount(
        np.concatenate([images.train.labels, images.valid.labels])
    )
    assert (np.abs(shares - 0.2) < 0.01).all()
    assert images.train.images.shape[1:] == (32, 32, 3)
    assert images.fingerprint == load_images("digits").fingerprint


def test_digits_are_enlarged_smoothly_and_are_not_to_be_mirrored():
    images, blocks = load_images("digits"), load_digits(smooth=False)
    assert not images.mirror
    assert "never mirrored" in images.describe()
    assert images.hold_out(50).mirror is False
    pixels = images.train.images[:, ::4, ::4], blocks.train.images[:, ::4, ::4]
    # Of blocks, all pixels are their corner's; of smooth ones few are.
    alike = [
        (split.train.images == p.repeat(4, 1).repeat(4, 2)).mean()
        for split, p in zip((images, blocks), pixels, strict=True)
    ]
    assert alike[0] < 0.6
    assert alike[1] == 1
    difference = images.train.images.mean((1, 2)) - blocks.train.images.mean((1, 2))
    assert np.abs(difference).max() < 8
    np.testing.assert_array_equal(images.train.labels, blocks.train.labels)
    # The digits of version 0.1.0, so that its runs open.
    assert blocks.fingerprint.startswith("e016f0e2412b")
    assert blocks.mirror


@pytest.mark.parametrize("name", ["bell\x07", "two\nlines", "\x1b]0;title", "caf\udce9"])
def test_a_class_that_is_no_printable_text_is_refused(image_folder, name):
    for part in ("train", "test"):
        (image_folder / part / "dog").rename(image_folder / part / name)
    said = refused_data(image_folder)
    assert "is no printable text" in said
    assert said.isprintable()


def test_a_folders_unprintable_name_is_shown_with_escapes(image_folder):
    renamed = image_folder.rename(image_folder.parent / "caf\udce9 \x1b[2J")
    assert load_images(renamed).name == r"caf\udce9 \x1b[2J"
