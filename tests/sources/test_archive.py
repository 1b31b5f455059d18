import io
import tarfile

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
        assert "cut short" in refused_data(tmp_path / "cut.tar")


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "train/../../x.png", "C:x", "a\\..\\x"])
def test_a_member_that_climbs_out_of_its_folder(tmp_path, name):
    member = tarfile.TarInfo("x")
    member.name = name
    message = refused_data(pack_members(tmp_path / "evil.tar", member))
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
