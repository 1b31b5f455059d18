"""Sections "start", "memory" and "together": processes of their own, measured from outside.

`python -m benchmark.processes NAME WORD...` is such a process: it does what CHILDREN names, with
the environment as it was given, and imports only what that needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import IO, TYPE_CHECKING

from s11_fastai.errors import S11Error

if TYPE_CHECKING:
    from benchmark.timing import Table
    from s11_fastai.sources import ImageSet

EXPERIMENTS = Path(__file__).parents[1]
SCRIPT = EXPERIMENTS / "run.py"
CHILD = ("-m", "benchmark.processes")
MIB = 2**20
# On Linux a process starts with the peak of the one that starts it; so a small one in between.
_WATCH = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
print(used.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measure_start(data: str, bs: int, rounds: int) -> Table:
    """Seconds of each start; files are decoded into a folder of fastai's that is temporary."""
    from benchmark.timing import Table, round_robin, rows_of, seconds_of

    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        in_home = partial(output_of, FASTAI_HOME=home)
        first_batch = partial(in_home, *CHILD, "first_batch", data, bs)
        seconds = round_robin(
            {
                "cold": lambda: cold_load(data, home),
                "loading the images from the cache": lambda: float(in_home(*CHILD, "load", data)),
                "import, load and the first training batch": lambda: seconds_of(first_batch),
                "run.py --help": lambda: seconds_of(partial(in_home, SCRIPT, "--help")),
            },
            rounds,
        )
    cold, (warm, *_) = seconds.pop("cold"), seconds.values()
    decoding = [a - b for a, b in zip(cold, warm, strict=True)]
    return Table(
        section="start",
        units=("s",),
        rows=rows_of({"decoding all files into the cache": decoding} | seconds, [lambda s: s]),
        says=(
            "What a person waits for at the beginning: once for each archive, the decoding; with "
            "each command, the other rows, the last two of which are whole processes."
        ),
    )


def cold_load(data: str, home: Path) -> float:
    """The seconds of `load_images` in a process whose cache is empty."""
    shutil.rmtree(home, ignore_errors=True)
    return float(output_of(*CHILD, "load", data, FASTAI_HOME=home))


def measure_memory(images: ImageSet, data: str | None, width: int, bs: int) -> Table:
    """The peaks of the bare loop and of a run, two steps each, and what a run cannot do without."""
    from benchmark.steps import precisions
    from benchmark.timing import CPU, PROJECT, Row, Table

    precision = precisions(CPU)[-1]
    bare = peak_of("bare", width, bs, precision)
    ours = peak_of("run", data or "", width, bs)
    pixels = images.train.images.nbytes + images.valid.images.nbytes
    peaks = {
        f"bare loop in {precision}": bare,
        "all images": pixels,
        "both together": bare + pixels,
        f"{PROJECT} in {precision}": ours,
    }
    return Table(
        section="memory",
        units=("MiB",),
        rows=tuple(Row(name, (peak / MIB,), peak / ours) for name, peak in peaks.items()),
        ratio=f"times {PROJECT}'s memory",
        says=(
            f"The most memory that a process takes for two training steps of the network of width "
            f"{width} with {bs} images. A run needs what the bare loop needs, and its images. "
            "Measured once."
        ),
    )


def peak_of(*words: object) -> int:
    """Bytes, the peak resident set of a child."""
    return int(output_of("-c", _WATCH, sys.executable, *CHILD, *words))


def measure_together(data: str | None, width: int, bs: int, n: int) -> Table:
    """One run alone and two at once, with threads that wait in either way. Each once."""
    import torch

    from benchmark.timing import Table, rows_of

    words, ours = ("beside", data or "", width, bs, n), "one run, threads sleep"
    seconds = {
        f"{how_many}, threads {way}": [side_by_side(runs, policy, *words)]
        for runs, how_many in ((1, "one run"), (2, "each of two runs"))
        for way, policy in (("spin", None), ("sleep", "passive"))
    }
    return Table(
        section="together",
        units=("s a step",),
        rows=rows_of(seconds, [lambda s: s], ours),
        says=(
            f"A training step of the network of width {width} with {bs} images: of a run that has "
            f"the machine to itself, and of two at once, {torch.get_num_threads()} threads each. "
            "Threads that wait for each other spin as torch comes, and sleep with "
            "OMP_WAIT_POLICY=passive, which run.py sets: the ratio is to its run alone. Two that "
            f"share the machine without a loss take 2 times as long as one. Measured once: the "
            f"median of {n} steps in a row."
        ),
    )


