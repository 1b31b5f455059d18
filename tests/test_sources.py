import hashlib
import io
import os
import pickle
import shutil
import socket
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_folder
from PIL import Image

from s11_fastai import load_images
from s11_fastai.errors import S11Error
from s11_fastai.sources import archive, batches, cache, fingerprint, folder
from s11_fastai.sources.archive import archive_tree
from s11_fastai.sources.download import download


def pack(top, target, mode="w:gz"):
    with tarfile.open(target, mode) as tar:
        tar.add(top, arcname=top.name)
    return target


def pack_members(target, *members: tarfile.TarInfo):
    with tarfile.open(target, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return target


def refused(data) -> str:
    with pytest.raises(S11Error) as error:
        load_images(data)
    assert "\n" not in str(error.value)
    return str(error.value)


# Folders


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
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "does not exist" in refused("")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_part(image_folder, part):
    shutil.rmtree(image_folder / part)
    assert f"no {part}/" in refused(image_folder)


def test_an_empty_folder(tmp_path):
    assert "neither" in refused(tmp_path)


def test_an_empty_class(image_folder):
    (image_folder / "train" / "eel").mkdir()
    (image_folder / "test" / "eel").mkdir()
    assert "train/eel" in refused(image_folder)


def test_classes_that_differ(image_folder):
    (image_folder / "test/dog").rename(image_folder / "test/fox")
    assert "dog, fox" in refused(image_folder)


def test_files_that_are_no_images_are_named_and_counted(image_folder):
    for name in ("0001.png", "0003.png"):
        (image_folder / "train/dog" / name).write_bytes(b"nothing")
    message = refused(image_folder)
    assert "2 of 18 files" in message
    assert "train/dog/0001.png" in message


def test_a_truncated_image(image_folder):
    path = image_folder / "test/cat/0000.png"
    path.write_bytes(path.read_bytes()[:200])
    assert "test/cat/0000.png" in refused(image_folder)


def test_another_size(image_folder):
    Image.new("RGB", (28, 28)).save(image_folder / "train/cat/0000.png")
    assert "28x28" in refused(image_folder)


# Fingerprint and cache


def test_a_copied_folder_is_the_same_data_and_a_changed_pixel_is_not(image_folder, tmp_path):
    first = load_images(image_folder)
    copied = shutil.copytree(image_folder, tmp_path / "copy")
    assert load_images(copied).fingerprint == first.fingerprint
    pixels = np.asarray(Image.open(copied / "train/cat/0000.png")).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(copied / "train/cat/0000.png")
    assert load_images(copied).fingerprint != first.fingerprint


def test_a_second_start_reads_no_image_file(image_folder, monkeypatch):
    first = load_images(image_folder)

    def decoded_again(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(folder, "_decode_all", decoded_again)
    second = load_images(image_folder)
    np.testing.assert_array_equal(first.train.images, second.train.images)
    assert second.name == first.name
    os.utime(image_folder / "train/cat/0000.png", ns=(1, 1))
    with pytest.raises(AssertionError, match="decoded again"):
        load_images(image_folder)


def test_an_empty_class_that_is_added_later_is_refused_too(image_folder):
    load_images(image_folder)
    (image_folder / "train" / "eel").mkdir()
    assert "train/eel" in refused(image_folder)


def test_the_cache_is_a_private_map_of_its_file(image_folder):
    first = load_images(image_folder)
    assert "s11-cache" in Path("/proc/self/maps").read_text()
    first.train.images[:] = 0
    assert load_images(image_folder).train.images.any()


def test_a_renamed_archive_is_called_by_its_new_name(image_folder, tmp_path):
    packed = pack(image_folder, tmp_path / "old.tgz")
    assert load_images(packed).name == "old"
    assert load_images(packed.rename(tmp_path / "new.tgz")).name == "new"


def test_a_damaged_cache_is_made_again(tmp_path, images):
    kept = cache.cached(tmp_path, "key", lambda: images_with_true_fingerprint(images))
    path = tmp_path / "key.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole[:-5] + b"abcde", b"", b"not safetensors"):
        path.write_bytes(damaged)
        again = cache.cached(tmp_path, "key", lambda: images_with_true_fingerprint(images))
        np.testing.assert_array_equal(again.train.images, kept.train.images)
        assert path.read_bytes() == whole


def images_with_true_fingerprint(images):
    mark = fingerprint(images.classes, images.train, images.valid)
    return replace(images, fingerprint=mark)


# Archives


@pytest.mark.parametrize(("ending", "mode"), [("tgz", "w:gz"), ("tar.gz", "w:gz"), ("tar", "w")])
def test_an_archive_is_the_same_data_as_its_folder(image_folder, tmp_path, ending, mode):
    packed = pack(image_folder, tmp_path / f"pets.{ending}", mode)
    images = load_images(packed)
    assert images.fingerprint == load_images(image_folder).fingerprint
    assert images.name == "pets"


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_an_archive_cut_short(image_folder, tmp_path, mode):
    whole = pack(image_folder, tmp_path / "pets.tar", mode).read_bytes()
    for end in (0, 1, 700, len(whole) // 2, len(whole) // 2 // 512 * 512, len(whole) - 10_240):
        (tmp_path / "cut.tar").write_bytes(whole[:end])
        assert "cut short" in refused(tmp_path / "cut.tar")


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "train/../../x.png", "C:x", "a\\..\\x"])
def test_a_member_that_climbs_out_of_its_folder(tmp_path, name):
    member = tarfile.TarInfo("x")
    member.name = name
    message = refused(pack_members(tmp_path / "evil.tar", member))
    assert "leads out" in message


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
    ],
)
def test_links_devices_and_sparse_files_in_an_archive(tmp_path, kind):
    member = tarfile.TarInfo("train/cat/link.png")
    member.type, member.linkname = kind, "/etc/passwd"
    assert "no plain file" in refused(pack_members(tmp_path / "evil.tar", member))


