import gzip
import io
import re
import tarfile
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pytest
from helpers import pack, refused_data

from s11_fastai import load_images
from s11_fastai.errors import S11Error
from s11_fastai.sources import archive
from s11_fastai.sources.archive import archive_tree


def pack_members(target, *members: tarfile.TarInfo):
    with tarfile.open(target, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return target


@pytest.mark.parametrize(
    ("ending", "mode"),
    [
        ("tgz", "w:gz"),
        ("tar.gz", "w:gz"),
        ("tar", "w"),
        ("tar.bz2", "w:bz2"),
        ("tar.xz", "w:xz"),
    ],
)
def test_an_archive_is_the_same_data_as_its_folder(image_folder, tmp_path, ending, mode):
    packed = pack(image_folder, tmp_path / f"pets.{ending}", mode)
    images = load_images(packed)
    assert images.fingerprint == load_images(image_folder).fingerprint
    assert images.name == "pets"


@pytest.mark.parametrize("mode", ["w:gz", "w", "w:bz2", "w:xz", "zip"])
def test_an_archive_cut_short(image_folder, tmp_path, mode):
    packing = zipped if mode == "zip" else partial(pack, mode=mode)
    whole = packing(image_folder, tmp_path / "pets.tar").read_bytes()
    for end in (0, 1, 700, len(whole) // 2, len(whole) // 2 // 512 * 512, len(whole) - 10_240):
        (tmp_path / "cut.tar").write_bytes(whole[:end])
        said = refused_data(tmp_path / "cut.tar")
        assert "cut short or damaged" in said
        assert "delete" not in said


def zipped(top, target, packing=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(target, "w", packing) as archive:
        for path in sorted(top.rglob("*")):
            archive.write(path, path.relative_to(top.parent))
    return target


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_zip_file_is_the_same_data_as_its_folder(image_folder, tmp_path, packing):
    images = load_images(zipped(image_folder, tmp_path / "pets.zip", packing))
    assert images.fingerprint == load_images(image_folder).fingerprint
    assert images.name == "pets"


def test_a_zip_file_with_names_as_windows_writes_them_is_the_same_data(image_folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in sorted(image_folder.rglob("*")):
            name = str(path.relative_to(image_folder)).replace("/", "\\")
            archive.writestr(
                name + "\\" * path.is_dir(), b"" if path.is_dir() else path.read_bytes()
            )
    images = load_images(tmp_path / "pets.zip")
    assert images.fingerprint == load_images(image_folder).fingerprint


def test_a_zip_file_whose_names_are_utf_8_as_macs_write_them_is_the_same_data(
    image_folder, tmp_path
):
    for part in ("train", "test"):
        (image_folder / part / "cat").rename(image_folder / part / "caf\u00e9")
    path = zipped(image_folder, tmp_path / "pets.zip")
    data = bytearray(path.read_bytes())
    for magic, at in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        for start in [m.start() for m in re.finditer(magic, data)]:
            data[start + at] &= ~8  # the flag that says so
    path.write_bytes(data)
    images = load_images(path)
    assert images.classes == ("caf\u00e9", "dog")
    assert images.fingerprint == load_images(image_folder).fingerprint


def zip_of(target, name="train/cat/a.png", data=b"x", packing=zipfile.ZIP_STORED, mode=0o100644):
    member = zipfile.ZipInfo(name)
    member.external_attr, member.compress_type = mode << 16, packing
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(member, data)
    return target


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "train/../../x.png", "C:x", "a\\..\\x"])
def test_a_member_of_a_zip_file_that_climbs_out_of_its_folder(tmp_path, name):
    assert "leads out" in refused_data(zip_of(tmp_path / "evil.zip", name))


def test_an_encrypted_or_oddly_packed_zip_file_is_one_line(tmp_path):
    path = zip_of(tmp_path / "locked.zip")
    data = bytearray(path.read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + at] |= 1
    path.write_bytes(data)
    assert "'train/cat/a.png' is encrypted: unpack it and give the folder" in refused_data(path)
    for packing in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        odd = zip_of(tmp_path / "odd.zip", packing=packing)
        assert "is packed in a way that is not read here" in refused_data(odd)


def test_a_zip_file_that_unpacks_to_too_much_or_lists_too_much(tmp_path, monkeypatch):
    large = zip_of(tmp_path / "large.zip", data=bytes(50_000), packing=zipfile.ZIP_DEFLATED)
    assert large.stat().st_size < 1_000
    with pytest.raises(S11Error, match="unpacks to more than 20,000 bytes"):
        archive_tree(large, max_unpacked=20_000)
    claims = bytearray(large.read_bytes())  # less than it holds
    for magic, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = claims.index(magic) + at
        claims[start : start + 4] = (10).to_bytes(4, "little")
    large.write_bytes(claims)
    with pytest.raises(S11Error, match="damaged"):
        archive_tree(large, max_unpacked=20_000)
    monkeypatch.setattr(archive, "MAX_ZIP_LIST", 70_000)  # the end is looked for in 65,557 bytes
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as file:
        for i in range(400):
            file.writestr(f"{i:0200d}", b"")
    assert "its list of members has more than 70,000 bytes" in refused_data(many)


@pytest.mark.parametrize("how", ["tar", "zip", "hard"])
def test_links_in_an_archive_are_left_out_and_counted(image_folder, tmp_path, how):
    before = load_images(image_folder).fingerprint
    if how == "zip":
        packed = zipped(image_folder, tmp_path / "a.zip")
        with zipfile.ZipFile(packed, "a") as file:
            for name in ("train/cat/link.png", "latest"):
                link = zipfile.ZipInfo(f"pets/{name}")
                link.external_attr = 0o120777 << 16
                file.writestr(link, "/etc/passwd")
    else:
        packed = pack(image_folder, tmp_path / "a.tar", "w")
        with tarfile.open(packed, "a") as tar:
            for name in ("train/cat/link.png", "latest"):
                link = tarfile.TarInfo(f"pets/{name}")
                link.type = tarfile.SYMTYPE if how == "tar" else tarfile.LNKTYPE
                link.linkname = "/etc/passwd"
                tar.addfile(link)
    images = load_images(packed)
    assert images.fingerprint == before
    said = "left out, as links in an archive: 2, the first pets/train/cat/link.png"
    assert images.notes == (said,)


@pytest.mark.parametrize(
    ("start", "kind", "remedy"),
    [
        (b"7z\xbc\xaf'\x1c", "a 7z archive", "unpack it and give the folder"),
        (b"Rar!\x1a\x07\x01\0", "a rar archive", "unpack it and give the folder"),
        (b"\x89PNG\r\n\x1a\n", "a picture (PNG)", "give the folder that has a folder of"),
        (b"BM\0\0", "a picture (BMP)", "give the folder that has a folder of"),
        (b"\x93NUMPY", "a NumPy array", "give its images as arrays to dls_from_arrays"),
        (b"\0\0\x08\x03", "a file of MNIST's kind (idx)", "give its images as arrays"),
        (b"\n<!doctype html>", "a web page or other markup", "fetch the data itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS", "git lfs pull"),
        (b"id,label\n1,cat\n", "text", "give the folder or archive of the images"),
    ],
)
def test_a_file_of_another_kind_is_named_and_not_to_be_deleted(tmp_path, start, kind, remedy):
    path = tmp_path / "data"
    for more in (0, 2_000):
        path.write_bytes(start + b"a" * more)
        said = refused_data(path)
        assert f"{path} is {kind}: " in said
        assert remedy in said
        assert "delete" not in said
        path.write_bytes(gzip.compress(start + b"a" * more))
        assert f"holds {kind}, packed, and no tar archive: " in refused_data(path)


def test_a_file_of_no_known_kind(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"\x80\x04" * 1_000)
    assert f"{path} is no archive that is known: unpack it" in refused_data(path)
    path.write_bytes(gzip.compress(b"\x80\x04" * 1_000))
    assert "holds something, packed, and no tar archive: unpack it" in refused_data(path)
    path.write_bytes(b"\x80\x04" * 100)
    assert f"{path} is cut short or damaged" in refused_data(path)
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    assert "(it holds x.npy): give the folder" in refused_data(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "train/../../x.png", "C:x", "a\\..\\x"])
def test_a_member_that_climbs_out_of_its_folder(tmp_path, name):
    member = tarfile.TarInfo("x")
    member.name = name
    message = refused_data(pack_members(tmp_path / "evil.tar", member))
    assert "leads out" in message


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
    ],
)
def test_devices_and_sparse_files_in_an_archive(tmp_path, kind):
    member = tarfile.TarInfo("train/cat/a.png")
    member.type = kind
    assert "no plain file" in refused_data(pack_members(tmp_path / "evil.tar", member))


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
    assert "unpacks to more" in refused_data(tmp_path / "claim.tar")


