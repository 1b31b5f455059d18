import os
import pickle
import re

import numpy as np
import pytest
from helpers import pack, refused_data

from s11_fastai import load_images
from s11_fastai.sources import cifar_batches as batches


def write_batches(top, rng, n=4, protocol=2):
    top.mkdir()
    pixels = {}
    for name in batches.CIFAR10.md5:
        if name == "batches.meta":
            value = {b"label_names": [b"airplane", b"automobile", b"bird"], b"num_vis": 3072}
        else:
            pixels[name] = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
            value = {b"data": pixels[name], b"labels": [i % 3 for i in range(n)], b"x": "é"}
        (top / name).write_bytes(pickle.dumps(value, protocol=protocol))
    return pixels


@pytest.mark.parametrize("protocol", [2, 4])
def test_batches_are_read_as_torchvision_reads_them(tmp_path, rng, protocol):
    pixels = write_batches(tmp_path / "cifar-10-batches-py", rng, protocol=protocol)
    images = load_images(tmp_path / "cifar-10-batches-py")
    assert images.classes == ("airplane", "automobile", "bird")
    expected = pixels["data_batch_2"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(images.train.images[4:8], expected)
    assert images.valid.labels.tolist() == [0, 1, 2, 0]
    packed = pack(tmp_path / "cifar-10-batches-py", tmp_path / "batches.tar.gz")
    assert load_images(packed).fingerprint == images.fingerprint
    assert images.name != "CIFAR-10"  # only the published files are that


def test_cifar_100_is_read_with_its_fine_labels(tmp_path, rng):
    top = tmp_path / "cifar-100-python"
    top.mkdir()
    pixels = {name: rng.integers(0, 256, (n, 3072), dtype=np.uint8) for name, n in CIFAR100_PARTS}
    for name, n in CIFAR100_PARTS:
        fine = [i % 3 for i in range(n)]
        names = [b"%d.png" % i for i in range(n)]
        value = {b"data": pixels[name], b"fine_labels": fine, b"coarse_labels": [0] * n}
        (top / name).write_bytes(pickle.dumps(value | {b"filenames": names}, protocol=2))
    meta = {b"fine_label_names": [b"apple", b"bear", b"cup"], b"coarse_label_names": [b"thing"]}
    (top / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    images = load_images(tmp_path)
    assert images.classes == ("apple", "bear", "cup")
    expected = pixels["train"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(images.train.images, expected)
    assert images.valid.labels.tolist() == [0, 1, 2, 0]
    assert images.notes == ("read as: CIFAR-100's files, with the fine labels",)
    assert load_images(pack(top, tmp_path / "a.tar.gz")).fingerprint == images.fingerprint
    (top / "meta").write_bytes(pickle.dumps(["apple"], protocol=2))
    assert "meta holds no CIFAR-100 batch (it is no dict)" in refused_data(top)


CIFAR100_PARTS = (("train", 9), ("test", 4))


def test_the_limits_have_room_for_the_published_files():
    """50,000 images with a name and two labels each, as Python 2 wrote them."""
    of = batches.CIFAR100
    per_image = 2 + 1 + 1  # a name and its place in the memo; two labels
    assert of.max_instructions > 50_000 * per_image + 1_000
    assert of.max_bytes > 155_249_918  # the size of `train`


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_nothing(tmp_path, rng):
    top = tmp_path / "cifar-10-batches-py"
    write_batches(top, rng)
    for value in (Evil(tmp_path / "ran"), {b"data": Evil(tmp_path / "ran"), b"labels": [0]}):
        (top / "data_batch_3").write_bytes(pickle.dumps(value))
        assert "not plain data" in refused_data(top)
    assert not (tmp_path / "ran").exists()


PIXELS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "no dict"),
        ({}, "has no data"),
        ({b"data": PIXELS}, "has no labels"),
        ({b"data": b"abc", b"labels": [0, 1]}, "no array of bytes"),
        ({b"data": PIXELS, b"labels": [0]}, r"not of shape \(1, 3072\)"),
        ({b"data": PIXELS.reshape(-1), b"labels": [0, 1]}, "not of shape"),
        ({b"data": PIXELS.astype(np.float32), b"labels": [0, 1]}, "something else than bytes"),
        ({b"data": PIXELS.astype(np.int8), b"labels": [0, 1]}, "something else than bytes"),
        ({b"data": np.asfortranarray(PIXELS), b"labels": [0, 1]}, "column order"),
        ({b"data": np.array([Evil("/x")], dtype=object), b"labels": [0]}, "else than bytes"),
        ({b"data": PIXELS, b"labels": []}, "there is none"),
        ({b"data": PIXELS, b"labels": [0, 3]}, "not from 0 to 2"),
        ({b"data": PIXELS, b"labels": [0, -1]}, "not from 0 to 2"),
        ({b"data": PIXELS, b"labels": [0, 10**30]}, "not from 0 to 2"),
        ({b"data": PIXELS, b"labels": [0, 1.0]}, "whole numbers"),
        ({b"data": PIXELS, b"labels": [0, True]}, "whole numbers"),
        ({b"data": PIXELS, b"labels": [[0], [1]]}, "whole numbers"),
        ({b"data": PIXELS, b"labels": "01"}, "whole numbers"),
        ({b"data": PIXELS, b"labels": np.zeros(2, np.uint8)}, "whole numbers"),
    ],
)
def test_a_batch_of_other_contents_is_refused_by_name(tmp_path, rng, value, says):
    top = tmp_path / "cifar-10-batches-py"
    write_batches(top, rng)
    (top / "test_batch").write_bytes(pickle.dumps(value, protocol=2))
    said = refused_data(top)
    assert re.search(f"test_batch holds no CIFAR-10 batch .*{says}", said)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([b"ant", b"bee", b"ant"], "two classes that are called ant"),
        ([b"ant", b"bee", b"c\x1b[2J"], r"'c\\x1b\[2J' is no printable text"),
        ([b"ant", b"bee", b"\xff"], "batches.meta holds no .*can't decode"),
        ([b"ant", b"bee", b""], "no printable text"),
        ([b"ant", b"bee", b"c" * 101], "no printable text of 1 to 100 letters"),
        ([b"%d" % i for i in range(1001)], "has 1,001 classes"),
        # One object many times: a pickle holds it once, but each was decoded.
        ([b"c" * 500_000] * 2_000, "label_names has more than 800,000 letters"),
        ([], "a label is not from 0"),
        ([1, 2, 3], "no list of text"),
        ([b"ant", [b"bee"]], "no list of text"),
        (b"ant", "no list of text"),
        ({b"ant": b"bee"}, "no list of text"),
    ],
)
def test_class_names_that_are_no_names(tmp_path, rng, names, says):
    top = tmp_path / "cifar-10-batches-py"
    write_batches(top, rng)
    (top / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=4))
    assert re.search(says, refused_data(top))