def test_an_archive_that_unpacks_to_too_much(tmp_path):
    member = tarfile.TarInfo("train/cat/0.png")
    member.size = 50_000
    pack_members(tmp_path / "large.tar", member)
    packed = pack(tmp_path / "large.tar", tmp_path / "large.tgz")
    assert packed.stat().st_size < 10_000
    with pytest.raises(S11Error, match="unpacks to more than 20,000 bytes"):
        archive_tree(packed, max_unpacked=20_000)


def test_a_member_that_claims_to_be_huge(tmp_path):
    claimed = tarfile.TarInfo("train/cat/0.png")
    claimed.size = archive.MAX_UNPACKED + 1
    (tmp_path / "claim.tar").write_bytes(claimed.tobuf() + bytes(10_240))
    assert "unpacks to more" in refused(tmp_path / "claim.tar")


def test_reading_an_archive_writes_nothing(image_folder, tmp_path):
    packed = pack(image_folder, tmp_path / "pets.tgz")
    before = sorted(tmp_path.rglob("*"))
    load_images(packed)
    assert sorted(tmp_path.rglob("*")) == before


# CIFAR-10's batches


def write_batches(top, rng, n=4, protocol=2):
    top.mkdir()
    pixels = {}
    for name in batches.PUBLISHED:
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
        assert "not plain data" in refused(top)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {b"data": b"abc", b"labels": [0]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [9]},
        {b"data": np.zeros((1, 3072), np.float32), b"labels": [0]},
        {b"data": np.array([Evil("/x")], dtype=object), b"labels": [0]},
    ],
)
def test_batches_of_other_contents(tmp_path, rng, value):
    top = tmp_path / "cifar-10-batches-py"
    write_batches(top, rng)
    (top / "test_batch").write_bytes(pickle.dumps(value, protocol=2))
    refused(top)


def test_missing_and_broken_batches(tmp_path, rng):
    top = tmp_path / "cifar-10-batches-py"
    write_batches(top, rng)
    whole = (top / "data_batch_1").read_bytes()
    (top / "data_batch_1").write_bytes(whole[:100])
    assert "no CIFAR-10 batches" in refused(top)
    (top / "test_batch").unlink()
    assert "lacks test_batch" in refused(top)


def test_the_published_files_are_those_that_torchvision_names():
    from torchvision.datasets import CIFAR10

    from s11_fastai.sources.download import MD5, URL

    assert (CIFAR10.url, CIFAR10.tgz_md5) == (URL, MD5)
    listed = dict([*CIFAR10.train_list, *CIFAR10.test_list])
    assert listed | {"batches.meta": CIFAR10.meta["md5"]} == batches.PUBLISHED


# Digits and downloads


def test_digits_are_split_stratified_and_fixed():
    images = load_images("digits")
    assert (len(images.train.labels), len(images.valid.labels)) == (1442, 355)
    shares = np.bincount(images.valid.labels) / np.bincount(
        np.concatenate([images.train.labels, images.valid.labels])
    )
    assert (np.abs(shares - 0.2) < 0.01).all()
    assert images.train.images.shape[1:] == (32, 32, 3)
    assert images.fingerprint == load_images("digits").fingerprint


def test_a_download_is_kept_only_whole(tmp_path):
    source = tmp_path / "published.tar.gz"
    source.write_bytes(b"published")
    md5 = hashlib.md5(b"published").hexdigest()
    target = tmp_path / "archive" / "copy.tar.gz"
    with pytest.raises(S11Error, match="not the published archive"):
        download(target, source.as_uri(), "0" * 32)
    assert not list(target.parent.iterdir())
    assert download(target, source.as_uri(), md5).read_bytes() == b"published"


def test_no_network_and_no_copy(tmp_path):
    with pytest.raises(S11Error, match="--data digits"):
        download(tmp_path / "copy.tar.gz", (tmp_path / "absent").as_uri())
    assert not list(tmp_path.iterdir())


def test_a_server_that_falls_silent_times_out(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cifar.tar.gz"
        with pytest.raises(S11Error, match="timed out"):
            download(tmp_path / "copy.tar.gz", url, timeout=0.1)
    assert not list(tmp_path.iterdir())


def test_without_a_path_a_copy_in_fastais_folder_is_used(rng, monkeypatch):
    from fastai.data.external import fastai_path

    from s11_fastai import sources

    monkeypatch.setattr(sources, "download", lambda path: pytest.fail("asked the network"))
    (fastai_path("data") / "cifar10").mkdir(parents=True)  # empty: not data
    with pytest.raises(pytest.fail.Exception):
        load_images()
    write_folder(fastai_path("data") / "cifar10", rng)
    assert load_images().name == "cifar10"
