import numpy as np
import pytest
from PIL import Image

from s11_fastai import load_images
from s11_fastai.sources import known
from s11_fastai.sources.known import SUMS, sums_of

# As they are published, of bytes.
MEAN = (125.306918046875, 122.950394140625, 113.86538318359375)
STD = (62.993219278136884, 62.08870764001421, 66.70489964063091)


def test_the_sums_are_those_of_the_published_mean_and_standard_deviation():
    n = 50_000 * 32 * 32
    for (total, squares), mean, std in zip(SUMS, MEAN, STD, strict=True):
        assert total == mean * n
        assert np.sqrt(squares / n - mean**2) == pytest.approx(std, rel=1e-13)


def test_sums_of_channels(rng):
    images = rng.integers(0, 256, (1_003, 4, 4, 3), dtype=np.uint8)
    exact = images.astype(np.int64).reshape(-1, 3)
    expected = zip(exact.sum(0).tolist(), (exact**2).sum(0).tolist(), strict=True)
    assert sums_of(images) == tuple(expected)


def test_the_original_is_known_in_any_order_and_not_with_another_pixel(image_folder, monkeypatch):
    images = load_images(image_folder)
    monkeypatch.setattr(known, "CLASSES", images.classes)
    monkeypatch.setattr(known, "N_TRAIN", 6)
    monkeypatch.setattr(known, "N_TEST", 3)
    monkeypatch.setattr(known, "SUMS", sums_of(images.train.images))
    test = images.valid.images.reshape(-1, 3) / 255
    monkeypatch.setattr(known, "TEST_STATS", (test.mean(0), test.std(0)))
    (image_folder / "train/cat/0000.png").rename(image_folder / "train/cat/9.png")
    assert load_images(image_folder).name == "CIFAR-10"
    (image_folder / "train/cat/9.png").rename(image_folder / "train/dog/9.png")
    assert load_images(image_folder).name == "pets"
    path = (image_folder / "train/dog/9.png").rename(image_folder / "train/cat/9.png")
    before, pixels = path.read_bytes(), np.asarray(Image.open(path)).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert load_images(image_folder).name == "pets"
    (image_folder / "train/cat/9.png").write_bytes(before)
    assert load_images(image_folder).name == "CIFAR-10"
    for path in (image_folder / "test").rglob("*.png"):  # as CIFAR-10-C distorts them
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    assert load_images(image_folder).name == "pets"


@pytest.mark.parametrize("name", ["CIFAR-10", "CIFAR-10, mine", "CIFAR-100"])
def test_strange_images_get_no_name_that_certifies(image_folder, name):
    assert load_images(image_folder.rename(image_folder.parent / name)).name == f"unverified {name}"
