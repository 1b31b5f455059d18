"""The most memory that two training steps take, in a process of their own."""

import sys
from pathlib import Path

from benchmark.children import output_of
from benchmark.timing import PROJECT, Row
from s11_fastai.sources import ImageSet

MIB = 2**20
# On Linux a process starts with the peak of the one that starts it; so a small one in between.
_WATCH = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
print(used.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measure_memory(images: ImageSet, data: str | None, width: int, bs: int) -> list[Row]:
    """The peaks of the bare loop and of a run, and what a run takes beyond loop and images."""
    bare, ours = (peak_of(kind, data, width, bs) for kind in ("bare", "run"))
    pixels = sum(part.images.nbytes for part in (images.train, images.valid))
    section = "memory of two steps"
    return [
        Row(section, "bare loop", bare / MIB, "MiB"),
        Row(section, PROJECT, ours / MIB, "MiB"),
        Row(section, "all images", pixels / MIB, "MiB"),
        Row(section, f"{PROJECT} / (bare loop + all images)", ours / (bare + pixels), ""),
    ]


def peak_of(kind: str, data: str | None, width: int, bs: int) -> int:
    """Bytes, the peak resident set of `bench.py --peak kind`."""
    bench = Path(__file__).parents[1] / "bench.py"
    words = [sys.executable, bench, "--peak", kind, "--width", width, "--bs", bs]
    return int(output_of("-c", _WATCH, *words, *(["--data", data] if data else [])))


def two_steps(kind: str, data: str | None, width: int, bs: int) -> None:
    """What the process does whose peak is taken; each side loads only what it needs."""
    if kind == "bare":
        from benchmark.bare import bare_step, in_a_thread

        step = in_a_thread(bare_step(10, width, bs))
        step()
        step()
        return
    from benchmark.steps import project_fit
    from s11_fastai import load_images

    with project_fit(load_images(data), width, bs) as (steps, _):
        steps.step()
        steps.step()
