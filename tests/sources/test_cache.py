import errno
import fcntl
import multiprocessing
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import pack, refused_data
from PIL import Image
from processes import in_processes

from s11_fastai import load_images
from s11_fastai.sources import cache, fastai_folder, fingerprint, folder
from s11_fastai.storage import write_tensors


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

    monkeypatch.setattr(folder, "decode_all", decoded_again)
    second = load_images(image_folder)
    np.testing.assert_array_equal(first.train.images, second.train.images)
    assert second.name == first.name
    os.utime(image_folder / "train/cat/0000.png", ns=(1, 1))
    with pytest.raises(AssertionError, match="decoded again"):
        load_images(image_folder)


def test_pictures_of_one_size_and_time_that_change_places_are_read_again(image_folder):
    cat, dog = image_folder / "train/cat/0000.png", image_folder / "train/dog/0000.png"
    for path in (cat, dog):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
        os.utime(path.with_suffix(".bmp"), ns=(1, 1))
    cat, dog = cat.with_suffix(".bmp"), dog.with_suffix(".bmp")
    before = load_images(image_folder)
    cat.rename(aside := image_folder / "aside")
    dog.rename(cat)
    aside.rename(dog)
    after = load_images(image_folder)
    own = [np.flatnonzero(before.train.labels == label)[0] for label in (0, 1)]
    assert np.array_equal(after.train.images[own], before.train.images[own[::-1]])


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are forked")
def test_of_processes_that_start_at_once_one_decodes_and_all_get_the_same(image_folder, tmp_path):
    decode_all, at_once = folder.decode_all, multiprocessing.get_context("fork").Barrier(4)

    def counted(*args):
        with (tmp_path / "decoded").open("a") as file:
            file.write("once\n")
        return decode_all(*args)

    def work():
        folder.decode_all = counted
        at_once.wait(60)
        images = load_images(image_folder)
        return fingerprint(images.classes, images.train, images.valid)

    assert set(in_processes(4, work)) == {load_images(image_folder).fingerprint}
    assert (tmp_path / "decoded").read_text() == "once\n"


def test_without_locks_it_is_decoded_all_the_same(image_folder, monkeypatch):
    def no_locks(*_):
        raise NotImplementedError("this file system")

    monkeypatch.setattr(cache.FileLock, "acquire", no_locks)
    assert len(load_images(image_folder).train.labels) == 12


def test_without_locks_no_marker_is_left_that_a_killed_process_would_hold(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with cache._one_at_a_time(tmp_path / "lock"):
        assert not any(path.read_bytes() for path in tmp_path.iterdir())


def kept() -> set[Path]:
    return set((fastai_folder("data") / "s11-cache").glob("*.safetensors"))


def test_output_below_the_data_makes_no_new_cache(image_folder):
    before = kept()
    load_images(image_folder)
    (made,) = kept() - before
    for name in ("run1", "runs/first", "valid"):
        (image_folder / name).mkdir(parents=True)
        (image_folder / name / "history.csv").write_text("epoch")
        assert load_images(image_folder).notes == (() if name != "valid" else (NOT_VALID,))
    assert kept() - before == {made}


NOT_VALID = "read as: trained on train/, test part test/, not read: valid/"


def test_a_new_cache_takes_the_place_of_older_ones(image_folder, tmp_path):
    """Of the same place in the same size, and of places that are gone."""
    before = kept()
    load_images(image_folder)
    load_images(image_folder, size=40)
    first = kept() - before
    assert len(first) == 2
    os.utime(image_folder / "train/cat/0000.png", ns=(1, 1))
    load_images(image_folder)
    second = kept() - before
    assert len(second) == 2
    assert len(first & second) == 1  # that of the other size
    copy = image_folder.rename(tmp_path / "moved")
    load_images(copy)
    third = kept() - before
    assert len(third) == 1
    shutil.copytree(copy, tmp_path / "another")
    load_images(tmp_path / "another")
    assert len(kept() - before) == 2
    assert third < kept()
    (strange,) = third
    strange.write_bytes(b"not safetensors")
    os.utime(tmp_path / "another/train/cat/0000.png", ns=(2, 2))
    load_images(tmp_path / "another")
    assert not strange.exists()
    assert len(kept() - before) == 1


def test_the_cache_of_a_disk_that_is_not_there_stays(image_folder, tmp_path):
    before = kept()
    disk = tmp_path / "disk"
    shutil.copytree(image_folder, disk / "pets")
    load_images(disk / "pets")
    (of_the_disk,) = kept() - before
    disk.rename(tmp_path / "unplugged")
    load_images(image_folder)
    assert of_the_disk in kept()


def test_a_neighbour_that_cannot_go_stays_and_the_new_one_is_kept(image_folder, monkeypatch):
    def refuses(path, **_):
        raise PermissionError(errno.EPERM, "another user's", str(path))

    before = kept()
    load_images(image_folder)
    (old,) = kept() - before
    os.utime(image_folder / "train/cat/0000.png", ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuses)
        assert load_images(image_folder).notes == ()
    assert old in kept()
    assert len(kept() - before) == 2


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_where_nothing_can_be_kept_the_images_come_with_a_note(image_folder, monkeypatch, number):
    def refuses(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cache, "write_tensors", refuses)
    before = kept()
    for _ in range(2):
        images = load_images(image_folder)
        assert len(images.train.labels) == 12
        (note,) = images.notes
        assert note.startswith("decoded at every start, as nothing can be kept in ")
        assert note.endswith(f"s11-cache ({os.strerror(number)})")
    assert kept() == before


def test_a_cache_whose_name_is_not_unicode_is_mapped_too(tmp_path, images):
    folder = tmp_path / "caf\udce9"
    first = cache.cached(folder, "key", lambda: images_with_true_fingerprint(images))
    second = cache.cached(folder, "key", lambda: pytest.fail("decoded again"))
    np.testing.assert_array_equal(first.train.images, second.train.images)
    assert b"caf\xe9/key" in Path("/proc/self/maps").read_bytes()


def test_an_empty_class_that_is_added_later_is_refused_too(image_folder):
    load_images(image_folder)
    (image_folder / "train" / "eel").mkdir()
    assert "train/eel" in refused_data(image_folder)


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


@pytest.mark.parametrize("source", [None, 5, [], ["/", 32, 1], [5, 32], ["a\0b", 32]], ids=str)
def test_a_neighbour_that_is_damaged_goes(tmp_path, images, source):
    """What it says of itself is read without its checksum."""
    neighbour = tmp_path / "other.safetensors"
    write_tensors(neighbour, {}, {"format": cache._FORMAT, "source": source})
    cache.cached(tmp_path, "key", lambda: images)
    assert not neighbour.exists()


def images_with_true_fingerprint(images):
    mark = fingerprint(images.classes, images.train, images.valid)
    return replace(images, fingerprint=mark)
