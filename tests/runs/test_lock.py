"""A run gets a folder of its own, or a line that says why not."""

import errno
import multiprocessing
import os
import re
import sys
from datetime import datetime

import pytest
import run
from helpers import BOUNDS, SMALL, ended
from processes import in_processes

from s11_fastai.errors import S11Error
from s11_fastai.runs import lock
from s11_fastai.runs.lock import claim, default_path, locked, opened

fcntl = pytest.importorskip("fcntl")


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are forked")
def test_of_processes_that_want_one_new_name_each_gets_its_own(tmp_path):
    context = multiprocessing.get_context("fork")
    at_once, all_there = context.Barrier(4), context.Barrier(4)

    def work():
        at_once.wait(60)
        with claim(tmp_path / "runs/r", or_next=True) as folder:
            all_there.wait(60)
            return folder.path.name

    assert set(in_processes(4, work)) == {"r", "r-2", "r-3", "r-4"}
    assert not list(tmp_path.glob("runs/*"))  # as nothing was begun


def test_a_name_that_is_taken_is_left_alone_and_other_processes_make_nothing(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r-2").touch()
    with (
        claim(tmp_path / "r", or_next=True, is_main=False),
        claim(tmp_path / "r", or_next=True) as folder,
    ):
        assert folder.path == tmp_path / "r-3"
        folder.write("config.json", "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r", "r-2", "r-3"]
    assert list((tmp_path / "r").iterdir()) == []


@pytest.mark.usefixtures("fewer_pictures")
def test_a_second_run_of_the_same_second_has_the_next_name(pets, tmp_path, monkeypatch):
    class OneSecond(datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(lock, "datetime", OneSecond)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run.main(["--data", str(pets), *SMALL, *BOUNDS, "--epochs", "2"])
    names = ["20260102-030405-pets", "20260102-030405-pets-2"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    assert all((tmp_path / "runs" / name / "results.json").exists() for name in names)


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (None, "cifar10"),
        ("digits", "digits"),
        ("a/cifar10.tgz", "cifar10"),
        ("a/CIFAR-10.tar.gz", "cifar-10"),
        ("a/v1.2 cats", "v1-2-cats"),
        ("a/v1.2.ZIP", "v1-2"),
        ("a/猫", "data"),
    ],
)
def test_a_runs_own_name_tells_its_data(data, slug):
    assert re.fullmatch(r"\d{8}-\d{6}-(.*)", default_path(data).name)[1] == slug


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_one_line(argv, tmp_path, monkeypatch, capsys, number):
    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    code, said = ended(argv, capsys)
    assert code == 2
    assert f"the file system of {argv[3]} has no locks, which keep two runs out of" in said
    assert said.endswith("choose a folder on another disk, or mount this one with locks")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_says_what_is_there(tmp_path):
    for name in ("b.txt", "a\tb", ".lock"):
        (tmp_path / name).touch()
    with pytest.raises(S11Error, match=r"is not empty, as a\\tb is there: choose"), claim(tmp_path):
        pass


def test_a_disk_that_fails_is_no_folder_that_was_moved(tmp_path, monkeypatch):
    def fails(path, **_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with locked(tmp_path / "r") as folder, monkeypatch.context() as broken:
        broken.setattr(lock.os, "stat", fails)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            folder.check()


@pytest.mark.parametrize("config", [None, '{"model_type": "bert"}', "no JSON"])
@pytest.mark.parametrize(
    "take", [claim, lambda path: claim(path, resume=True), opened], ids=["new", "resume", "opened"]
)
def test_a_folder_of_somebodys_own_is_refused_before_it_is_touched(tmp_path, take, config):
    """Of these names some are our own, and other programs have them, too."""
    for name in ("notes", ".pid", ".lock", ".film.part", "deep/.pid.abcdefgh.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    if config:
        (tmp_path / "config.json").write_text(config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(S11Error), take(tmp_path):
        pass
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_lock_that_is_a_link_is_replaced(tmp_path):
    """Some versions of filelock empty the file that it leads to."""
    (tmp_path / "r").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "r/.lock").symlink_to(tmp_path / "precious")
    with locked(tmp_path / "r"):
        assert not (tmp_path / "r/.lock").is_symlink()
    assert (tmp_path / "precious").read_text() == "mine"
