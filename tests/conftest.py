"""Tiny data that the tests build themselves, and a home of fastai's that is theirs alone."""

import os
import sys
import tempfile
from pathlib import Path

# Before anything asks fastai where its folders are: it asks once.
os.environ["FASTAI_HOME"] = tempfile.mkdtemp(prefix="s11-tests-")
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import numpy as np
import pytest
from PIL import Image

from s11_fastai.sources import ImageSet, Part


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def write_folder(top: Path, rng, classes=("cat", "dog"), n_train=6, n_test=3) -> Path:
    """An image folder of PNGs of noise, whose brightness tells the class."""
    for part, n in (("train", n_train), ("test", n_test)):
        for label, name in enumerate(classes):
            folder = top / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 100, (32, 32, 3)) + 70 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:04d}.png")
    return top


@pytest.fixture
def image_folder(tmp_path, rng) -> Path:
    return write_folder(tmp_path / "pets", rng)


def random_images(rng, n_train=40, n_valid=24, classes=("ant", "bee", "cow")) -> ImageSet:
    """An ImageSet of noise whose classes differ in brightness, so that it can be learned."""

    def part(n: int) -> Part:
        labels = np.arange(n) % len(classes)
        pixels = rng.integers(0, 100, (n, 32, 32, 3)) + (labels * 70)[:, None, None, None]
        return Part(pixels.astype(np.uint8), labels)

    return ImageSet("noise", tuple(classes), part(n_train), part(n_valid), "f" * 64)


@pytest.fixture
def images(rng) -> ImageSet:
    return random_images(rng)