def test_a_batch_that_is_too_large_or_no_file(tmp_path, rng):
    top = tmp_path / "cifar-10-batches-py"
    write_batches(top, rng)
    with (top / "data_batch_1").open("ab") as file:
        file.truncate(1 << 40)  # of holes alone
    assert "data_batch_1 holds no CIFAR-10 batch (it has more than 67,1" in refused_data(top)
    (top / "data_batch_1").unlink()
    os.mkfifo(top / "data_batch_1")
    assert refused_data(top)


def test_missing_and_broken_batches(tmp_path, rng):
    top = tmp_path / "cifar-10-batches-py"
    write_batches(top, rng)
    whole = (top / "data_batch_1").read_bytes()
    (top / "data_batch_1").write_bytes(whole[:100])
    assert "data_batch_1 holds no CIFAR-10 batch" in refused_data(top)
    (top / "test_batch").unlink()
    assert "lacks test_batch" in refused_data(top)


def test_the_published_files_are_those_that_torchvision_names():
    from torchvision.datasets import CIFAR10, CIFAR100

    from s11_fastai.sources.download import MD5, URL

    assert (CIFAR10.url, CIFAR10.tgz_md5) == (URL, MD5)
    for theirs, ours in ((CIFAR10, batches.CIFAR10), (CIFAR100, batches.CIFAR100)):
        listed = dict([*theirs.train_list, *theirs.test_list])
        assert listed | {theirs.meta["filename"]: theirs.meta["md5"]} == ours.md5
        assert theirs.meta["key"] == ours.label_names
