"""One writer a folder; folders that go away, disks that are full or cannot be written."""

import errno
import os
import stat
import subprocess
import sys

import pytest
import run
from helpers import BOUNDS, ROOT, SMALL, compare, ended, read

from s11_fastai.runs.lock import RunFolder, locked
from s11_fastai.storage import read_tensors

pytestmark = pytest.mark.usefixtures("fewer_pictures")


def test_a_second_run_is_refused_and_named(argv, tmp_path, capsys):
    program = (
        "import sys; from pathlib import Path; from s11_fastai.runs.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "r")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert holder.stdout.readline() == b"held\n"
    code, said = ended([*argv, "--resume"], capsys)
    assert code == 2
    assert f"in use by process {holder.pid}" in said
    holder.kill()
    holder.wait()
    run.main([str(a) for a in [*argv, "--resume"]])  # a dead process's lock does not block
    holder.stdin.close()
    holder.stdout.close()
    assert (tmp_path / "r/results.json").exists()


def test_a_folder_in_which_nothing_began_is_taken_away(tmp_path):
    with pytest.raises(ValueError, match="x"), locked(tmp_path / "a"):
        raise ValueError("x")
    assert not (tmp_path / "a").exists()


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of its own; it is taken away at the end."""
    mounted = []

    def mount(size: str):
        place = tmp_path / "disk"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no mount command here")
        if done.returncode:
            pytest.skip(f"may not mount here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_stops_the_run_and_it_goes_on_with_more_space(
    small_disk, pets, tmp_path, capsys
):
    whole = ["--data", str(pets), *SMALL, *BOUNDS, "--width", "4"]
    run.main([*whole, "--out", str(tmp_path / "whole")])
    disk = small_disk("1m")
    argv = [*whole, "--out", str(disk / "r"), "--resume", "--checkpoint-minutes", "0"]
    code, said = ended(argv, capsys)
    assert code == 2
    assert "No space left on device; free some space" in said
    assert said.endswith("--resume --checkpoint-minutes 0")
    assert not list(disk.rglob("*.part"))
    assert list((disk / "r/checkpoint").iterdir())
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    run.main(argv)
    assert "going on after" in capsys.readouterr().out
    assert compare(tmp_path / "whole", disk / "r") == []


def test_a_folder_that_becomes_read_only(small_disk, pets, monkeypatch, capsys):
    disk, write = small_disk("64m"), RunFolder.write
    folder = str(disk / "r/checkpoint")

    def read_only_in_epoch_2(self, name, data):
        write(self, name, data)
        if name == "steps.csv" and len(data.splitlines()) == 1 + 2 * 4:
            subprocess.run(["mount", "--bind", folder, folder], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)

    argv = ["--data", pets, "--out", disk / "r", *SMALL, *BOUNDS]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", read_only_in_epoch_2)
        code, said = ended(argv, capsys)
    assert code == 2
    assert "Read-only file system; mend the permissions" in said
    assert said.endswith("--resume")
    code, said = ended([*argv, "--resume"], capsys)
    assert code == 2
    assert "Read-only" in said
    subprocess.run(["umount", folder], check=True)
    run.main([str(a) for a in [*argv, "--resume"]])
    assert read(disk / "r/results.json")["epochs"] == 3


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    argv, tmp_path, monkeypatch, capsys
):
    fsync, count = os.fsync, iter(range(100))

    def full(handle):
        of_a_file = not stat.S_ISDIR(os.fstat(handle).st_mode)
        if of_a_file and next(count) >= 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, said = ended([*argv, "--checkpoint-minutes", "0"], capsys)
    assert code == 2
    assert "epoch-000000-batch-000002.safetensors: No space left" in said
    kept = sorted((tmp_path / "r/checkpoint").iterdir())
    assert len(kept) == 2
    for file in kept:
        read_tensors(file)
    assert not list(tmp_path.rglob("*.part"))
