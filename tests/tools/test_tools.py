"""A short drill and a short fuzz; the long ones are marked slow."""

import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import fields
import fuzz
import pytest
from helpers import ROOT, compare
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s11_fastai.errors import S11Error
from s11_fastai.runs.settings import Settings, read_config
from s11_fastai.sources.archive import archive_tree
from s11_fastai.sources.picture import read_picture
from s11_fastai.sources.plain_pickle import load_plain
from s11_fastai.storage import Damaged, read_tensors

many = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_two_folders_of_a_run_are_the_same_but_for_seconds_and_revision(finished, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(finished[0], again)
    env = json.loads((again / "env.json").read_text())
    (again / "env.json").write_text(json.dumps(env | {"git_revision": "another"}))
    rows = (again / "history.csv").read_text().splitlines()
    head, last = rows[0].split(","), rows[-1].split(",")
    last[head.index("seconds")] = "9.5"
    (again / "history.csv").write_text("\n".join([*rows[:-1], ",".join(last)]) + "\n")
    assert compare(finished[0], again) == []
    (again / "env.json").write_text(json.dumps(env | {"torch": "another"}))
    last[head.index("lr")] = "9.5"
    (again / "history.csv").write_text("\n".join([*rows[:-1], ",".join(last)]) + "\n")
    (again / "steps.csv").unlink()
    assert compare(finished[0], again) == ["steps.csv", "env.json", "history.csv"]


def drill(*words: str) -> str:
    """In a process of its own, which forks: this one has threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.drill", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_no_killed_run_is_lost():
    assert drill("4", "--seed", "1").startswith("4 kills")


@pytest.mark.slow
def test_no_killed_run_is_lost_of_many():
    assert drill("100", "--seed", "0").startswith("100 kills")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "ENOSPC", "EIO", "EACCES"])
def test_no_run_is_lost_whichever_change_on_disk_is_struck(how):
    assert "none lost" in drill("--every-change", how)


def test_no_damaged_file_does_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz.sources, "fastai_folder", None)  # so that it is put back
    ends = fuzz.fuzz(tmp_path, 320, seed=1)
    assert ends.total() == 320
    assert sum(n for (_, end), n in ends.items() if end == "plain error") > 90


def test_no_wrong_field_of_a_run_does_harm(tmp_path):
    ends = fields.fuzz_fields(tmp_path, 700, seed=1, opened=50)
    assert sum(n for (_, end), n in ends.items() if end == "refused") > 400
    assert {end for _, end in ends} == {"refused", "shown", "opened"}


@pytest.mark.slow
def test_no_wrong_field_of_all_does_harm(tmp_path):
    assert fields.fuzz_fields(tmp_path, 3_500, seed=0).total() == 3_500


@pytest.mark.slow
def test_no_damaged_file_of_many_does_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz.sources, "fastai_folder", None)
    assert fuzz.fuzz(tmp_path, 2000, seed=0).total() == 2000


@many
@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda b: b"\x89PNG\r\n\x1a\n" + b))
def test_any_bytes_are_no_image_no_archive_no_sealed_file_and_no_batch(tmp_path, data):
    file = tmp_path / "file"
    file.write_bytes(data)
    with pytest.raises(Damaged):
        read_tensors(file)
    with pytest.raises(S11Error):
        archive_tree(file)
    with pytest.raises(S11Error):
        read_picture(data, (32, 32))
    with suppress(ValueError):
        load_plain(data)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@many
@given(VALUES)
def test_any_pickle_of_plain_values_is_read_as_it_is(value):
    assert repr(load_plain(pickle.dumps(value))) == repr(value)


@many
@given(VALUES | st.fixed_dictionaries({name: VALUES for name in Settings().as_dict()}))
def test_any_config_is_refused_or_makes_a_run(tmp_path, value):
    (tmp_path / "config.json").write_text(json.dumps(value))
    try:
        settings = read_config(tmp_path)
    except S11Error as error:
        fuzz.one_line(error)
        return
    assert Settings.from_dict(settings.as_dict()) == settings


@many
@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=20)), max_size=4))
def test_any_names_in_an_archive_stay_inside_or_are_refused(tmp_path, members):
    file = tmp_path / "a.tar"
    try:
        with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
            for name, data in members:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    except ValueError:  # a name that no archive can hold
        return
    try:
        tree = archive_tree(file)
    except S11Error as error:
        fuzz.one_line(error)
        return
    for name in tree.files:
        assert not Path(name).is_absolute()
        assert ".." not in Path(name).parts
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]