def side_by_side(runs: int, policy: str | None, *words: object) -> float:
    """What children say that measure at the same time, on average; each is busy until all have.

    `policy` is their OMP_WAIT_POLICY; with None they have none.
    """
    with ExitStack() as stack:
        # Errors in a file each, lest two write between each other.
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(runs)]
        children = [stack.enter_context(_Child(file, policy, *words)) for file in files]
        for child in children:  # until it has warmed up
            child.line()
        for child in children:
            child.go()
        return sum(float(child.line()) for child in children) / runs


class _Child(subprocess.Popen[str]):
    """A process that says a line when it is ready, and another one some time after `go`."""

    def __init__(self, complaints: IO[str], policy: str | None, *words: object) -> None:
        self.complaints = complaints
        super().__init__(
            [sys.executable, *CHILD, *map(str, words)],
            env=environment_of(OMP_WAIT_POLICY=policy),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
        )

    def go(self) -> None:
        assert self.stdin
        with suppress(BrokenPipeError):  # then it says no line
            os.write(self.stdin.fileno(), b"go\n")  # nothing is left to be written as it closes

    def line(self) -> str:
        assert self.stdout
        line = self.stdout.readline()
        if not line:
            self.complaints.seek(0)
            raise _failed(self.complaints.read())
        return line


def output_of(*words: object, **variables: object) -> str:
    """What Python prints, called with these words and with these variables in its environment."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment_of(**variables),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise _failed(done.stderr or f"exit code {done.returncode}")
    return done.stdout


def environment_of(**variables: object) -> dict[str, str]:
    """This process's own with some variables set, or taken out where they are None."""
    paths = [str(EXPERIMENTS), str(EXPERIMENTS.parent), os.environ.get("PYTHONPATH", "")]
    own = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    own |= {name: str(value) for name, value in variables.items()}
    return {name: value for name, value in own.items() if variables.get(name, "") is not None}


def _failed(errors: str) -> S11Error:
    lines = errors.strip().splitlines() or ["it said nothing"]
    return S11Error(f"a process that was to be measured failed: {lines[-1]}")


# What the children do. Their words are strings, as they come.


def load(data: str) -> None:
    """Print the seconds of `load_images`."""
    # fastai's part that finds its folders is imported before the clock starts, not within it.
    from fastai.data.external import fastai_path  # noqa: F401

    from s11_fastai import load_images

    start = time.perf_counter()
    load_images(data)
    print(time.perf_counter() - start)


def first_batch(data: str, bs: str) -> None:
    """Come to the first training batch."""
    from s11_fastai import get_dls, load_images

    next(iter(get_dls(load_images(data), bs=int(bs), device="cpu").train))


def bare(width: str, bs: str, precision: str) -> None:
    """Two steps of the bare loop, which needs less than the rest of the benchmark imports."""
    import torch

    from benchmark.bare import bare_step, in_a_thread

    step = in_a_thread(bare_step(10, int(width), int(bs), precision, torch.device("cpu")))
    step()
    step()


def run(data: str, width: str, bs: str) -> None:
    """Two steps of a run."""
    with _fit(data, width, bs) as (steps, _):
        steps.step()
        steps.step()


def beside(data: str, width: str, bs: str, n: str) -> None:
    """Print the median of the seconds of `n` steps, once there is a line on stdin.

    It begins after a first step and a line on stdout, and trains on until stdin ends.
    """
    from statistics import median

    from benchmark.timing import seconds_of

    answers, over = sys.stdout, Event()  # print() is silenced while a run goes on
    with _fit(data, width, bs) as (steps, _):
        steps.step()
        print("ready", file=answers, flush=True)
        sys.stdin.readline()
        print(median(seconds_of(steps.step) for _ in range(int(n))), file=answers, flush=True)
        Thread(target=partial(_set_when_stdin_ends, over), daemon=True).start()
        while not over.is_set():
            steps.step()


def _set_when_stdin_ends(event: Event) -> None:
    sys.stdin.read()
    event.set()


def _fit(data: str, width: str, bs: str) -> AbstractContextManager:
    from benchmark.harness import project_fit, settings_of
    from benchmark.timing import CPU
    from s11_fastai import load_images

    return project_fit(load_images(data or None), settings_of(int(width), int(bs), CPU))


CHILDREN = {child.__name__: child for child in (load, first_batch, bare, run, beside)}

if __name__ == "__main__":
    name, *words = sys.argv[1:]
    CHILDREN[name](*words)
