import errno
import os
import shutil
import signal
import sys
import tarfile
from unicodedata import normalize

import numpy as np
import pytest
from helpers import pack, refused_data
from PIL import Image
from test_cifar_batches import write_batches

from s11_fastai import load_images
from s11_fastai.errors import S11Error
from s11_fastai.signals import StopSignals
from s11_fastai.sources import folder as sources_folder
from s11_fastai.sources import tree
from s11_fastai.sources.digits import load_digits
from s11_fastai.sources.folder import process_mapper
from s11_fastai.sources.picture import read_picture
from s11_fastai.streams import printable


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
    assert "does not exist" in refused_data("x" * 5_000)
    assert "not 5" in refused_data(5)
    assert "'https://x/a.tgz' is an address: fetch it" in refused_data("https://x/a.tgz")


def test_a_folder_called_digits(image_folder, monkeypatch):
    image_folder.rename(image_folder.parent / "digits")
    monkeypatch.chdir(image_folder.parent)
    (note,) = load_images("digits").notes
    assert note.endswith("for the folder of that name give ./digits")
    assert load_images("./digits").classes == ("cat", "dog")


def test_a_path_below_a_closed_folder(tmp_path, monkeypatch):
    stat = os.stat

    def closed(path, *args, **kwargs):
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", closed)
    said = refused_data(tmp_path / "in")
    assert said == f"{tmp_path / 'in'} cannot be read (Permission denied): mend its permissions"


@pytest.mark.parametrize(
    ("name", "called"),
    [("v1.2 cats", "v1.2 cats"), ("2024.05.01", "2024.05.01"), (".hid", ".hid"), ("a\nb", "a\\nb")],
)
def test_a_folder_is_called_by_its_whole_name(image_folder, name, called):
    assert load_images(image_folder.rename(image_folder.parent / name)).name == called


@pytest.mark.parametrize("name", ["pets.tgz", "pets.tar.gz", "pets.TAR", "pets.zip"])
def test_an_archive_is_called_by_its_name_without_the_suffix(image_folder, tmp_path, name):
    assert load_images(pack(image_folder, tmp_path / "x").rename(tmp_path / name)).name == "pets"
    other = (tmp_path / name).rename(tmp_path / f"v1.2 {name}")
    assert load_images(other).name == "v1.2 pets"


@pytest.mark.parametrize("holdout", [4.0, "4", [4]])
def test_a_number_of_images_to_hold_out_that_is_none(image_folder, holdout):
    with pytest.raises(S11Error, match="`holdout` must be a whole number of images, not"):
        load_images(image_folder, holdout)


def test_a_name_of_two_lines_is_shown_on_one(image_folder):
    (image_folder / "train/a\nb.txt").write_text("mine")
    assert load_images(image_folder).notes == (
        "left out, as no image of a class: 1 of 19 files, the first train/a\\nb.txt",
    )
    (image_folder / "train/cat/a\nb.png").write_text("mine")
    assert r"train/cat/a\nb.png" in refused_data(image_folder)


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


def test_other_sizes_are_cut_and_resized_as_predicting_does_and_counted(image_folder, rng):
    sizes = [(28, 28)] * 3 + [(64, 48)] * 2 + [(90, 60), (31, 33), (32, 32)]
    paths = [image_folder / f"test/cat/x{i}.jpg" for i in range(len(sizes))]
    for path, (width, height) in zip(paths, sizes, strict=True):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    for side, n in ((32, 7), (40, 26)):
        images = load_images(image_folder, size=side)
        assert images.shape == (side, side)
        for path, trained in zip(paths, images.valid.images[3:], strict=False):
            np.testing.assert_array_equal(read_picture(path, (side, side)), trained)
        (line,) = images.notes
        assert line.startswith(f"{n} of 26 images are cut to a square and resized to {side}x{side}")
    assert line.endswith(": 19 of 32x32, 3 of 28x28, 2 of 64x48, 2 of 2 other sizes")
    assert load_images(image_folder, size=40).notes == images.notes  # from the cache, too
    assert load_images(image_folder).shape == (32, 32)
    with pytest.raises(S11Error, match="`size` must be a whole number of pixels from 8, not 7"):
        load_images(image_folder, size=7)


def test_the_digits_and_the_batches_come_in_other_sizes_too(tmp_path, rng):
    write_batches(tmp_path / "cifar-10-batches-py", rng)
    for data in ("digits", tmp_path):
        small, large = load_images(data), load_images(data, size=48)
        assert (small.notes, large.shape) == ((), (48, 48))
        assert "resized to 48x48" in large.notes[0]
        assert small.fingerprint != large.fingerprint
        expected = read_picture(small.valid.images[0], (48, 48))
        np.testing.assert_array_equal(large.valid.images[0], expected)
        assert len(large.hold_out(12).valid.labels) == 12


