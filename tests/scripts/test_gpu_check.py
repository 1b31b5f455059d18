"""experiments/gpu_check.sh, on a CPU: what it does with its parts, not what a GPU says to them."""

import json
import os
import subprocess
import sys

import pytest
from helpers import BOUNDS, ROOT, SMALL, pack, read

SCRIPT = ROOT / "experiments/gpu_check.sh"


def check(*words, **env) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", SCRIPT, *words],
        env=os.environ | {"PYTHON": sys.executable} | env,
        capture_output=True,
        text=True,
    )


def test_it_is_bash():
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_it_begins_only_with_an_archive_and_a_new_folder(tmp_path):
    for words in ([], [tmp_path], [tmp_path / "none.tgz", tmp_path / "new"]):
        done = check(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("gpu_check.sh: give the archive of images")
    done = check(SCRIPT, tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        f"gpu_check.sh: {tmp_path} exists: choose another folder\n",
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_all_parts_come_into_one_file_and_one_that_fails_is_noted(pets, tmp_path):
    small = [word for word in SMALL if word not in ("--device", "cpu")]
    out = tmp_path / "out"
    done = check(
        pack(pets, tmp_path / "pets.tgz"),
        out,
        S11_CHECK_DEVICE="cpu",
        S11_CHECK_SEEDS="2",
        S11_CHECK_RUN=" ".join([*small, *BOUNDS]),
        S11_CHECK_BENCH="--rounds 0",  # no such bench
    )
    assert done.returncode == 0, done.stderr
    found = read(out / "gpu.json")
    assert done.stdout.splitlines()[-1].endswith(" s, without: bench")
    assert {name: part["exit"] for name, part in found["parts"].items()} == {
        "tests": 0,
        "images": 0,
        "seed-0": 0,
        "seed-1": 0,
        "bench": 2,
    }
    assert found["total_seconds"] >= sum(part["seconds"] for part in found["parts"].values())
    assert found["tests"]["tests"] > 10
    assert (found["tests"]["failures"], found["tests"]["errors"]) == (0, 0)
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    for i, run in enumerate(found["runs"]):
        results = read(out / f"run-{i}" / "results.json")
        assert run["final_accuracy"] == run["accuracies"][-1] == results["final_accuracy"]
        assert run["epochs"] == 3
    assert found["bench"] is None


def test_what_no_part_has_left_is_none(tmp_path):
    """Cut off in the first seed: no test ended, no run has a result."""
    (tmp_path / "parts.tsv").write_text("tests\t124\t100\nseed-0\t130\t60\nbench\t124\t0\n")
    (tmp_path / "bench.out").write_text("")
    done = subprocess.run(
        [sys.executable, ROOT / "experiments/gpu_check.py", tmp_path, "300"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert (found["tests"], found["runs"], found["bench"]) == (None, [None], None)
    assert found["parts"]["seed-0"] == {"exit": 130, "seconds": 60}
    assert done.stdout.endswith("after 300 s, without: tests, seed-0, bench\n")
