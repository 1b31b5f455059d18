import hashlib
import socket

import pytest
from helpers import write_folder

from s11_fastai import load_images
from s11_fastai.errors import S11Error
from s11_fastai.sources.download import download


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
    with pytest.raises(S11Error, match="`data` digits"):
        download(tmp_path / "copy.tar.gz", (tmp_path / "absent").as_uri())
    assert not list(tmp_path.iterdir())


def test_a_server_that_falls_silent_times_out(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cifar.tar.gz"
        with pytest.raises(S11Error, match="timed out"):
            download(tmp_path / "copy.tar.gz", url, timeout=0.1)
    assert not list(tmp_path.iterdir())


def test_without_a_path_a_copy_in_fastais_folder_is_used(rng, monkeypatch, fastai_home):
    from fastai.data.external import fastai_path

    from s11_fastai import sources

    monkeypatch.setattr(sources, "download", lambda path: pytest.fail("asked the network"))
    (fastai_path("data") / "cifar10").mkdir(parents=True)  # empty: not data
    with pytest.raises(pytest.fail.Exception):
        load_images()
    write_folder(fastai_path("data") / "cifar10", rng)
    assert load_images().name == "cifar10"