def test_what_is_no_image_by_name_and_content_is_left_out_and_counted(image_folder):
    before, where = load_images(image_folder), image_folder / "train/cat"
    (where / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 200)
    (where / "desktop.ini").write_text("[.ShellClassInfo]")
    (where / "README").write_text("cats")
    (where / "lost").symlink_to("/nowhere")
    (image_folder / "train/labels.csv").write_text("0000,cat")
    os.mkfifo(where / "pipe.png")
    for foreign in ("@eaDir", ".hidden", "__MACOSX"):
        for folder in (image_folder / "train", where):
            (folder / foreign).mkdir()
            shutil.copy(where / "0000.png", folder / foreign / "0000.png")
    images = load_images(image_folder)
    assert images.fingerprint == before.fingerprint
    (line,) = images.notes
    assert line == "left out, as no image of a class: 5 of 23 files, the first train/cat/README"
    packed = pack_regular(image_folder, image_folder.parent / "packed.tgz")
    assert load_images(packed).fingerprint == before.fingerprint
    assert (
        load_images(packed).notes[0].startswith("left out, as no image of a class: 4 of 22 files")
    )


def pack_regular(top, target):
    with tarfile.open(target, "w:gz") as tar:
        tar.add(top, top.name, filter=lambda m: m if m.isreg() or m.isdir() else None)
    return target


def test_an_image_without_a_suffix_is_one_and_a_class_of_strays_is_empty(image_folder):
    (image_folder / "test/dog/0000.png").rename(image_folder / "test/dog/0000")
    assert len(load_images(image_folder).valid.labels) == 6
    for path in (image_folder / "test/dog").iterdir():
        path.unlink()
    (image_folder / "test/dog/notes.txt").write_text("none yet")
    assert "no images in test/dog" in refused_data(image_folder)


@pytest.mark.parametrize("name", ["a.png", "a.HEIC", "a.svg", "a"])
def test_what_is_an_image_by_name_or_content_and_cannot_be_read_is_named(image_folder, name):
    path = image_folder / "train/cat" / name
    whole = (image_folder / "train/cat/0000.png").read_bytes()
    path.write_bytes(whole[:300] if name == "a" else b"text")
    assert f"1 of 19 files cannot be used, train/cat/{name} (" in refused_data(image_folder)


def test_of_many_files_that_cannot_be_read_the_first_are_named(image_folder):
    for path in (image_folder / "train").rglob("*.png"):
        path.write_bytes(b"")
    said = refused_data(image_folder)
    assert "12 of 18 files cannot be used, train/cat/0000.png (" in said
    assert "train/cat/0004.png (" in said
    assert ") and 7 more: replace or remove them" in said


