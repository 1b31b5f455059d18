import json
import math
import os
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from s11_fastai.errors import S11Error
from s11_fastai.runs.checkpoints import FORMAT, Checkpoints
from s11_fastai.storage import (
    Damaged,
    about_in,
    is_unfinished,
    pack,
    read_tensors,
    shapes_in,
    sweep,
    unpack,
    whole_file,
    write_tensors,
)

TENSORS = {
    "scalar": torch.tensor(1.5, dtype=torch.float64),
    "none": torch.zeros(0, 4),
    "image": torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4),
    "last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "count": torch.tensor(7),
}
ABOUT = {"values": [0.1, 1e-300, None, "ü<b>"], "nested": {"a": [1, 2]}}


def test_what_is_written_is_read_and_equal_contents_are_equal_files(tmp_path):
    write_tensors(tmp_path / "a", TENSORS, ABOUT)
    write_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), ABOUT)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    tensors, about = read_tensors(tmp_path / "a")
    assert about == ABOUT
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, TENSORS[name])
        assert tensor.dtype == TENSORS[name].dtype
    assert torch.equal(load_file(tmp_path / "a")["last"], TENSORS["last"])  # plain safetensors


def test_one_tensor_by_two_names_is_written_twice(tmp_path):
    weights = torch.arange(6.0)
    write_tensors(tmp_path / "t", {"a": weights, "b": weights, "part": weights[2:4]})
    found, _ = read_tensors(tmp_path / "t")
    assert {k: v.tolist() for k, v in found.items()} == {
        "a": weights.tolist(),
        "b": weights.tolist(),
        "part": [2, 3],
    }


def test_every_changed_byte_shows(tmp_path):
    """All of them, one after the other: an error, or the same contents."""
    path = tmp_path / "a"
    write_tensors(path, {"x": torch.arange(5.0)}, {"n": 1})
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x11]) + whole[i + 1 :])
        try:
            tensors, about = read_tensors(path)
        except Damaged:
            continue
        assert torch.equal(tensors["x"], torch.arange(5.0))
        assert about == {"n": 1}
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(Damaged):
            read_tensors(path)


def test_a_file_of_another_kind_is_damaged_and_none_is_an_oserror(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "plain")
    with pytest.raises(Damaged, match="plain is no file of this kind"):
        read_tensors(tmp_path / "plain")
    with pytest.raises(OSError, match="missing"):
        read_tensors(tmp_path / "missing")


def test_what_is_packed_is_unpacked():
    state = {
        "nested": {0: [1, 2.5, None, "x"], "b": {"c": torch.arange(3)}},
        "floats": [float("inf"), float("-inf")],
        "empty": {},
        "tensors": [torch.zeros(2), True],
    }
    tensors, values = pack(state)
    found = unpack(tensors, json.loads(json.dumps(values, allow_nan=False)))
    assert set(tensors) == {"nested.b.c", "tensors.0"}
    assert found["nested"][0] == [1, 2.5, None, "x"]
    assert torch.equal(found["nested"]["b"]["c"], torch.arange(3))
    assert (found["floats"], found["empty"]) == (state["floats"], {})
    assert found["tensors"][1] is True
    with pytest.raises(TypeError, match="a is of object"):
        pack({"a": object()})


def test_numpys_numbers_are_packed_as_pythons():
    counts = {np.int64(7): np.int64(3)}
    tensors, values = pack({"n": counts, "best": np.float32("inf"), "on": np.bool_(True)})
    found = unpack(tensors, json.loads(json.dumps(values)))
    assert found == {"n": {7: 3}, "best": math.inf, "on": True}
    with pytest.raises(TypeError, match=r"n is of .*, which no checkpoint can keep"):
        pack({"n": np.longdouble(1)})


def test_a_half_that_a_killed_process_left_is_one_that_is_swept(tmp_path):
    with whole_file(tmp_path / "x.json"):
        (half,) = tmp_path.iterdir()
    half.touch()
    assert is_unfinished(half)
    sweep(tmp_path, older_than=0)
    assert not half.exists()


def test_a_tensor_that_is_asked_for_twice_is_refused():
    """A small file could ask for one a million times."""
    tensors, values = pack({"a": torch.zeros(3)})
    with pytest.raises(LookupError):
        unpack(tensors, {"dict": [["a", {"tensor": "a"}], ["b", {"tensor": "a"}]]})
    assert unpack(tensors, values)["a"].equal(torch.zeros(3))
    assert unpack(tensors, values)["a"].equal(torch.zeros(3))


@pytest.mark.parametrize("read", [read_tensors, about_in, shapes_in])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_is_damaged_and_not_waited_for(tmp_path, read, make):
    make(tmp_path / "a")
    with pytest.raises(Damaged, match="a is no plain file"):
        read(tmp_path / "a")


def checkpoints(tmp_path, n=3):
    folder = Checkpoints(tmp_path / "checkpoint")
    for i in range(n):
        folder.write({"epoch": i, "batch": 0, "x": torch.tensor(i), "i": i})
    return folder


def test_the_last_two_stay_and_the_newest_is_found(tmp_path):
    folder = checkpoints(tmp_path)
    assert [f.name[:12] for f in sorted(folder.path.iterdir())] == ["epoch-000001", "epoch-000002"]
    state = folder.newest()
    assert (state["x"].item(), state["i"], folder.damaged) == (2, 2, [])
    folder.write(state)  # the same position once more
    assert len(list(folder.path.iterdir())) == 2
    assert Checkpoints(tmp_path / "none").newest() is None


def test_a_damaged_newest_one_is_told_and_the_one_before_is_used(tmp_path):
    folder = checkpoints(tmp_path)
    newest = sorted(folder.path.iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    folder = Checkpoints(folder.path)
    assert folder.newest()["i"] == 1
    assert newest.name in folder.damaged[0]
    folder.write({"epoch": 1, "batch": 5})
    # The good one from which it went on is kept, the damaged one is not.
    assert [f.name for f in sorted(folder.path.iterdir())] == [
        "epoch-000001-batch-000000.safetensors",
        "epoch-000001-batch-000005.safetensors",
    ]


def test_no_whole_checkpoint_and_another_format_are_refused(tmp_path):
    folder = checkpoints(tmp_path)
    newest = sorted(folder.path.iterdir())[-1]
    write_tensors(newest, {}, {"format": "s11-checkpoint-0"})
    both = rf"'s11-checkpoint-0', and this version reads {re.escape(json.dumps(FORMAT))}"
    with pytest.raises(S11Error, match=both.replace('"', "'")):
        folder.newest()
    for file in folder.path.iterdir():
        file.write_bytes(b"")
    with pytest.raises(S11Error, match="no checkpoint that can be read") as error:
        folder.newest()
    assert "\n" not in str(error.value)


def test_sweep_takes_halves_of_the_given_age_and_nothing_else(tmp_path):
    (tmp_path / "a").mkdir()
    halves = [tmp_path / ".x.json.abc_0123.part", tmp_path / "a/.y.abcdefgh.part"]
    others = [tmp_path / "z.part", tmp_path / ".hidden", tmp_path / "x.json"]
    others += [tmp_path / ".film.part", tmp_path / ".film.2026.part"]  # of other programs
    for file in halves + others:
        file.touch()
    sweep(tmp_path)
    assert all(file.exists() for file in halves + others)
    sweep(tmp_path, older_than=0)
    assert not any(file.exists() for file in halves)
    assert all(file.exists() for file in others)