def test_an_archive_of_too_many_members(image_folder, tmp_path, monkeypatch):
    """A few MB of gzip can hold millions."""
    monkeypatch.setattr(archive, "MAX_MEMBERS", 10)
    assert "more than 10 members" in refused_data(pack(image_folder, tmp_path / "pets.tgz"))


def test_headers_and_names_that_are_longer_than_any_name(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 20
    (tmp_path / "long.tar").write_bytes(header.tobuf() + b"1" * (1 << 20) + bytes(10_240))
    assert "a header of 1,048,576 bytes" in refused_data(tmp_path / "long.tar")
    deep = tarfile.TarInfo("train/" + 600 * "a/" + "x.png")
    assert "more than 1,000 letters" in refused_data(pack_members(tmp_path / "deep.tar", deep))


@pytest.mark.parametrize("name", [".", "./", ""])
def test_a_member_without_a_name(tmp_path, name):
    member = tarfile.TarInfo("x")
    member.name = name
    assert "has no name" in refused_data(pack_members(tmp_path / "odd.tar", member))


def test_what_lies_deeper_than_images_or_is_hidden_is_left_out(tmp_path):
    deep = "top/train/cat/" + 30 * "a/" + "c.png"
    names = ["top/train/cat/a.png", "top/train/cat/more/b.png", deep, "top/.hidden/d.png"]
    tree = archive_tree(pack_members(tmp_path / "a.tar", *map(tarfile.TarInfo, names)))
    assert list(tree.files) == names[:2]
    assert tree.folders == {"top", "top/train", "top/train/cat", "top/train/cat/more"}


def test_reading_an_archive_writes_nothing(image_folder, tmp_path):
    packed = pack(image_folder, tmp_path / "pets.tgz")
    before = sorted(tmp_path.rglob("*"))
    load_images(packed)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("make", ["tgz", "zip"])
def test_a_large_member_takes_no_more_memory_than_it_has_bytes(tmp_path, make):
    size = 32 << 20
    if make == "zip":
        path = zip_of(tmp_path / "a.zip", data=bytes(size), packing=zipfile.ZIP_DEFLATED)
    else:
        (tmp_path / "a").mkdir()
        (tmp_path / "a/x.png").write_bytes(bytes(size))
        path = pack(tmp_path / "a", tmp_path / "a.tgz")
    tracemalloc.start()
    try:
        (data,) = archive_tree(path).files.values()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(data) == size
    assert most < 1.3 * size
