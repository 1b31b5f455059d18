"""Fixtures that several test files share."""

from pathlib import Path

import helpers  # noqa: F401 - first: it gives fastai a home of the tests' own
import numpy as np
import pytest
import run
from helpers import BOUNDS, SMALL, no_pictures_of_predictions, random_images, write_folder

from s11_fastai.sources import ImageSet


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def image_folder(tmp_path, rng) -> Path:
    return write_folder(tmp_path / "pets", rng)


@pytest.fixture
def fastai_home(tmp_path, monkeypatch):
    """A home of fastai's that it has not looked at yet."""
    from fastai.data.external import fastai_cfg

    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    fastai_cfg.cache_clear()
    yield tmp_path / "home"
    fastai_cfg.cache_clear()


@pytest.fixture
def images(rng) -> ImageSet:
    return random_images(rng)


@pytest.fixture(scope="session")
def pets(tmp_path_factory) -> Path:
    return write_folder(
        tmp_path_factory.mktemp("data") / "pets", np.random.default_rng(0), n_train=25, n_test=10
    )


@pytest.fixture(scope="session")
def finished(pets, tmp_path_factory):
    """One run with the range test: its folder and its Learner."""
    out = tmp_path_factory.mktemp("runs") / "a"
    learn = run.main(["--data", str(pets), "--out", str(out), *SMALL])
    return out, learn


@pytest.fixture(scope="module")
def fewer_pictures():
    with no_pictures_of_predictions():
        yield


@pytest.fixture(scope="session")
def undisturbed(pets, tmp_path_factory):
    """A run from its beginning to its end: its folder, its Learner, its flags but --out."""
    out, argv = tmp_path_factory.mktemp("runs") / "whole", ["--data", str(pets), *SMALL, *BOUNDS]
    with no_pictures_of_predictions():
        return out, run.main([*argv, "--out", str(out)]), argv


@pytest.fixture
def argv(pets, tmp_path):
    return ["--data", pets, "--out", tmp_path / "r", *SMALL, *BOUNDS]