def test_a_file_that_the_disk_does_not_give_is_no_stray(image_folder, monkeypatch):
    """Left out, it would be so from the cache too, when the disk is well again."""
    path = image_folder / "train/cat/0000.png"
    path.rename(path.with_suffix(""))

    def refuses(file):
        if str(file).endswith("cat/0000"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rgb_image(file)

    rgb_image = sources_folder.rgb_image
    monkeypatch.setattr(sources_folder, "rgb_image", refuses)
    assert "train/cat/0000 (Input/output error)" in refused_data(image_folder)


def test_a_link_to_nothing_and_an_unreadable_folder_are_named(image_folder, monkeypatch):
    (image_folder / "train/cat/a.jpg").symlink_to("/nowhere")
    assert "train/cat/a.jpg (No such file or directory)" in refused_data(image_folder)
    scandir = os.scandir

    def refuses(folder):
        if folder.parts[-2:] == ("train", "cat"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(tree.os, "scandir", refuses)
    assert "train/cat cannot be read (Permission denied): mend" in refused_data(image_folder)


def test_links_in_a_circle_are_as_links_to_nothing(image_folder):
    before = load_images(image_folder)
    (image_folder / "loop").symlink_to("loop")
    (image_folder / "train/cat/loop").symlink_to("loop")
    images = load_images(image_folder)
    assert images.fingerprint == before.fingerprint
    (note,) = images.notes
    assert note == "left out, as no image of a class: 1 of 19 files, the first train/cat/loop"
    (image_folder / "train/cat/a.png").symlink_to("a.png")
    assert "train/cat/a.png (Too many levels of symbolic links)" in refused_data(image_folder)


@pytest.mark.parametrize("place", ["train", "train/cat", "aside"])
def test_what_the_disk_does_not_tell_of_is_no_stray_where_it_is_needed(
    image_folder, monkeypatch, place
):
    """As of a link into a closed folder, whose kind nobody can tell."""
    before = load_images(image_folder)
    (image_folder / "aside").mkdir()
    entries = tree._entries

    class Closed:
        def __init__(self, entry: os.DirEntry) -> None:
            self.name, self.path = entry.name, entry.path

        def is_dir(self) -> bool:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        is_file = is_dir

    def listed(folder, must):
        found = entries(folder, must)
        return [Closed(e) if e.path == str(image_folder / place) else e for e in found]

    monkeypatch.setattr(tree, "_entries", listed)
    if place == "aside":
        assert load_images(image_folder).fingerprint == before.fingerprint
    else:
        said = f"{image_folder / place} cannot be read (Permission denied): mend its permissions"
        assert said in refused_data(image_folder)


def test_one_class_is_none(image_folder):
    for part in ("train", "test"):
        shutil.rmtree(image_folder / part / "dog")
    assert "has one class alone, cat: give each class a folder" in refused_data(image_folder)


def test_a_class_of_one_image_is_named_where_some_are_held_out(image_folder):
    for path in sorted((image_folder / "train/dog").iterdir())[1:]:
        path.unlink()
    with pytest.raises(S11Error, match=r"fewer than two training images: dog; add some, or leave"):
        load_images(image_folder, holdout=3)


def test_images_in_folders_below_a_class_belong_to_it(image_folder, tmp_path):
    before = load_images(image_folder)
    for name in ("0004.png", "0005.png"):
        deep = image_folder / "train/dog/z/more" / name
        deep.parent.mkdir(parents=True, exist_ok=True)
        (image_folder / "train/dog" / name).rename(deep)
    (image_folder / "train/dog/z/round").symlink_to("../../dog", target_is_directory=True)
    (image_folder / "train/dog/z/cats").symlink_to("../../cat", target_is_directory=True)
    (image_folder / "train/cat/dogs").symlink_to("../dog/z/more", target_is_directory=True)
    images = load_images(image_folder)
    assert images.train.labels.tolist() == [0] * 8 + [1] * 14
    for path in (image_folder / "train/dog/z/cats", image_folder / "train/cat/dogs"):
        path.unlink()
    assert load_images(image_folder).fingerprint == before.fingerprint
    packed = pack_regular(image_folder, tmp_path / "packed.tgz")
    assert load_images(packed).fingerprint == before.fingerprint


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


@pytest.mark.parametrize(
    "name", ["می\u200cش", "क्\u200dष", "golden\u00a0cat", "小\u3000犬", "à\u202fpart"]
)
def test_spaces_and_joiners_of_any_script_are_in_names(image_folder, name):
    for part in ("train", "test"):
        (image_folder / part / "dog").rename(image_folder / part / name)
    images = load_images(image_folder)
    assert normalize("NFC", name) in images.classes
    assert printable(name) == name


def test_a_folders_unprintable_name_is_shown_with_escapes(image_folder):
    renamed = image_folder.rename(image_folder.parent / "caf\udce9 \x1b[2J")
    assert load_images(renamed).name == r"caf\udce9 \x1b[2J"


def test_a_few_folders_whose_links_make_billions_of_paths_are_refused(image_folder):
    ladder = image_folder / "ladder"
    for i in range(30):
        (ladder / str(i)).mkdir(parents=True)
    for i in range(29):
        for name in ("a", "b"):
            (ladder / str(i) / name).symlink_to(f"../{i + 1}")
    (image_folder / "train/cat/deep").symlink_to("../../ladder/0")
    assert "links lead to" in refused_data(image_folder)


def test_settings_of_fastai_that_name_no_folder_are_one_line(fastai_home, image_folder):
    (fastai_home / "config.ini").write_text("[DEFAULT]\ndata = a\0b\n")
    assert "config.ini names no folder as data: mend" in refused_data(image_folder)


@pytest.mark.parametrize("text", ["", "[DEFAULT]\n", "[DEFAULT]\nmodel = m\n"])
def test_where_fastais_settings_lack_a_folder_it_is_the_usual_one(fastai_home, image_folder, text):
    (fastai_home / "config.ini").write_text(text)
    assert load_images(image_folder).name == "pets"
    assert [p.name for p in (fastai_home / "data").iterdir()] == ["s11-cache"]


@pytest.mark.parametrize("data", [b"data = here\n", b"[DEFAULT]\n\xff\n", b"[DEFAULT]\ndata\n"])
def test_damaged_settings_of_fastai_are_one_line(fastai_home, image_folder, data):
    (fastai_home / "config.ini").write_bytes(data)
    assert "config.ini is damaged" in refused_data(image_folder)


def test_a_home_that_cannot_be_written_gives_the_usual_folders(fastai_home, image_folder):
    (fastai_home / "config.ini").symlink_to(fastai_home / "missing/config.ini")  # not even by root
    (fastai_home / "data").symlink_to("/proc/none")
    images = load_images(image_folder)
    assert len(images.train.labels) == 12
    (note,) = images.notes
    assert note.startswith(f"decoded at every start, as nothing can be kept in {fastai_home}/data/")


def test_where_nobody_has_a_home_fastais_can_be_given(fastai_home, image_folder, monkeypatch):
    def nobody(_):
        raise KeyError("uid not found")

    for variable in ("FASTAI_HOME", "HOME"):
        monkeypatch.delenv(variable)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert "set FASTAI_HOME to the path of a folder" in refused_data(image_folder)
    assert len(load_images("digits").classes) == 10


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is forked")
def test_the_processes_that_decode_leave_signals_to_the_run():
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM)
    with StopSignals(), process_mapper() as run:
        handlers = list(run(signal.getsignal, numbers))
    assert handlers == [signal.SIG_IGN] * 3 + [signal.SIG_DFL]
